"""The plates around the sites of a trace: which of them index independent data, and how deep they nest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

PARTICLES = "_particles_of_the_bound"


def sample_sites(*traces: poutine.Trace) -> list[dict]:
    """The sample sites of traces without subsampling ones."""
    found = [s for t in traces for s in prune_subsample_sites(t).nodes.values() if s["type"] == "sample"]
    return cast("list[dict]", found)  # of a run that has ended, every entry is there


def depth(sites: list[dict]) -> int:
    """How many dimensions the plates around the sites take, particles left out."""
    frames = (f for site in sites for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES)
    return max((-frame.dim for frame in frames), default=0)


def common_plates(sites: list[dict]) -> list:
    """Frames of the plates around every site, from left to right."""
    stacks = [{f.name: f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES} for site in sites]
    shared = [frame for name, frame in stacks[0].items() if all(name in stack for stack in stacks)] if stacks else []
    return sorted(shared, key=lambda frame: frame.dim)


def data_plates(sites: list[dict]) -> list:
    """Frames of the plates that index data: around every observed site and every latent one that is not global."""
    around = {frame.name for frame in common_plates([site for site in sites if site["is_observed"]])}
    return common_plates([s for s in sites if s["is_observed"] or around & {f.name for f in s["cond_indep_stack"]}])


def outer_scale(sites: list[dict], plates: Sequence) -> Tensor | float:
    """The scale that multiplies each datum's bound; what a site has beyond it tempers that site.

    It is the scale that all observed sites share, or else what subsampling the plates makes.
    """
    scales = [site["scale"] for site in sites if site["is_observed"]] or [sites[0]["scale"]]
    if all(same(scale, scales[0]) for scale in scales[1:]):
        return scales[0]
    return math.prod((frame.full_size or frame.size) / frame.size for frame in plates)


def same(a: Tensor | float, b: Tensor | float) -> bool:
    """Whether two scales are equal."""
    return a is b or bool((torch.as_tensor(a) == torch.as_tensor(b)).all())


def in_particles(program: Callable, num_particles: int, nesting: int) -> Callable:
    """The program with a plate of particles on the left of all others, of which ``nesting`` may nest."""
    return pyro.plate(PARTICLES, num_particles, dim=-nesting - 1)(program)
