"""Draws of a model: ancestral ones, with sites given where nothing that is drawn lies above them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from dlvm.inference.bounds.importance import effective_sample_size
from dlvm.inference.console import tell
from dlvm.inference.programs.randomness import check_seed, untouched
from dlvm.inference.use.arrays import Kind
from dlvm.inference.use.asking import Asked, as_example, by_name
from dlvm.inference.use.by_datum import by_datum, columns, names_of
from dlvm.nets.arguments import count


@torch.no_grad()
def generate(
    model: Callable,
    n: int,
    given: Mapping[str, Any] | None = None,
    num_particles: int | None = None,
    seed: int = 0,
    example: Any = None,
) -> dict[str, Any]:
    """Draws data, and the latents that they come from.

        (z, x) ~ p(z, x | given)

    Sites are drawn one after the other, from the top down to x. That is right for what is given above all that is
    drawn. Something given further down, as a label that the latents bring about, says something of what lies above
    it: that is refused, or with ``num_particles`` answered by sampling-importance-resampling, where each datum is
    chosen from so many by the density of what is given; a line says how many of them counted.
    Modules are in evaluation mode meanwhile; the process's random state stays as it was.

    Returns:
        {site: values of shape (n, *event)}, given ones included; of a site that all data share its one value. Arrays
        of the kind that ``given`` are, or tensors.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``; or any other, with ``example``.
        n: how many data.
        given: {site or argument: values}, n rows each.
        num_particles: how many to choose each datum from, where something given lies below what is drawn.
        seed: of the draws.
        example: a batch of data, for a model without ``n``: shapes are taken from it, and inputs that are not given.

    Raises:
        TypeError: the model takes no ``n`` and there is no example, or ``given`` are no arrays by name.
        ValueError: n is below 1, there is no such site, values do not fit it, or lie below what is drawn.

    Example:
        >>> from dlvm.models import PPCA
        >>> model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
        >>> {site: tuple(values.shape) for site, values in generate(model, 5).items()}
        {'z': (5, 2), 'x': (5, 3)}
        >>> generate(model, 1, given={"z": torch.zeros(1, 2)})["z"]
        tensor([[0., 0.]])
    """
    count(n=n, num_particles=1 if num_particles is None else num_particles)
    check_seed(seed)
    values, kind = by_name(model, {} if given is None else given, "given")
    with untouched(seed):
        asked = Asked(model, n, values, example=as_example(model, example))
        with asked.free.evaluating():
            with untouched():
                below = asked.below()
            if not below:
                return _handed(_values(asked)[0], kind)
            if num_particles is None:
                who = "given has" if below[0] in values else "model observes"
                raise ValueError(
                    f"{who} {below[0]!r}, which depends on sites that are drawn, and so says something of them; pass "
                    "num_particles, as 1000, to choose each datum from so many by its density, or give what lies above "
                    "it"
                )
            _refuse_shared(asked)
            return _handed(_resampled(asked, below, num_particles), kind)


def _refuse_shared(asked: Asked) -> None:
    """Data that are chosen one by one would come from different values of what they share."""
    with untouched():
        sites = asked.sites(asked.run())
    if shared := [site for name, site in sites.items() if name not in asked.local and name not in asked.names]:
        name = shared[0]["name"]
        raise ValueError(
            f"model draws {names_of(shared)}, which all data share, so that they cannot be chosen one by one; fix it, "
            f"as by poutine.condition(model, data={{{name!r}: ...}}), or give what lies above the rest"
        )


def _values(asked: Asked, below: list[str] | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """One draw of all sites, rows first, and the log-density of some sites for each datum."""
    found: dict[str, Tensor] = {}
    weight = torch.zeros(asked.n, dtype=torch.double)
    for name, site in asked.sites(asked.run()).items():
        local = name in asked.local
        found[name] = by_datum(site["value"], site, asked.layout)[0] if local else site["value"]
        if name in (below or ()):
            density = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
            log_prob = by_datum(density, site, asked.layout, 0)[0]
            weight = weight + log_prob.double().reshape(asked.n, -1).sum(1).cpu()
    return found, weight


def _resampled(asked: Asked, below: list[str], num_particles: int) -> dict[str, Tensor]:
    """Each datum chosen from so many, in one pass: the k-th is taken with probability w_k / (w_1 + ... + w_k)."""
    kept, total = _values(asked, below)
    weights = [total]
    for _ in range(num_particles - 1):
        found, weight = _values(asked, below)
        weights.append(weight)
        total = torch.logaddexp(total, weight)
        chosen = torch.rand_like(total).log() < weight - total
        for name, value in found.items():
            if name in asked.local:
                turn = chosen.reshape(-1, *[1] * (value.dim() - 1)).to(value.device)
                kept[name] = torch.where(turn, value, kept[name])
    ess = effective_sample_size(torch.stack(weights))
    tell(
        f"given below what is drawn: each of {asked.n} data chosen from {num_particles}, of which "
        f"{ess.mean().item():.1f} counted on average and {ess.min().item():.1f} at least"
    )
    return kept


def _handed(values: dict[str, Tensor], kind: Kind) -> dict[str, Any]:
    widths = {
        name: value[0].numel() if value.dim() else 1 for name, value in values.items()
    }  # a shared number has none
    return {name: kind.back(value, columns(name, widths[name])) for name, value in values.items()}
