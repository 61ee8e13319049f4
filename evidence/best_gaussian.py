"""The best Gaussian for each datum of a model with one or two latent dimensions, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pyro
import torch
from torch import Tensor

from evidence.target import Target

NODES = 24


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
        return (weight[:, None] * sum(target(u))).sum(0) + entropy

    def closure() -> Tensor:
        loss = -bound().sum()
        for parameter, slope in zip(free, torch.autograd.grad(loss, free), strict=True):
            parameter.grad = slope
        return loss

    settings = dict(max_iter=300, history_size=20, tolerance_grad=1e-8, tolerance_change=1e-12)
    torch.optim.LBFGS(free, line_search_fn="strong_wolfe", **settings).step(closure)
    with torch.no_grad():
        return bound().double()


def _hermite(dim: int) -> tuple[Tensor, Tensor]:
    """Points (nodes^dim, dim) and weights with sum_i w_i f(e_i) = E f(e) for e ~ N(0, I)."""
    points, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(NODES))
    grids = torch.cartesian_prod(*[points] * dim), torch.cartesian_prod(*[weights / weights.sum()] * dim)
    return grids[0].reshape(-1, dim), grids[1].reshape(-1, dim).prod(-1)
