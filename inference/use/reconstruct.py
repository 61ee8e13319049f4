"""Data as the pair sees them: the mean of p(x | z) where z comes from q(z | x)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from pyro import poutine
from torch import Tensor

from dlvm.distributions.supports import is_periodic
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.observing import Part, parts_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.use.arrays import taken_in
from dlvm.inference.use.by_datum import names_of
from dlvm.inference.use.decode import mean_of
from dlvm.inference.use.encode import rows_at_once
from dlvm.nets.arguments import count


@torch.no_grad()
def reconstruct(model: Callable, guide: Callable, x: Any, num_particles: int = 100, seed: int = 0) -> Any:
    """Finds what the pair makes of each datum.

        1/K sum_k E[x | z_k],   z_k ~ q(z | x)

    With one particle it is what a single z says, sharp; with many their average, the best guess in squares.
    Modules are in evaluation mode meanwhile; the process's random state stays as it was.

    Returns:
        of the shape of x and the kind of array that it is, in the precision of the programs; NaN where no site
        observes an entry.

    Args:
        model, guide: Pyro programs of the same signature.
        x: one row per datum, a tensor, a NumPy array or a DataFrame; or a tuple of the model's arguments, of which the
            first that has data is reconstructed.
        num_particles: K per datum.
        seed: of the draws.

    Raises:
        TypeError: x is no such array.
        ValueError: there are no particles, x is not as wide as the data the pair was made for, the programs take other
            arguments, the model observes no argument, the guide leaves out what the data depend on, or the likelihood
            does not know its mean.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> reconstruct(model, Diagonal(latents(model, x), MLP(3, 8)), x).shape
        torch.Size([5, 3])
    """
    count(num_particles=num_particles)
    pair = Pair(model, guide)
    args, kind = taken_in(pair, x)
    found: list[Tensor] = []
    along: set[int] = set()  # the axis of the argument's data

    def work(part: tuple, tick: Tick) -> None:
        check_rows(pair, part, {})
        places = observed_first(pair, part)
        _check_all_drawn(pair, part, places)
        total = _means(pair, part, places)
        for _ in range(num_particles - 1):
            total = total + _means(pair, part, places)
        found.append(_straightened(total / num_particles, pair, part, places))
        along.update(pair.axes.get(part.position) or 0 for part in places.values())

    walk([args], pair, rows_at_once(args), work, seed)
    return kind.back(torch.cat(found, along.pop()))


def observed_first(pair: Pair, args: tuple) -> dict[str, Part]:
    """{site: its part} of the first argument that sites observe.

    Raises:
        ValueError: no site observes an argument.
    """
    with untouched():
        parts = parts_of(pair, args)
    if not parts:
        raise ValueError("model observes none of its arguments, which is what data are; write obs=x at its site")
    first = min(part.position for part in parts.values())
    return {name: part for name, part in parts.items() if part.position == first}


def _check_all_drawn(pair: Pair, args: tuple, places: dict[str, Part]) -> None:
    """Refuses data that depend on latent sites which the guide leaves to the model: that draws them without x."""
    with untouched(), in_words("the pair", args, {}):
        guide_trace, trace = pair.traces(args, {})
        left = [s for s in sample_sites(trace) if not s["is_observed"] and s["name"] not in guide_trace.nodes]
        if not left:
            return
        again = poutine.trace(poutine.replay(pair.model, trace=guide_trace)).get_trace(*args)
        for name in places:
            one, other = (cast(dict, found.nodes[name]) for found in (trace, again))
            if not torch.equal(*(site["fn"].log_prob(site["value"]) for site in (one, other))):
                raise ValueError(
                    f"guide does not draw {names_of(left)}, and the data {name!r} depend on that; pass the guide of "
                    f"this model, or use predict(model, guide, x, site={name!r}), which weighs what the model draws"
                )


def _means(pair: Pair, args: tuple, places: dict[str, Part]) -> Tensor:
    """E[x | z] for one draw of z, in the shape of the argument that is observed; of angles E[exp(i x) | z]."""
    sites = _sites(pair, args)
    values = {name: mean_of(sites[name]).expand_as(sites[name]["value"]) for name in places}
    for name in _round(sites, places):
        length = (1 - sites[name]["fn"].variance).expand_as(values[name])
        values[name] = torch.polar(length, values[name])
    if any(value.is_complex() for value in values.values()):
        values = {name: value + 0j for name, value in values.items()}
    return assembled(args, places, values)


def _straightened(mean: Tensor, pair: Pair, args: tuple, places: dict[str, Part]) -> Tensor:
    """Angles by their mean directions; all else as it is."""
    if not mean.is_complex():
        return mean
    with untouched():
        sites = _sites(pair, args)
    angles = set(_round(sites, places))
    which = {name: torch.full_like(mean_of(sites[name]), name in angles) for name in places}
    flags = {name: value.expand_as(sites[name]["value"]) for name, value in which.items()}
    return torch.where(assembled(args, places, flags) == 1, mean.angle(), mean.real)


def _sites(pair: Pair, args: tuple) -> dict[str, dict]:
    with in_words("the pair", args, {}):
        _, trace = pair.traces(args, {})
    return {site["name"]: site for site in sample_sites(trace)}


def _round(sites: dict[str, dict], places: dict[str, Part]) -> list[str]:
    return [name for name in places if is_periodic(sites[name]["fn"])]


def assembled(args: tuple, places: dict[str, Part], values: dict[str, Tensor]) -> Tensor:
    """Values of sites where the argument has their data; what no site observes is NaN."""
    (position,) = {part.position for part in places.values()}
    old, found = args[position], None
    for name, value in values.items():
        index = places[name].places
        if index is None:
            if value.shape != old.shape:
                raise ValueError(
                    f"x has shape {tuple(old.shape)}, and site {name!r} in rows {tuple(value.shape)}; pass data whose "
                    "rows lie along the first axis"
                )
            return value
        if found is None:
            found = torch.full((old.numel(),), torch.nan, dtype=value.dtype, device=value.device)
        found[index.flatten()] = value.expand(index.shape).reshape(-1)
    return torch.as_tensor(found).reshape(old.shape)
