"""What a state is inferred from in a sequence: the state before it, and what was read of the sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count


class Combiner(nn.Module):
    """The last state beside the features of a step, in equal parts.

        one direction:   (tanh(W z_t-1 + b) + h_t) / 2
        both directions: (tanh(W z_t-1 + b) + h_t forward + h_t backward) / 3

    Args:
        z_dim: dimensions of the last state.
        width: of the features of a step.
        parts: into how many vectors these divide: 2 for both directions.

    Raises:
        ValueError: a number is below 1, or ``parts`` does not divide ``width``.
        TypeError: one is no integer.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869; ST-R and ST-LR there.

    Example:
        >>> Combiner(2, 8, parts=2)(torch.zeros(5, 2), torch.zeros(5, 8)).shape
        torch.Size([5, 4])
    """

    def __init__(self, z_dim: int, width: int, parts: int = 1):
        super().__init__()
        count(z_dim=z_dim, width=width, parts=parts)
        if width % parts:
            raise ValueError(f"parts must divide width, got {parts} and {width}; 2 where both directions are read")
        self.out_features, self.parts = width // parts, parts
        self.of_last = nn.Linear(z_dim, self.out_features)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """
        Args:
            z: the last state, shape (*batch, z_dim).
            h: features of the step, shape (*batch, width).

        Returns:
            shape (*batch, out_features).
        """
        read = h if self.parts == 1 else h.unflatten(-1, (self.parts, self.out_features)).sum(-2)
        return (torch.tanh(self.of_last(z)) + read) / (self.parts + 1)
