"""log p(x) of models with one or two continuous latent dimensions, as an integral over a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from dlvm.evidence.estimate import Estimate, over
from dlvm.evidence.target import Target
from dlvm.inference.evaluation.dataset_weights import CHUNK_NUMBERS
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import rows_of, width_of
from dlvm.nets.arguments import count, real

ROWS = 20
DOUBLINGS = 3
DRAWS = 64
COARSE, FINEST = {1: 201, 2: 41}, 321  # points per axis by which the window is found
ROUNDS = 40
PATIENCE = 6  # rounds on one grid: a narrow ridge between its points is found by a finer one


def quadrature(
    model: Callable,
    data: Tensor | Iterable,
    points: int = 101,
    reach: float = 20.0,
    tol: float = 1e-3,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Estimate:
    """The exact log p(x) of a model with one or two latent dimensions, by the trapezoid rule.

        log p(x) = log int p(x, u) du,   z = f(u), u real

    The window is each datum's own: it starts where the prior has its draws, and closes in on all of u where log p(x, u)
    is within ``reach`` of its maximum. The grid is doubled until leaving out every second point changes log p(x) by
    less than ``tol``; the rule's own error is usually far below that change.

    Returns:
        an ``Estimate``, side "exact"; ``log_px_se`` is that change, in nats, and ``num_samples`` the points of
        the finest grid.

    Args:
        model: a Pyro program with its continuous latents, of any support, in one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        points: per axis at first, odd and at least 5; doubled at most three times.
        reach: nats below the maximum.
        tol: nats.
        chunk: points times data at once; picked from the width of x unless told, for bounded memory.
        seed: of the prior's draws.
        progress: show a bar with the time left.

    Raises:
        ValueError: a setting is out of range, a latent is discrete, there are more than two dimensions, the window does
            not settle, or the grid is too coarse to the last.

    Example:
        >>> from dlvm.models import PPCA
        >>> print(quadrature(PPCA(torch.ones(3, 1), torch.zeros(3), 1.0), torch.zeros(2, 3)))
        log p(x) = -3.450   (quadrature, ... s)
    """
    count(points=points, chunk=1 if chunk is None else chunk)
    real(reach=reach, tol=tol)
    if points < 5 or points % 2 == 0:
        raise ValueError(f"points must be odd and at least 5, chunk at least 1, got {points} and {chunk}")
    if not (0 < reach < math.inf and 0 < tol < math.inf):
        raise ValueError(f"reach and tol must be positive finite numbers of nats, got {reach} and {tol}")

    pair = Pair(model)

    def method(args: tuple, tick: Tick) -> Estimate:
        target = Target(model, args)
        if target.dim > 2:
            raise ValueError(
                f"the model has {target.dim} latent dimensions ({', '.join(target.sites)}); quadrature takes one or "
                "two: use sandwich(...) for bounds on both sides"
            )
        having = rowed(pair, args)
        at_once = max(1, chunk or CHUNK_NUMBERS // width_of(args, pair))
        low, high = window(target, reach, max(1, at_once // target.num_data))
        log_px = low.new_full((len(low),), math.nan, dtype=torch.float64)
        change, size = log_px.clone(), points
        for _ in range(DOUBLINGS + 1):
            unsure = ~(change < tol)
            if having is None:
                unsure = torch.ones_like(unsure)
            target = target if unsure.all() else Target(model, rows_of(args, unsure, having))
            per_datum = max(1, at_once // target.num_data)
            log_px[unsure], change[unsure] = _integral(target, low[unsure], high[unsure], size, per_datum)
            if (change < tol).all():
                tick(1.0)
                return replace(Estimate.exactly("quadrature", log_px), log_px_se=change, num_samples=size**target.dim)
            size = 2 * size - 1
        raise ValueError(
            f"a grid of {(size + 1) // 2} points per axis leaves changes of up to {change.max().item():.2g} nats in "
            f"log p(x), more than tol={tol}, for {int((~(change < tol)).sum())} data; give more points, or a larger tol"
        )

    return over(data, method, pair, min(ROWS, chunk or ROWS), seed, progress, "integrating over the latents")


def _integral(target: Target, low: Tensor, high: Tensor, size: int, at_once: int) -> tuple[Tensor, Tensor]:
    """log p(x) on a grid, and by how much it changes with half the points per axis; shapes (data,)."""
    log_joint = on_grid(target, low, high, size, at_once)
    log_cell = ((high - low) / (size - 1)).double().log().sum(-1)
    every, half = log_joint, log_joint[(slice(None, None, 2),) * target.dim]
    fine = every.flatten(0, target.dim - 1).logsumexp(0) + log_cell
    coarse = half.flatten(0, target.dim - 1).logsumexp(0) + log_cell + target.dim * math.log(2)
    return fine, (fine - coarse).abs()


def window(target: Target, reach: float, at_once: int) -> tuple[Tensor, Tensor]:
    """Where log p(x, u) is within reach of its maximum, and a cell more; shapes (data, dim)."""
    draws = torch.cat([target.draw(target.model, min(at_once, DRAWS)) for _ in range(0, DRAWS, min(at_once, DRAWS))])
    spread = (draws.amax(0) - draws.amin(0)).clamp_min(1e-6)
    low, high = draws.amin(0) - spread, draws.amax(0) + spread
    size = COARSE[target.dim]
    for done in range(1, ROUNDS + 1):
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
        if done % PATIENCE == 0 and size < FINEST:
            size = 2 * size - 1
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
    parts = [target.joint(low + (high - low) * share).double() for share in shares.split(at_once)]
    return torch.cat(parts).reshape(*[size] * target.dim, -1)
