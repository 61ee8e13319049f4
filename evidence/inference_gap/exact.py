"""The inference gap of a model with one or two latent dimensions, divided exactly: by quadrature, without a draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from dlvm.evidence.estimate import Estimate, over
from dlvm.evidence.inference_gap.local_fit import frozen
from dlvm.evidence.inference_gap.record import Difference, Gaps
from dlvm.evidence.log_px.quadrature import window
from dlvm.evidence.target import Target
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import count

DEEP = 30.0
NUMBERS_AT_ONCE = 8_000_000
MOST_CHANGE = 0.05  # nats; the error that remains is about its fourth power
NODES = 24


class Grid(NamedTuple):
    """Points around each datum's posterior; ``u`` (points, num_data, dim), ``log_cell`` (num_data,)."""

    u: Tensor
    log_cell: Tensor


def exact_gaps(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    diagonal: bool = True,
    points: int = 160,
    rows: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Gaps:
    """Divides the inference gap of a Gaussian family without Monte Carlo error.

        log p(x) = log int p(x, u) du,   L[q] = int q(u | x) log p(x, u) / q(u | x) du,   q* by L-BFGS from three starts

    Integrals over the latents, as one unconstrained vector u, are sums over a grid around each datum's posterior; the
    bound of a Gaussian is taken by Gauss-Hermite quadrature, and climbed from the guide's moments, the posterior's and
    its mode, since a posterior may have several.

    Returns:
        a ``Gaps``, nats per datum; ``richer`` is the best Gaussian of any covariance where ``diagonal``.

    Args:
        model: a Pyro program whose continuous latent sites have one or two dimensions in all.
        guide: with the model's sites alone, and densities at any value.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        diagonal: q* has independent dimensions; False for any covariance.
        points: of the grid, per dimension.
        rows: how many data at once.
        seed: of the guide's draws that say where the grid has to be.
        progress: show a bar with the time left.

    Raises:
        ValueError: the latents have more than two dimensions, are discrete or global, or the grid misses some of the
            guide's mass or is too coarse for the posterior; there are no data, or they lie outside the likelihood's
            support.

    References:
        Inference Suboptimality in Variational Autoencoders, Cremer, Li, Duvenaud, 2018, arXiv:1801.03558.
    """
    count(points=points, rows=rows)
    if points < 10:
        raise ValueError(f"points must be at least 10, got {points}; 160 is usual")
    pair, parts = Pair(model, guide), []

    def method(args: tuple, tick: Callable[[float], None]) -> Estimate:
        found = _part(Target(model, args), guide, diagonal, points)
        tick(1.0)
        parts.append(found)
        return Estimate.exactly("quadrature", found["log_px"])

    with frozen(pair):
        log_px = over(data, method, pair, rows, seed, progress, "integrating over latents")
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def bound(name: str, text: str) -> Estimate:
        return replace(log_px, method=text, side="lower", log_px=columns[name], log_px_bias=None)

    def above(upper: str, lower: str) -> Difference:
        return Difference(columns[upper] - columns[lower], torch.zeros_like(columns[upper]))

    return Gaps(
        bound("elbo", "ELBO of the guide, by quadrature"),
        bound("best", "ELBO of the best Gaussian, by quadrature"),
        log_px,
        approximation=above("log_px", "best"),
        amortisation=above("best", "elbo"),
        total=above("log_px", "elbo"),
        richer=bound("richer", "ELBO of the best Gaussian of any covariance") if diagonal else None,
        gain=above("richer", "best") if diagonal else None,
    )


def _part(target: Target, guide: Callable, diagonal: bool, points: int) -> dict[str, Tensor]:
    if target.dim > 2:
        raise ValueError(f"the latents have {target.dim} dimensions; a grid is for one or two: use gaps(...)")
    target.accept(guide)
    grid = _grid(target, guide, points)
    log_joint = _joint(target, grid.u).double()
    log_q = torch.cat([target.log_q(guide, u) for u in _pieces(target, grid.u)]).double()
    log_px = log_joint.logsumexp(0) + grid.log_cell
    _check_fine(log_joint.unflatten(0, (points,) * target.dim), grid.log_cell, log_px)
    mass = (log_q + grid.log_cell).exp()
    if ((mass.sum(0) - 1).abs() > 1e-3).any():
        raise ValueError(
            f"the grid holds {mass.sum(0).min().item():.4f} to {mass.sum(0).max().item():.4f} of the guide's mass; "
            "pass more points, or use gaps(...) for a guide that is so wide or so narrow"
        )
    found = {"log_px": log_px, "elbo": (mass * (log_joint - log_q)).sum(0)}
    posterior = (log_joint + grid.log_cell - log_px).exp()
    loc, tril = _moments(grid.u, posterior)
    mode = grid.u.gather(0, log_joint.argmax(0)[None, :, None].expand(1, -1, target.dim))[0]
    starts = [_moments(grid.u, mass / mass.sum(0)), (loc, tril), (mode, tril / 2)]
    found["best"] = best_gaussian(target, starts, diagonal)
    if diagonal:
        found["richer"] = torch.maximum(best_gaussian(target, starts, False), found["best"])
    return found


def _check_fine(log_joint: Tensor, log_cell: Tensor, log_px: Tensor) -> None:
    """Every second point per dimension, shape (*[points] * dim, num_data), says nearly the same: peaks are met."""
    dim = log_joint.dim() - 1
    half = log_joint[(slice(None, None, 2),) * dim].flatten(0, dim - 1).logsumexp(0) + log_cell + dim * math.log(2)
    if not ((log_px - half).abs() < MOST_CHANGE).all():
        raise ValueError(
            f"points must make a finer grid: leaving out every second of {len(log_joint)} changes log p(x) by "
            f"{(log_px - half).abs().max().item():.2g} nats, since a posterior is narrow or the guide wide; pass more"
        )


def _grid(target: Target, guide: Callable, points: int) -> Grid:
    """Equally spaced points over where the posterior or the guide has its mass."""
    low, high = window(target, DEEP, _at_once(target))
    drawn = target.draw(guide, 200)
    mean, spread = drawn.mean(0), drawn.std(0)
    low, high = torch.minimum(low, mean - 8 * spread), torch.maximum(high, mean + 8 * spread)
    share = (torch.arange(points, dtype=drawn.dtype, device=drawn.device) + 0.5) / points
    unit = torch.cartesian_prod(*[share] * target.dim).reshape(-1, 1, target.dim)
    return Grid(low + (high - low) * unit, ((high - low) / points).double().log().sum(-1))


def _moments(u: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of the covariance of a density on a grid."""
    mass = mass.to(u.dtype)
    loc = torch.einsum("pn,pnd->nd", mass, u)
    cov = torch.einsum("pn,pnd,pne->nde", mass, u - loc, u - loc)
    floor = 1e-8 * torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    return loc, torch.linalg.cholesky(cov + floor)


def _joint(target: Target, u: Tensor) -> Tensor:
    """log p(x, u), shape (points, num_data), a few points at a time."""
    return torch.cat([target.joint(piece) for piece in _pieces(target, u)])


def _pieces(target: Target, u: Tensor) -> tuple[Tensor, ...]:
    return u.split(_at_once(target))


def _at_once(target: Target) -> int:
    return max(2, NUMBERS_AT_ONCE // max(1, data_in(target.args).numel()))


def best_gaussian(target: Target, starts: Iterable[tuple[Tensor, Tensor]], diagonal: bool) -> Tensor:
    """The largest ELBO of a Gaussian over u that is reached from any of the starts, shape (num_data,), nats.

    Args:
        starts: (loc, scale_tril), shapes (num_data, dim) and (num_data, dim, dim).
        diagonal: with independent dimensions.
    """
    with torch.enable_grad(), pyro.validation_enabled(False):
        return torch.stack([_climbed(target, loc, tril, diagonal) for loc, tril in starts]).amax(0)


def _climbed(target: Target, loc: Tensor, tril: Tensor, diagonal: bool) -> Tensor:
    eps, weight = _hermite(target.dim)
    eps, weight = eps.to(loc), weight.to(loc)
    loc = loc.clone().requires_grad_()
    size = tril.diagonal(dim1=-2, dim2=-1).log().clone().requires_grad_()
    below = (tril.tril(-1) * (not diagonal)).clone().requires_grad_()
    free = [loc, size] if diagonal or target.dim == 1 else [loc, size, below]

    def bound() -> Tensor:
        factor = torch.diag_embed(size.exp()) + below.tril(-1)
        u = loc + (factor @ eps[:, None, :, None]).squeeze(-1)
        entropy = size.sum(-1) + 0.5 * target.dim * (1 + math.log(2 * math.pi))
        return (weight[:, None] * target.joint(u)).sum(0) + entropy

    def closure() -> Tensor:
        loss = -bound().sum()
        for parameter, slope in zip(free, torch.autograd.grad(loss, free), strict=True):
            parameter.grad = slope
        return loss

    torch.optim.LBFGS(
        free,
        max_iter=300,
        history_size=20,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    ).step(closure)
    with torch.no_grad():
        return bound().double()


def _hermite(dim: int) -> tuple[Tensor, Tensor]:
    """Points (nodes^dim, dim) and weights with sum_i w_i f(e_i) = E f(e) for e ~ N(0, I)."""
    points, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(NODES))
    grids = torch.cartesian_prod(*[points] * dim), torch.cartesian_prod(*[weights / weights.sum()] * dim)
    return grids[0].reshape(-1, dim), grids[1].reshape(-1, dim).prod(-1)
