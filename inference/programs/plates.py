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
    """Frames of the plates around every site, from left to right, their sizes known."""
    stacks = [{f.name: f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES} for site in sites]
    shared = [frame for name, frame in stacks[0].items() if all(name in stack for stack in stacks)] if stacks else []
    return [frame if frame.size > 0 else sized(frame, sites) for frame in sorted(shared, key=lambda frame: frame.dim)]


def sized(frame: Any, sites: Sequence[Mapping[str, Any]]) -> Any:
    """The frame of a plate that was given no size, with that of the sites in it."""
    shapes = [batch_shape(site) for site in sites if frame.name in names_around(site)]
    size = max((shape[frame.dim] for shape in shapes if len(shape) >= -frame.dim), default=1)
    return frame._replace(size=size, full_size=size)


def common_loops(sites: list[dict]) -> frozenset[str]:
    """Names of the plates, run through one by one (``for i in pyro.plate(...)``), that every site lies in."""
    stacks = [{f.name for f in site["cond_indep_stack"] if not f.vectorized} for site in sites]
    return frozenset.intersection(*map(frozenset, stacks)) if stacks else frozenset()


def inside_the_plates(sites: list[dict]) -> list[dict]:
    """The latent sites and the data that lie with them in plates: what a datum is made of.

    Where all have a plate in common, that is all of them. Where they have not, data that lie in no plate with the
    latent sites are left out, see ``beside``; so are those in no plate at all where others are in one.
    """
    latent, data = [site for site in sites if not site["is_observed"]], data_of(sites)
    for around in (common_plates, common_loops):
        if around(latent + data):
            return latent + data
    for around in (common_plates, common_loops):
        if latent and (inner := [site for site in data if around([*latent, site])]) and around(latent + inner):
            return latent + inner
    return latent + ([site for site in data if site["cond_indep_stack"]] or data)


def data_plates(sites: list[dict]) -> list:
    """Frames of the plates that index data: around all data and every latent site that is not global."""
    data = [site for site in inside_the_plates(sites) if site["is_observed"]]
    around = {frame.name for frame in common_plates(data)}
    return common_plates(data + [s for s in sites if not s["is_observed"] and around & names_around(s)])


def outer_scale(sites: list[dict], plates: Sequence, loops: frozenset[str] = frozenset()) -> Tensor | float:
    """The scale that multiplies each datum's bound; what a site has beyond it tempers that site.

    It is the scale that all sites in the plates share. Where they differ, it is what subsampling the plates makes, if
    the latent sites have just that, so that a scale on likelihoods alone tempers these; else what the observed sites
    share, so that one on latent sites alone tempers those.
    """
    names, dims = {frame.name for frame in plates}, {frame.dim for frame in plates}
    turned = [f for f in (sites[0]["cond_indep_stack"] if loops else ()) if not f.vectorized and f.name in loops]
    made = math.prod((frame.full_size or frame.size) / frame.size for frame in (*plates, *turned))
    inside = [site for site in sites if names <= names_around(site)]
    latent, observed = ([s["scale"] for s in inside if s["is_observed"] is seen] for seen in (False, True))
    for scales in (latent + observed, [] if latent and all(same(scale, made) for scale in latent) else observed):
        if scales and all(same(scale, scales[0]) for scale in scales[1:]) and _spans(scales[0], dims):
            return scales[0]
    return made


def _spans(scale: Tensor | float, dims: set[int]) -> bool:
    """Whether a scale is a number, or differs along these dimensions alone."""
    return not isinstance(scale, Tensor) or all(scale.shape[d] == 1 or d in dims for d in range(-scale.dim(), 0))


def same(a: Tensor | float, b: Tensor | float) -> bool:
    """Whether two scales are equal."""
    return a is b or bool((torch.as_tensor(a) == torch.as_tensor(b)).all())


def in_particles(program: Callable, num_particles: int, nesting: int) -> Callable:
    """The program with a plate of particles on the left of all others, of which ``nesting`` may nest."""
    return pyro.plate(PARTICLES, num_particles, dim=-nesting - 1)(program)
