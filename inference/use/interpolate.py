"""The way from one datum to another through the latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor

from dlvm.distributions.supports import is_periodic
from dlvm.inference.programs.batches import rows_in
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import check_seed, untouched
from dlvm.inference.use.arrays import taken_in
from dlvm.inference.use.asking import Asked, as_example
from dlvm.inference.use.decode import decoded
from dlvm.inference.use.encode import Code, encode
from dlvm.nets.arguments import count


@torch.no_grad()
def interpolate(
    model: Callable, guide: Callable, a: Any, b: Any, steps: int = 8, num_particles: int = 100, seed: int = 0
) -> Any:
    """Decodes the latents between those of two data.

        E[x | (1 - t) z_a + t z_b],   t from 0 to 1,   z_a = E_q[z | a], z_b = E_q[z | b]

    All latent sites go at once: numbers along a straight line, angles and directions along the shortest arc, discrete
    sites from a's most probable value to b's half way. Sites that the guide does not draw are drawn from the model.
    Modules are in evaluation mode meanwhile; the process's random state stays as it was.

    Returns:
        shape (n, steps, *event): for each datum of ``a`` the way to that of ``b``, both ends included, as a tensor, or
        as a NumPy array where ``a`` is one or a table.

    Args:
        model, guide: Pyro programs of the same signature.
        a, b: one row per datum, as many in both.
        steps: on the way, at least 2.
        num_particles: of q for each mean, where it has none in closed form.
        seed: of the draws.

    Raises:
        TypeError: a or b are no such arrays.
        ValueError: there are less than 2 steps, a and b differ in shape, or as ``encode`` and ``decode``.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> interpolate(model, Diagonal(latents(model, x), MLP(3, 8)), x[:1], x[1:2], steps=4).shape
        torch.Size([1, 4, 3])
    """
    count(steps=steps)
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}; both ends are steps")
    check_seed(seed)
    pair = Pair(model, guide)
    (first, kind), (second, _) = taken_in(pair, a, "a"), taken_in(pair, b, "b")
    n = rows_in(first)
    if rows_in(second) != n:
        raise ValueError(f"b must have as many rows as a, {n}, got {rows_in(second)}; pass a datum for each")
    ends = [encode(model, guide, args, num_particles, seed=seed) for args in (first, second)]
    t = torch.linspace(0, 1, steps)
    with untouched(seed):
        batch = as_example(model, first)
        asked = Asked(model, 1, {}, example=batch)
        sites = {name: site for name, site in asked.sites(asked.run()).items() if name in ends[0]}
        ways = {name: _way(site, ends[0][name], ends[1][name], t) for name, site in sites.items()}
        x, _ = decoded(model, {name: way.flatten(0, 1) for name, way in ways.items()}, example=batch)
    return kind.back(x.reshape(n, steps, *x.shape[1:]))


def _way(site: dict, a: Code, b: Code, t: Tensor) -> Tensor:
    """Values of a site on the way, (n, steps, *event)."""
    if a.values is not None:
        ends = [a.values[end.probabilities.argmax(-1)] for end in (a, b)]
        dims = [1] * (ends[0].dim() - 1)
        late = (t >= 0.5).to(ends[0].device).reshape(1, -1, *dims)
        return torch.where(late, ends[1][:, None], ends[0][:, None])
    one, other = a.mean[:, None], b.mean[:, None]
    t = t.to(one).reshape(1, -1, *[1] * (one.dim() - 2))
    if is_periodic(site["fn"]):
        arc = torch.remainder(other - one + math.pi, 2 * math.pi) - math.pi
        return torch.remainder(one + t * arc + math.pi, 2 * math.pi) - math.pi
    if site["fn"].support is constraints.sphere:
        one, other = (end / end.norm(dim=-1, keepdim=True) for end in (one, other))
        angle = (one * other).sum(-1, keepdim=True).clamp(-1, 1).acos()
        found = torch.where(angle < 1e-4, one, ((1 - t) * angle).sin() * one + (t * angle).sin() * other)
        return found / found.norm(dim=-1, keepdim=True)
    return (1 - t) * one + t * other
