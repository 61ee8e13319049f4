"""Importance weights of whole data sets, a few particles of a few data at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from inference.check import check_particles
from inference.engine import STEPS_TO_REPAY_CAPTURE, Engine
from inference.modes import evaluation_mode
from inference.observed import check_observed
from inference.outcomes import Outcome
from inference.ownership import own, reached
from inference.plates import data_plates
from inference.progress import bar
from inference.randomness import untouched
from inference.streams import arguments, batches_of, to_device_of
from inference.weights import weigh
from nets.numbers import whole

CHUNK_NUMBERS = 800_000
MOST_ROWS = 20_000
PARTICLES_AT_ONCE = 100


class Scored(NamedTuple):
    """All particles of some data.

    Attributes:
        likelihood: log p(x | z), shape (num_particles, rows), nats.
        ratio: log q(z | x) / p(z), shape (num_particles, rows), nats; log w = likelihood - ratio.
        mean: of the latents over particles, shape (rows, units).
        square: of their squares.
        x_dim: observed numbers per datum.
    """

    likelihood: Tensor
    ratio: Tensor
    mean: Tensor
    square: Tensor
    x_dim: int


@torch.no_grad()
def score(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int,
    take: Callable[[Scored], None],
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> None:
    """Draws and weighs particles for every datum, and hands them over a few data at a time.

    Args:
        take: called with what was found of some data, in their order.
        others, Raises: see ``evaluate``.
    """
    whole(num_particles=num_particles, chunk=1 if chunk is None else chunk)
    if num_particles < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"num_particles and chunk must be at least 1, got {num_particles} and {chunk}")
    batches = batches_of(data)
    move, programs = to_device_of(model, guide), (own(model), own(guide))
    weights: _Weights | None = None
    with untouched(seed), evaluation_mode(model, guide), bar(progress) as shown:
        task = shown.add_task("evaluating", total=None)
        for batch in batches:
            args = move(arguments(batch))
            if not len(args[0]):
                raise ValueError(f"a batch of shape {tuple(args[0].shape)} holds no datum; leave it out")
            rows, at_once = _pick(args, chunk, num_particles)
            if weights is None and at_once > 1:
                check_particles(model, guide, *(a[:1] if isinstance(a, Tensor) and a.dim() else a for a in args))
            for part in _split(args, rows * at_once):
                check_observed(poutine.trace(programs[0]).get_trace(*part))
            if weights is None:
                number = len(batches) if hasattr(batches, "__len__") else 1
                calls = number * math.ceil(len(args[0]) / rows) * math.ceil(num_particles / at_once)
                shown.update(task, total=number * len(args[0]))
                weights = _Weights(programs)
                replay = _engine(weights, (model, guide), engine, calls)
            for part in _split(args, rows):
                take(Scored(*_score(replay, part, at_once, num_particles), x_dim=weights.x_dim))
                shown.advance(task, len(part[0]))
                shown.refresh()


class _Weights:
    """Log-likelihoods, log-ratios and moments of the latents for a few particles of a few data."""

    def __init__(self, programs: tuple[Callable, Callable]):
        self.programs, self.x_dim = programs, 1

    def __call__(self, num_particles: int, *args) -> Outcome:
        with pyro.validation_enabled(False):  # data were held against the likelihood before, and NaN is refused after
            found = weigh(*self.programs, args, {}, num_particles)
        if len(data_plates(found.joint)) > len(found.layout.plates):
            raise ValueError(
                "the model has latent sites that all data share, outside the data plate, so that no datum has a weight "
                "of its own, whatever the size of batches; give these sites values, by poutine.condition inside "
                "poutine.block, and evaluate that model with the guide of the others"
            )
        if found.log_likelihood.shape[1] != len(args[0]):
            raise ValueError(
                f"the pair gives {found.log_likelihood.shape[1]} weights for {len(args[0])} data; evaluate needs one "
                "weight per datum: put every site into the data plate"
            )
        self.x_dim = found.x_dim
        ratio = found.log_ratio
        none = ratio.new_zeros((*ratio.shape, 0))  # a model may observe everything
        units = torch.cat([none, *(v.reshape(*ratio.shape, -1) for v in found.latents.values())], dim=-1)
        return [], [found.log_likelihood, ratio, units.sum(0), units.square().sum(0)]


def _engine(weights: _Weights, programs: tuple[Callable, Callable], engine: str, calls: int) -> Engine:
    if engine == "auto" and calls < STEPS_TO_REPAY_CAPTURE:
        engine = "eager"
    return Engine(weights, reached(*programs), engine, calls, finite=False, name="evaluate")


def _pick(args: tuple, chunk: int | None, num_particles: int) -> tuple[int, int]:
    """How many data and how many particles to score at once: few enough that they stay in the processor's cache."""
    width = max(value[0].numel() for value in args if isinstance(value, Tensor) and value.dim())
    chunk = chunk or min(MOST_ROWS, max(1, CHUNK_NUMBERS // max(1, width)))
    at_once = min(num_particles, PARTICLES_AT_ONCE, chunk)
    return max(1, chunk // at_once), at_once


def _split(args: tuple, rows: int) -> Iterator[tuple]:
    count = len(args[0])
    for start in range(0, count, rows):
        yield tuple(
            a[start : start + rows] if isinstance(a, Tensor) and a.dim() and len(a) == count else a for a in args
        )


def _score(replay: Engine, args: tuple, at_once: int, num_particles: int) -> tuple[Tensor, ...]:
    """Log-likelihoods and log-ratios, (num_particles, rows) each, and moments of the latents, (rows, units) each."""
    counts = [min(at_once, num_particles - start) for start in range(0, num_particles, at_once)]
    # A CUDA graph writes its next results over these.
    parts = [[t.clone() if t.is_cuda else t for t in replay(count, *args)[1]] for count in counts]
    likelihood, ratio, first, second = zip(*parts, strict=True)
    return torch.cat(likelihood), torch.cat(ratio), sum(first) / num_particles, sum(second) / num_particles
