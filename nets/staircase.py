"""Linear maps by staircase masks, such as a masked autoencoder's: what the mask takes away is not multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 2**17  # weights; below it one product of all is as fast
BLOCKS = 4
LEAST_ROWS = 64


class Block(NamedTuple):
    """Rows ``start`` to ``stop`` of a mask: all see the columns before ``low``, and none those from ``high`` on."""

    start: int
    stop: int
    low: int
    high: int


def blocks_of(mask: Tensor) -> list[Block]:
    """A mask's blocks of rows, where each row sees the columns up to some place; none where it does not pay.

    Args:
        mask: shape (out, in), of 0 and 1.

    Example:
        >>> blocks_of(torch.ones(1000, 1000).tril(-1))[1]
        Block(start=250, stop=500, low=250, high=499)
    """
    rows, columns = mask.shape
    counts = mask.sum(1).long()
    if mask.numel() < SMALLEST or not bool((mask.bool() == (torch.arange(columns) < counts[:, None])).all()):
        return []
    size = max(LEAST_ROWS, -(-rows // BLOCKS))
    parts = [(start, part.tolist()) for start, part in zip(range(0, rows, size), counts.split(size), strict=True)]
    blocks = [Block(start, start + len(part), min(part), max(part)) for start, part in parts]
    used = sum((b.stop - b.start) * b.high for b in blocks)
    return blocks if used < 0.8 * mask.numel() else []


def staircase(value: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, blocks: Sequence[Block]) -> Tensor:
    """value (mask * weight)^T + bias, by blocks where there are any.

    Args:
        value: shape (*batch, in).
        weight, mask: shape (out, in).
        bias: shape (out,), or None.
        blocks: of the mask.

    Returns:
        shape (*batch, out); that of one product up to rounding.
    """
    plain = (
        not blocks
        or value.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or torch._C._are_functorch_transforms_active()
    )
    if plain:
        return F.linear(value, mask * weight, bias)
    out = _Staircase.apply(value.reshape(-1, value.shape[-1]), weight, mask, bias, blocks)
    return out.reshape(*value.shape[:-1], len(weight))


class _Staircase(torch.autograd.Function):
    """``staircase`` of a matrix; weights that the mask takes away have gradient 0."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, blocks: Sequence[Block]
    ) -> Tensor:
        ctx.save_for_backward(value, weight, mask)
        ctx.blocks = blocks
        parts = []
        for start, stop, low, high in blocks:
            rows = slice(start, stop)
            first = value[:, :low], weight[rows, :low].T
            out = torch.mm(*first) if bias is None else torch.addmm(bias[rows], *first)
            parts.append(out.addmm_(value[:, low:high], (mask[rows, low:high] * weight[rows, low:high]).T))
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, Tensor | None, None]:
        value, weight, mask = ctx.saved_tensors
        by_value = torch.zeros_like(value) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start, stop, low, high in ctx.blocks:
            rows, part = slice(start, stop), grad[:, start:stop]
            if by_value is not None:
                by_value[:, :low].addmm_(part, weight[rows, :low])
                by_value[:, low:high].addmm_(part, mask[rows, low:high] * weight[rows, low:high])
            if by_weight is not None:
                by_weight[rows, :low].addmm_(part.T, value[:, :low])
                by_weight[rows, low:high] = part.T @ value[:, low:high] * mask[rows, low:high]
        return by_value, by_weight, None, grad.sum(0) if ctx.needs_input_grad[3] else None, None
