"""How a state moves on: along a line where a gate is shut, and by a net where it is open."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count


class GatedTransition(nn.Module):
    """A Gaussian step whose mean lies between a linear map of the last state and a net's proposal.

        p(z_t | z_t-1) = N((1 - g) * (A z_t-1 + b) + g * m, diag(scale^2)),
        g = sigmoid(gate(z_t-1)),   m = proposal(z_t-1),   scale = positive(V relu(m) + c)

    It starts with A = 1 and b = 0, where a shut gate leaves the state in its place.

    Args:
        z_dim: dimensions of a state.
        hidden: width of the hidden layers of ``gate`` and ``proposal``.

    Raises:
        TypeError, ValueError: one of them is no integer of at least 1.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869.

    Example:
        >>> GatedTransition(2, 8)(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(self, z_dim: int, hidden: int = 200):
        super().__init__()
        count(z_dim=z_dim, hidden=hidden)
        self.gate = nn.Sequential(nn.Linear(z_dim, hidden), nn.ReLU(), nn.Linear(hidden, z_dim))
        self.proposal = nn.Sequential(nn.Linear(z_dim, hidden), nn.ReLU(), nn.Linear(hidden, z_dim))
        self.line, self.scale = nn.Linear(z_dim, z_dim), nn.Linear(z_dim, z_dim)
        with torch.no_grad():
            self.line.weight.copy_(torch.eye(z_dim))
            self.line.bias.zero_()

    def forward(self, z: Tensor) -> dist.Distribution:
        """p(z_t | z_t-1) for the last state, shape (*batch, z_dim)."""
        gate, proposed = self.gate(z).sigmoid(), self.proposal(z)
        loc = torch.lerp(self.line(z), proposed, gate)
        return dist.Normal(loc, positive(self.scale(proposed.relu()))).to_event(1)
