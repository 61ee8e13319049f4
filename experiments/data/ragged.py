"""Sequences of several lengths: which fit well into one batch, and a batch that is as long as its longest one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlvm.distributions.sequences.lengths import check_lengths, steps_within

LENGTHS = "lengths"


def check_sequence_lengths(lengths: Tensor, x: Tensor) -> None:
    """Refuses lengths that are not one whole number of steps, from 1 to those of x, for each sequence.

    Raises:
        ValueError, TypeError: what they are instead.
    """
    if not isinstance(lengths, Tensor) or lengths.shape != (len(x),):
        got = tuple(lengths.shape) if isinstance(lengths, Tensor) else type(lengths).__name__
        raise ValueError(f"lengths must have shape ({len(x)},), one for each sequence, got {got}")
    check_lengths(lengths, x.shape[1])


def silent_behind(x: Tensor, lengths: Tensor) -> Tensor:
    """Sequences with zeros behind their ends, whatever stood there; x itself where it is so.

    Args:
        x: shape (sequences, steps) or (sequences, steps, x_dim).
        lengths: of them, from 1 to steps.

    Raises:
        ValueError, TypeError: they are no such lengths.

    Example:
        >>> silent_behind(torch.tensor([[3.0, 4.0], [5.0, torch.nan]]), torch.tensor([2, 1]))
        tensor([[3., 4.],
                [5., 0.]])
    """
    check_sequence_lengths(lengths, x)
    behind = ~steps_within(lengths, x.shape[1]).to(x.device)
    behind = behind if x.ndim == 2 else behind.unsqueeze(-1)
    return x.masked_fill(behind, 0) if ((x != 0) & behind).any() else x


def cut_to_longest(names: Sequence[str], parts: Sequence[Tensor], steps: int) -> tuple[Tensor, ...]:
    """The tensors of a batch without the steps that lie behind all its lengths; as they are where none is ``lengths``.

    Args:
        names: of the tensors.
        parts: shape (batch, ...); those with ``steps`` for their second dimension have a number for each step.
        steps: of the padded data.

    Example:
        >>> x, lengths = cut_to_longest(("x", "lengths"), (torch.zeros(2, 5, 3), torch.tensor([2, 4])), 5)
        >>> x.shape
        torch.Size([2, 4, 3])
    """
    if LENGTHS not in names:
        return tuple(parts)
    longest = int(parts[list(names).index(LENGTHS)].max())
    if longest == steps:
        return tuple(parts)
    return tuple(part[:, :longest] if part.ndim > 1 and part.shape[1] == steps else part for part in parts)


def by_length(
    lengths: Tensor | None, order: Tensor, size: int, pool: int, generator: torch.Generator
) -> Sequence[Tensor]:
    """The rows of each batch, of which so many batches at a time are made of sequences sorted by their lengths.

    Args:
        lengths: of all sequences; None where there are none, as long as batches are made one by one.
        order: the rows as they would come.
        size: rows of a batch; what is left over makes the last one.
        pool: how many batches are sorted together.
        generator: of the order of the batches.

    Example:
        >>> lengths, order = torch.tensor([3, 1, 2, 1, 3]), torch.arange(5)
        >>> sorted(lengths[rows].tolist() for rows in by_length(lengths, order, 2, 2, torch.Generator()))
        [[1, 1], [2, 3], [3]]
    """
    if lengths is None or pool == 1:
        return order.split(size)
    whole = len(order) // size * size
    batches: list[Tensor] = []
    for part in order[:whole].split(size * pool):
        batches += part[lengths[part].argsort(stable=True)].split(size)
    turns = torch.randperm(len(batches), generator=generator, device=generator.device).tolist()
    return [batches[turn] for turn in turns] + [order[whole:]] * (whole < len(order))


def mean_of_steps(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of each number of a step over all steps within the lengths that were seen, shape (x_dim,)."""
    steps = x.flatten(0, 1) if lengths is None else x[steps_within(lengths, x.shape[1])]
    return steps.double().nanmean(0).to(x.dtype)
