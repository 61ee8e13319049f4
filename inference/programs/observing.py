"""Which parts of a call's arguments a model observes, and draws of the model that take their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.inference.programs.data_sites import is_factor
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites

TOLERANCE = 1e-4  # single precision, summed over a datum's numbers


class Part(NamedTuple):
    """Where the data of a site stand in the arguments: at these places of the argument, flattened; all of it if None.

    Attributes:
        position: of the argument.
        places: of the site's shape.
    """

    position: int
    places: Tensor | None = None


def parts_of(pair: Pair, args: tuple) -> dict[str, Part]:
    """{observed site: its part of the arguments}; a site that observes anything else, as a constant, is left out.

    Told by memory where a site observes an argument or a view of it, as x[:, t]; else by a run of the model on numbers
    that count the places of an argument, as for x[ix] or a cast.
    """
    own = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)  # nobody shares memory, unless it is a part
    with in_words("the model", args, {}):
        sites = [s for s in sample_sites(poutine.trace(pair.model).get_trace(*own)) if s["is_observed"]]
    tensors = {i: a for i, a in enumerate(own) if isinstance(a, Tensor) and a.numel()}
    found: dict[str, Part] = {}
    for site in sites:
        parts = (_in_memory(site["value"], a, i) for i, a in tensors.items() if isinstance(site["value"], Tensor))
        if (part := next(filter(None, parts), None)) is not None:
            found[site["name"]] = part
    left = {s["name"]: s["value"] for s in sites if s["name"] not in found and not is_factor(s)}
    for look in (_counted, _equal) if left else ():
        for position in tensors:
            for name, part in look(pair, own, position, left).items():
                found.setdefault(name, part)
    return found


def _in_memory(value: Tensor, argument: Tensor, position: int) -> Part | None:
    if value is argument:
        return Part(position)
    storage = argument.untyped_storage()
    if value.untyped_storage().data_ptr() != storage.data_ptr() or value.dtype != argument.dtype:
        return None
    cells = torch.arange(storage.nbytes() // argument.element_size())
    places = torch.full_like(cells, -1)
    places[cells.as_strided(argument.shape, argument.stride(), argument.storage_offset()).flatten()] = torch.arange(
        argument.numel()
    )
    return Part(position, places[cells.as_strided(value.shape, value.stride(), value.storage_offset())])


def _counted(pair: Pair, args: tuple, position: int, values: Mapping[str, Tensor]) -> dict[str, Part]:
    """Parts of one argument that are copied before they are observed."""
    argument = args[position]
    if argument.dtype is torch.bool:
        return {}
    code = torch.arange(argument.numel(), device=argument.device).reshape(argument.shape)
    last, found = argument.numel() - 1, {}
    try:
        there, back = (_seen(pair, args, position, numbers.to(argument.dtype)) for numbers in (code, last - code))
    except Exception:  # numbers that are no data, as words of no vocabulary
        return {}
    for name, value in values.items():
        index, other = there.get(name), back.get(name)
        if index is None or other is None or index.shape != value.shape or not torch.equal(index, last - other):
            continue
        if index.numel() and 0 <= int(index.min()) and int(index.max()) <= last:
            if _same(argument.flatten()[index], value):
                found[name] = Part(position, index)
    return found


def _seen(pair: Pair, args: tuple, position: int, numbers: Tensor) -> dict[str, Tensor]:
    """What sites observe where an argument holds these numbers, as integers."""
    with pyro.validation_enabled(False):
        trace = poutine.trace(pair.model).get_trace(*args[:position], numbers, *args[position + 1 :])
    values = {site["name"]: site["value"] for site in sample_sites(trace)}
    return {name: value.nan_to_num(-1).long() for name, value in values.items() if isinstance(value, Tensor)}


def _equal(pair: Pair, args: tuple, position: int, values: Mapping[str, Tensor]) -> dict[str, Part]:
    """Sites that observe the same numbers as one argument has, in another type."""
    return {name: Part(position) for name, value in values.items() if _same(args[position], value)}


def _same(argument: Tensor, value: Tensor) -> bool:
    """Whether they hold the same numbers, in whatever type; where the argument has none, the value may have any."""
    if argument.shape != value.shape:
        return False
    known = ~argument.isnan() if argument.is_floating_point() else torch.ones_like(argument, dtype=torch.bool)
    return bool((argument.to(value.dtype) == value)[known].all())


def placed(args: tuple, parts: Mapping[str, Part], values: Mapping[str, Tensor]) -> tuple:
    """The arguments with these values of sites in place of their data; what is missing (NaN) stays missing.

    Raises:
        ValueError: a value is not of the shape of the data that it is to replace.
    """
    found = list(args)
    for name, value in values.items():
        position, index = parts[name]
        old = found[position]
        wanted = old.shape if index is None else index.shape
        if value.shape != wanted:
            raise ValueError(
                f"model draws site {name!r} of shape {tuple(value.shape)} where its data have {tuple(wanted)}; pass "
                "data of the shape in which they are observed"
            )
        new = old.clone(memory_format=torch.contiguous_format)
        new.view(-1)[slice(None) if index is None else index.flatten()] = value.reshape(-1).to(old.dtype)
        missing = args[position].isnan() if old.is_floating_point() else None
        found[position] = new if missing is None else torch.where(missing, args[position], new)
    return tuple(found)


class _Drawing(Messenger):
    """Sites are drawn anew, observed ones included, but for those whose values are given."""

    def __init__(self, parts: Mapping[str, Part], given: Mapping[str, Tensor]):
        super().__init__()
        self.parts, self.given = parts, given

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name in self.given:
            msg["value"], msg["done"] = self.given[name], True
        elif name in self.parts:
            msg["value"], msg["done"] = None, False
        if name in self.parts:
            msg["is_observed"] = False


def drawn(pair: Pair, args: tuple, parts: Mapping[str, Part]) -> tuple[tuple, dict[str, Tensor]]:
    """One draw of all sites of a model, and the arguments by which it observes its part of them.

    Where a site's distribution is made of data, as each step's of the step before, the model runs once for every
    observed site, on what was drawn before it.

    Returns:
        the arguments, and {site: value}.

    Raises:
        ValueError: a site's distribution is made of the site's own data, or one that is no part weighs what is drawn.
    """
    first = _run(pair, args, parts, {})
    sites = {site["name"]: site for site in sample_sites(first)}
    order = [name for name in sites if name in parts]
    done = placed(args, parts, {name: sites[name]["value"] for name in order})
    if _differing(pair, first, sites, done, parts) is None:
        return done, _values(sites)
    given: dict[str, Tensor] = {}
    done, sites = args, {}
    for name in (*order, None):
        trace = _run(pair, done, parts, given)
        given = _up_to(trace, name)
        for site in sample_sites(trace):
            if site["name"] in given or name is None:
                sites.setdefault(site["name"], site)
        done = placed(args, parts, {known: given[known] for known in order if known in given})
    if (name := _differing(pair, trace, sites, done, parts)) is not None:
        raise ValueError(
            f"site {name!r} has another distribution once what the model draws takes the place of its data, so that it "
            "cannot be drawn from the example: its distribution is made of its own data, or of data that come after "
            "it; write the model so that it draws x where it is called with x=None and n"
        )
    for site in sample_sites(first):
        if site["is_observed"] and not _close(site["log_prob"], trace.nodes[site["name"]]["log_prob"]):
            raise ValueError(
                f"site {site['name']!r} observes no argument and weighs what the model draws, as pyro.factor does, so "
                "that (z, x) cannot be drawn site by site; leave the site out"
            )
    return done, _values(sites)


def _run(pair: Pair, args: tuple, parts: Mapping[str, Part], given: Mapping[str, Tensor]) -> poutine.Trace:
    with in_words("the model", args, {}), pyro.validation_enabled(False), _Drawing(parts, given):
        trace = poutine.trace(pair.model).get_trace(*args)
        trace.compute_log_prob()
    return trace


def _values(sites: Mapping[str, dict]) -> dict[str, Tensor]:
    return {name: site["value"] for name, site in sites.items() if not site["is_observed"]}


def _up_to(trace: poutine.Trace, last: str | None) -> dict[str, Tensor]:
    """All that was drawn until a site was, that site and subsamples included."""
    found: dict[str, Tensor] = {}
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site["is_observed"]:
            found[name] = cast(Tensor, site["value"])
        if name == last:
            break
    return found


def _differing(
    pair: Pair, trace: poutine.Trace, sites: Mapping[str, dict], args: tuple, parts: Mapping[str, Part]
) -> str | None:
    """The first site that is not observed with the value and the density that it was drawn with."""
    latent = {name: value for name, value in _up_to(trace, None).items() if name not in parts}
    again = _run(pair, args, {}, latent)
    seen = {site["name"]: site for site in sample_sites(again)}
    for name, site in sites.items():
        other = seen.get(name)
        if other is None or not _close(other["log_prob"], site["log_prob"]):
            return name
        if name in parts and not _shown(other["value"], site["value"], _data(args, parts[name])):
            return name
    return None


def _data(args: tuple, part: Part) -> Tensor:
    argument = args[part.position]
    return argument if part.places is None else argument.flatten()[part.places]


def _shown(seen: Tensor, value: Tensor, data: Tensor) -> bool:
    """Whether a site observes what was drawn, wherever data are not missing."""
    known = ~data.isnan() if data.is_floating_point() else torch.ones_like(data, dtype=torch.bool)
    return seen.shape == value.shape and bool((seen == value)[known].all())


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = max(TOLERANCE, *(20 * torch.finfo(x.dtype).eps for x in (a, b) if x.is_floating_point()))
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), tolerance, tolerance, equal_nan=True)
