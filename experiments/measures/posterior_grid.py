"""Densities over a grid of two latent dimensions: the true posterior, and any guide's beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from dlvm.inference import log_weights

REACH = 6.0
NUMBERS_AT_ONCE = 4_000_000


class Densities(NamedTuple):
    """Log-densities in a window around each of n data, (n, G, G) each; [i, a, b] is at (axes[0][i, a], axes[1][i, b]).

    ``posterior`` is the true log p(z | x), ``guides`` log q(z | x) by label; ``log_px`` and ``kl`` = KL(q || p(z |
    x)) are sums over the grid, in nats, (n,) each.
    """

    axes: tuple[Tensor, Tensor]
    posterior: Tensor
    guides: dict[str, Tensor]
    log_px: Tensor
    kl: dict[str, Tensor]


@torch.no_grad()
def at_points(program: Callable, x: Tensor, z: Tensor, site: str = "z") -> Tensor:
    """The log-density of a program at given latents: log p(x, z) for a model, log q(z | x) for a guide.

    Returns:
        shape (points, batch), nats.

    Args:
        program: a Pyro program with one latent site in the data plate.
        x: shape (batch, x_dim).
        z: shape (points, batch, z_dim).
        site: name of the latent site.
    """
    parts = []
    for points in z.split(max(1, NUMBERS_AT_ONCE // max(1, x.numel()))):

        def there(x: Tensor, points: Tensor = points) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample(site, dist.Delta(points if len(points) > 1 else points[0]).to_event(1))

        parts.append(log_weights(program, there, x, num_particles=len(points)))
    return torch.cat(parts)


def densities(
    model: Callable, guides: Mapping[str, Callable], x: Tensor, size: int = 101, site: str = "z"
) -> Densities:
    """The posterior of each datum, and each guide's idea of it, in a window that holds both.

    Args:
        model: the model, with one latent site of two dimensions and a prior near N(0, I).
        guides: {label: guide} for this model.
        x: shape (n, x_dim).
        size: points per axis, G.
        site: name of the latent site.
    """
    programs = {"": model, **guides}
    axes = _windows(programs, x, size, site)
    z1, z2 = axes[0][:, :, None].expand(-1, size, size), axes[1][:, None, :].expand(-1, size, size)
    z = torch.stack([z1, z2], -1).flatten(1, 2).transpose(0, 1)
    cell = sum((axis[:, 1] - axis[:, 0]).log() for axis in axes)
    found = {label: at_points(program, x, z, site) for label, program in programs.items()}
    joint = found.pop("")
    log_px = joint.logsumexp(0) + cell
    posterior = joint - log_px
    kl = {label: ((log_q + cell).exp() * (log_q - posterior)).sum(0) for label, log_q in found.items()}
    shape = (len(x), size, size)
    return Densities(
        axes, posterior.T.reshape(shape), {label: log_q.T.reshape(shape) for label, log_q in found.items()}, log_px, kl
    )


def _windows(programs: Mapping[str, Callable], x: Tensor, size: int, site: str) -> tuple[Tensor, Tensor]:
    """Per datum and axis, equally spaced points over where any of the densities has its mass."""
    coarse = torch.linspace(-REACH, REACH, 121, dtype=x.dtype, device=x.device)
    z = torch.cartesian_prod(coarse, coarse)
    lows, highs = [], []
    for program in programs.values():
        mass = at_points(program, x, z[:, None].expand(-1, len(x), -1), site).softmax(0)
        mean = mass.T @ z
        spread = (mass.T @ z.square() - mean.square()).clamp_min((coarse[1] - coarse[0]) ** 2).sqrt()
        lows.append(mean - 5 * spread)
        highs.append(mean + 5 * spread)
    low, high = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
    steps = torch.linspace(0, 1, size, dtype=x.dtype, device=x.device)
    first, second = (low[:, [d]] + (high - low)[:, [d]] * steps for d in (0, 1))
    return first, second
