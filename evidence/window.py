"""Where a posterior of one or two dimensions has its mass, and its density on a grid there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evidence.target import Target

DRAWS = 64
COARSE = {1: 201, 2: 41}
ROUNDS = 40


def window(target: Target, reach: float, at_once: int) -> tuple[Tensor, Tensor]:
    """Where log p(x, u) is within reach of its maximum, and a cell more; shapes (data, dim)."""
    draws = torch.cat([target.draw(target.model, min(at_once, DRAWS)) for _ in range(0, DRAWS, min(at_once, DRAWS))])
    spread = (draws.amax(0) - draws.amin(0)).clamp_min(1e-6)
    low, high = draws.amin(0) - spread, draws.amax(0) + spread
    size = COARSE[target.dim]
    for _ in range(ROUNDS):
        log_joint = on_grid(target, low, high, size, at_once).nan_to_num(nan=-math.inf)
        best = log_joint.flatten(0, target.dim - 1).amax(0)
        if not best.isfinite().all():
            raise ValueError(
                f"log p(x, u) is not finite anywhere for {int((~best.isfinite()).sum())} data; look at the run that "
                "produced the model's parameters, and at the data"
            )
        kept = log_joint + _between(log_joint, target.dim) > best - reach
        axes = [kept.any(1 - d) if target.dim == 2 else kept for d in range(target.dim)]
        inside = torch.stack(axes, -1).int()
        first, last = inside.argmax(0), size - 1 - inside.flip(0).argmax(0)
        beyond = torch.where(first == 0, size // 2, 1), torch.where(last == size - 1, size // 2, 1)
        step, before = (high - low) / (size - 1), high - low
        low, high = low + (first - beyond[0]) * step, low + (last + beyond[1]) * step
        if ((high - low) / before > 0.8).all() and max(part.max().item() for part in beyond) == 1:
            return low, high
    raise ValueError(
        f"no window holds all of p(x, u) within {reach} nats of its maximum: its tails are too heavy, or it does not "
        "decay; lower reach, or reparametrise the model"
    )


def _between(log_joint: Tensor, dim: int) -> Tensor:
    """By how much a maximum among neighbours may be exceeded between them: no narrow peak is left out unseen."""
    more = torch.zeros_like(log_joint)
    for axis in range(dim):
        count = log_joint.shape[axis] - 2
        before, here, after = (log_joint.narrow(axis, start, count) for start in (0, 1, 2))
        peak = (here >= before) & (here >= after) & here.isfinite()
        rise = torch.where(peak, here - torch.minimum(before, after), 0.0)
        inner = more.narrow(axis, 1, count)
        inner.copy_(torch.maximum(inner, rise))
    return more


def on_grid(target: Target, low: Tensor, high: Tensor, size: int, at_once: int) -> Tensor:
    """log p(x, u) on a grid of size points per axis, shape (*[size] * dim, data)."""
    unit = torch.linspace(0, 1, size, dtype=low.dtype, device=low.device)
    shares = torch.cartesian_prod(*[unit] * target.dim).reshape(-1, 1, target.dim)
    parts = [sum(target(low + (high - low) * share)).double() for share in shares.split(at_once)]
    return torch.cat(parts).reshape(*[size] * target.dim, -1)
