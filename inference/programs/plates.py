"""The plates around the sites of a trace: which of them index independent data, and how deep they nest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from dlvm.inference.programs.data_sites import batch_shape, data_of, is_deterministic, names_around
from dlvm.inference.programs.statement import said_plates

PARTICLES = "_particles_of_the_bound"


def sample_sites(*traces: poutine.Trace) -> list[dict]:
    """The sample sites of traces without those of subsampling and of ``pyro.deterministic``, which count nothing."""
    return [site for site in all_sample_sites(*traces) if not is_deterministic(site)]


def all_sample_sites(*traces: poutine.Trace) -> list[dict]:
    """The sample sites of traces without subsampling ones."""
    found = [s for t in traces for s in prune_subsample_sites(t).nodes.values() if s["type"] == "sample"]
    return cast("list[dict]", found)  # of a run that has ended, every entry is there


def depth(sites: list[dict]) -> int:
    """How many dimensions the plates around the sites take, particles left out."""
    frames = (f for site in sites for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES)
    return max((-frame.dim for frame in frames), default=0)


def common_plates(sites: list[dict]) -> list:
    """Frames of the plates around every site, from left to right, their sizes known; of those said to index data."""
    said = said_plates(sites)
    stacks = [{f.name: f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES} for site in sites]
    shared = [frame for name, frame in stacks[0].items() if all(name in stack for stack in stacks)] if stacks else []
    shared = [frame for frame in shared if not said or frame.name in said]
    return [frame if frame.size > 0 else sized(frame, sites) for frame in sorted(shared, key=lambda frame: frame.dim)]


def sized(frame: Any, sites: Sequence[Mapping[str, Any]]) -> Any:
    """The frame of a plate that was given no size, with that of the sites in it."""
    shapes = [batch_shape(site) for site in sites if frame.name in names_around(site)]
    size = max((shape[frame.dim] for shape in shapes if len(shape) >= -frame.dim), default=1)
    return frame._replace(size=size, full_size=size)


def common_loops(sites: list[dict]) -> frozenset[str]:
    """Names of the plates, run through one by one (``for i in pyro.plate(...)``), that every site lies in."""
    stacks = [{f.name for f in site["cond_indep_stack"] if not f.vectorized} for site in sites]
    found = frozenset.intersection(*map(frozenset, stacks)) if stacks else frozenset[str]()
    return found & (said_plates(sites) or found)


def inside_the_plates(sites: list[dict]) -> list[dict]:
    """The latent sites and the data that lie with them in plates: what a datum is made of.

    Where all have a plate in common, that is all of them. Where they have not, data that lie in no plate with the
    latent sites are left out, see ``beside``; so are those in no plate at all where others are in one, and those that
    lie outside the plates that are said to index data.
    """
    latent, data = [site for site in sites if not site["is_observed"]], data_of(sites)
    if said := said_plates(sites):
        _check_said(said, latent, data)
        return latent + [site for site in data if said <= names_around(site)]
    for around in (common_plates, common_loops):
        if around(latent + data):
            return latent + data
    for around in (common_plates, common_loops):
        if latent and (inner := [site for site in data if around([*latent, site])]) and around(latent + inner):
            return latent + inner
    return latent + ([site for site in data if site["cond_indep_stack"]] or data)


def _check_said(said: frozenset[str], latent: list[dict], data: list[dict]) -> None:
    """Raises ValueError where plates that are said to index data are not there, hold none, or not all of a datum."""
    frames = {f.name: f for site in latent + data for f in site["cond_indep_stack"] if f.name != PARTICLES}
    words = f"data_plate={'/'.join(sorted(said))!r} is said of the model by described(...)"
    if not said <= frames.keys():
        raise ValueError(f"{words}, whose sites lie in the plates {sorted(frames)}; name one of these, or None")
    if data and not any(said <= names_around(site) for site in data):
        around = sorted({name for site in data for name in names_around(site)} - {PARTICLES})
        raise ValueError(f"{words}, and holds no observed site; these lie in the plates {around}: name one of these")
    if len({frames[name].vectorized for name in said}) > 1:
        raise ValueError(f"{words}: one of these is run through one by one, the other is not; name one of them")
    for site in latent:
        if within := said & names_around(site):
            if without := said - within:
                raise ValueError(
                    f"{words}, and latent site {site['name']!r} lies in {sorted(within)} and not in {sorted(without)}, "
                    f"so that data share it in part; name {sorted(within)} alone, whose data are then larger"
                )


def data_plates(sites: list[dict]) -> list:
    """Frames of the plates that index data: around all data and every latent site that is not global."""
    data = [site for site in inside_the_plates(sites) if site["is_observed"]]
    around = {frame.name for frame in common_plates(data)}
    return common_plates(data + [s for s in sites if not s["is_observed"] and around & names_around(s)])


def outer_scale(sites: list[dict], plates: Sequence, loops: frozenset[str] = frozenset()) -> Tensor | float:
    """The scale that multiplies each datum's bound; what a site has beyond it tempers that site.

    It is the scale that all sites in the plates share. Where they differ, it is what subsampling the plates makes, if
    the latent sites have just that, so that a scale on likelihoods alone tempers these; else what the observed sites
    share, so that one on latent sites alone tempers those. What subsamples inside a datum make is no part of it.
    """
    names, dims = {frame.name for frame in plates}, {frame.dim for frame in plates}
    turned = [f for f in (sites[0]["cond_indep_stack"] if loops else ()) if not f.vectorized and f.name in loops]
    made = math.prod((frame.full_size or frame.size) / frame.size for frame in (*plates, *turned))
    inside = [site for site in sites if names <= names_around(site)]
    latent, observed = ([s["scale"] for s in inside if s["is_observed"] is seen] for seen in (False, True))
    for scales in (latent + observed, [] if latent and all(same(scale, made) for scale in latent) else observed):
        if scales and all(same(scale, scales[0]) for scale in scales[1:]) and _spans(scales[0], dims):
            return scales[0] if (within := _within(inside, names)) == 1 else scales[0] / within
    return made


def _within(sites: list[dict], names: set[str]) -> float:
    """What subsampling makes of plates around all sites that are said to lie inside a datum."""
    if not said_plates(sites):
        return 1.0
    stacks = [{f for f in site["cond_indep_stack"] if f.name not in names | {PARTICLES}} for site in sites]
    return math.prod((f.full_size or f.size) / f.size for f in set.intersection(*stacks) if f.size > 0)


def _spans(scale: Tensor | float, dims: set[int]) -> bool:
    """Whether a scale is a number, or differs along these dimensions alone."""
    return not isinstance(scale, Tensor) or all(scale.shape[d] == 1 or d in dims for d in range(-scale.dim(), 0))


def same(a: Tensor | float, b: Tensor | float) -> bool:
    """Whether two scales are equal."""
    return a is b or bool((torch.as_tensor(a) == torch.as_tensor(b)).all())


def in_particles(program: Callable, num_particles: int, nesting: int) -> Callable:
    """The program with a plate of particles on the left of all others, of which ``nesting`` may nest."""
    return pyro.plate(PARTICLES, num_particles, dim=-nesting - 1)(program)
