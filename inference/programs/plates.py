"""Which plates index independent data, and how much a batch of them counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from dlvm.inference.programs.modules import bare, evaluation_mode
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.randomness import untouched

PARTICLES = "_particles_of_the_bound"
T = TypeVar("T")
Finder = Callable[[Callable, Callable, tuple, dict], T]


def sample_sites(*traces: poutine.Trace) -> list[dict]:
    """The sample sites of traces without subsampling ones."""
    return [s for t in traces for s in prune_subsample_sites(t).nodes.values() if s["type"] == "sample"]


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


def outer_scale(sites: list[dict], plates: list) -> Tensor | float:
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


def remembered(find: Finder) -> Finder:
    """A function of (model, guide, args, kwargs) that is called once for a pair and calls that look alike.

    Calls look alike if their tensors have as many dimensions, other arguments are the same, and so are the flags and
    words that the programs' modules hold.
    """
    known: WeakKeyDictionary = WeakKeyDictionary()

    @wraps(find)
    def look_up(model: Callable, guide: Callable, args: tuple, kwargs: dict) -> T:
        first, second = (bare(program) for program in (model, guide))
        results = known.setdefault(first, WeakKeyDictionary()).setdefault(second, {})
        given = *map(_look, args), *((name, _look(value)) for name, value in sorted(kwargs.items()))
        key = given, _flags(first), _flags(second)
        if key not in results:
            results[key] = find(model, guide, args, kwargs)
        return results[key]

    return look_up


@remembered
def nesting_of(model: Callable, guide: Callable, args: tuple, kwargs: dict) -> int:
    """How deep the pair's plates nest, found by one run and remembered."""
    with untouched(), torch.no_grad(), poutine.block(), evaluation_mode(bare(model), bare(guide)):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return depth(sample_sites(model_trace, guide_trace))


class DataCount:
    """By how many data a loss on a batch is to be divided, to be nats per datum.

    It is the common scale of the observed sites summed over the batch: the batch size in a plain plate, the full size
    in a subsampled one. Counts are remembered by the shapes of a batch.
    """

    def __init__(self, model: Callable):
        self.model = model
        self.known: dict[tuple, float] = {}

    def __call__(self, args: tuple) -> float:
        key = tuple(tuple(a.shape) if isinstance(a, Tensor) else a for a in args)
        if key not in self.known:
            with untouched(), torch.no_grad(), evaluation_mode(self.model):
                sites = sample_sites(poutine.trace(own(self.model)).get_trace(*args))
            plates = data_plates(sites)
            shape, scale = [frame.size for frame in plates], outer_scale(sites, plates)
            self.known[key] = (
                scale.expand(shape).sum().item() if isinstance(scale, Tensor) else scale * math.prod(shape)
            )
        return self.known[key]


def _look(value: object) -> object:
    if isinstance(value, Tensor):
        return Tensor, value.dim()
    return value if isinstance(value, bool | int | float | str | None) else type(value)


def _flags(program: Callable) -> tuple:
    parts = program.modules() if isinstance(program, nn.Module) else ()
    held = (value for part in parts for name, value in vars(part).items() if name != "training")
    return tuple(value for value in held if isinstance(value, bool | str))
