"""Sequences of several lengths in one tensor: which steps count, and which lengths are possible."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor


def check_lengths(lengths: Tensor, steps: int) -> None:
    """Refuses lengths that are no whole numbers from 1 to the number of steps that there are.

    Raises:
        TypeError: they are no tensor of whole numbers.
        ValueError: a sequence is empty, or longer than its padding.
    """
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"lengths must be a tensor of whole numbers, got {got}; count the steps of each sequence")
    if torch.compiler.is_compiling() or not lengths.numel():
        return
    least, most = lengths.aminmax()
    if least < 1 or most > steps:
        raise ValueError(
            f"lengths must be from 1 to {steps}, the steps that there are, got {least.item()} to {most.item()}; leave "
            "empty sequences out, and pad to the longest"
        )


def steps_within(lengths: Tensor, steps: int) -> Tensor:
    """Whether each step counts, shape (*batch, steps).

    Example:
        >>> steps_within(torch.tensor([1, 3]), 3).int()
        tensor([[1, 0, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)


class Ragged(dist.TorchDistribution):
    """A distribution over sequences, event shape (T, ...), whose ``lengths`` say how many steps count; None for all."""

    lengths: Tensor | None

    @property
    def within(self) -> Tensor | None:
        """Whether a step counts, shape (*batch, T); None where all do."""
        return None if self.lengths is None else steps_within(self.lengths, self.event_shape[0])

    @property
    def event_mask(self) -> Tensor | None:
        """Which numbers count, shape (*batch, *event); None where all do."""
        if (within := self.within) is None:
            return None
        spread = within.reshape(within.shape + (1,) * (len(self.event_shape) - 1))
        return spread.expand(self.batch_shape + self.event_shape)
