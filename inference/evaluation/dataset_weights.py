"""Importance weights of whole data sets, a few particles of a few data at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from dlvm.distributions.likelihoods.dequantised import CellNoise
from dlvm.distributions.masks import counting
from dlvm.distributions.supports import inner
from dlvm.inference.engine.engine import Engine
from dlvm.inference.engine.policy import STEPS_TO_REPAY_CAPTURE
from dlvm.inference.engine.recording import Outcome
from dlvm.inference.evaluation.active_units import units_of
from dlvm.inference.particles.mixing import Call, weighs_alike
from dlvm.inference.particles.row_weights import RowWeights, refuse_impossible, weigh_rows
from dlvm.inference.programs.batches import length_of, look
from dlvm.inference.programs.beside import observes_everything
from dlvm.inference.programs.chunks import Walked, walk
from dlvm.inference.programs.data_sites import data_of, is_continuous
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.row_arguments import FEWEST, MOST, NUMBERS, rowed
from dlvm.inference.programs.rows import batch_size, rows_of, width_of
from dlvm.nets.arguments import whole

CHUNK_NUMBERS = 800_000
MOST_ROWS = 20_000
FEW_ROWS = 3
PARTICLES_AT_ONCE = 100
MOST_TO_DIVIDE, NUMBERS_TO_DIVIDE = 4096, 50_000


class Scored(NamedTuple):
    """All particles of some data.

    Attributes:
        likelihood: log p(x | z), shape (num_particles, rows), nats; one particle where there is nothing to draw.
        ratio: log q(z | x) / p(z), shape (num_particles, rows), nats; log w = likelihood - ratio.
        mean: of the latents over particles, {site: shape (rows, units)}.
        square: of their squares.
        x_dim: observed numbers per datum, on average where some are missing.
        density: whether a number is continuous, so that the likelihood is no probability.
        certain: whether nothing is latent and nothing random, so that each particle would weigh the same.
        shared: whether data may share what is drawn, as noise of the model's own, so that their errors go together.
    """

    likelihood: Tensor
    ratio: Tensor
    mean: dict[str, Tensor]
    square: dict[str, Tensor]
    x_dim: float
    certain: bool = False
    density: bool = False
    shared: bool = False


@torch.no_grad()
def score(
    pair: Pair,
    data: Tensor | Iterable,
    num_particles: int,
    take: Callable[[Scored], None],
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
    look: Callable[[tuple], None] | None = None,
) -> Walked:
    """Draws and weighs particles for every datum, and hands them over a few data at a time.

    Returns:
        how far it came.

    Args:
        take: called with what was found of some data, in their order.
        look: called with the arguments of every batch, once it is found to be sound.
        others, Raises: see ``evaluate``.
    """
    whole(num_particles=num_particles, chunk=1 if chunk is None else chunk)
    if num_particles < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"num_particles and chunk must be at least 1, got {num_particles} and {chunk}")
    scorer = _Scorer(pair, num_particles, chunk, engine, number_of_batches(data))

    def prepare(args: tuple) -> int:
        rows = scorer.prepare(args)
        if look is not None and scorer.divides is not False and not scorer.certain:  # which looks at single data
            look(args)
        return rows

    return walk(data, pair, prepare, lambda part, _: take(scorer(part)), seed, progress, "evaluating")


def number_of_batches(data: Tensor | Iterable) -> int:
    """As far as known; 1 for a stream."""
    return 1 if isinstance(data, Tensor) else length_of(data) or 1


class _Scorer:
    """Scores the data of one data set.

    Args:
        pair, num_particles, chunk, engine: see ``score``.
        number: of batches in the data set.
    """

    def __init__(self, pair: Pair, num_particles: int, chunk: int | None, engine: str, number: int):
        self.pair, self.rows, self.weights = pair, RowWeights(pair), _Weights(pair)
        self.num_particles, self.chunk = num_particles, chunk
        self.engine, self.number = engine, number
        self.at_once = 0
        self.certain: bool | None = None
        self.divides: bool | None = None
        self.replay: Engine  # from the first batch on

    def prepare(self, args: tuple) -> int:
        """Holds a batch against the likelihood; how many of its data to score at once."""
        count, width = batch_size(self.pair, args), width_of(args, self.pair)
        if self.certain is not False:
            self.certain = observes_everything(self.pair, self._few(args), {})
        rows, at_once = _pick(width, self.chunk, 1 if self.certain else self.num_particles)
        self.weights.whole = rowed(self.pair, args) is None
        if rows < count and (self.weights.whole or not self._divides(args, rows * at_once)):
            rows, at_once = count, max(1, rows * at_once // count)
        self.rows.check(args, at_once, rows * at_once)
        if self.rows.parallel is False:
            rows, at_once = _pick(width, self.chunk, 1)
        if not self.at_once:
            calls = self.number * math.ceil(count / rows) * math.ceil(self.num_particles / at_once)
            self.replay = _engine(self.weights, self.engine, calls)
        self.at_once = at_once
        return rows

    def _few(self, args: tuple) -> tuple:
        """The first rows, where there are such."""
        having = rowed(self.pair, args)
        return args if having is None else rows_of(args, slice(0, FEW_ROWS), having)

    def _divides(self, args: tuple, most: int) -> bool:
        """Whether data weigh in halves what they weigh together, of more rows than ``rowed`` tries; found once."""
        if self.divides is None:
            count, width = batch_size(self.pair, args), width_of(args, self.pair)
            number = min(count, MOST_TO_DIVIDE, NUMBERS_TO_DIVIDE // width, most)
            if number <= max(FEWEST, min(MOST, NUMBERS // width)):
                return True
            having = rowed(self.pair, args)
            some = rows_of(args, slice(count - number, count), having)
            bounds = pairwise((0, number // 2, number))
            halves = [Call(rows_of(some, slice(*ends), having), {}, *ends) for ends in bounds]
            self.divides = weighs_alike(self.pair, Call(some, {}, 0, number), halves) is not False
        return self.divides

    def __call__(self, args: tuple) -> Scored:
        certain = bool(self.certain) and observes_everything(self.pair, args, {})  # unless values decide it
        K = 1 if certain else self.num_particles
        counts = [min(self.at_once, K - start) for start in range(0, K, self.at_once)]
        # A CUDA graph writes its next results over these.
        found = (self.replay(count, *args)[1] for count in counts)
        parts = [[t.clone() if t.is_cuda else t for t in tensors if t is not None] for tensors in found]
        likelihood, ratio, first, second, holes = zip(*parts, strict=True)
        refuse_impossible(log_likelihood := torch.cat(likelihood))
        mean, square = sum(first[1:], first[0]) / K, sum(second[1:], second[0]) / K
        x_dim, units, density = self.weights.shapes[look(args)]
        names, sizes = list(units), list(units.values())
        means, squares = (
            dict(zip(names, each.split(sizes, -1), strict=True)) if names else {} for each in (mean, square)
        )
        there = x_dim - holes[0].item() / log_likelihood.shape[1]  # what the model lets pass: see Missing
        shared = self.rows.parallel is False
        return Scored(log_likelihood, torch.cat(ratio), means, squares, there, certain, density, shared)


class _Weights:
    """Log-likelihoods, log-ratios and moments of the latents for a few particles of a few data.

    ``shapes``: by how arguments look, how many observed numbers a datum has, {latent site: how many units}, and
    whether a number is continuous.
    """

    def __init__(self, pair: Pair):
        self.pair, self.whole = pair, False
        self.shapes: dict[tuple, tuple[int, dict[str, int], bool]] = {}

    def __call__(self, num_particles: int, *args: Any) -> Outcome:
        with pyro.validation_enabled(False):  # data were held against the likelihood before, and NaN is refused after
            found = weigh_rows(self.pair, args, num_particles, whole=self.whole)
        ratio = found.log_ratio
        none = ratio.new_zeros((*ratio.shape, 0))  # a model may observe everything
        noise = {site["name"] for site in found.joint if isinstance(inner(site["fn"]), CellNoise)}  # is no unit
        said = {name: value for name, value in units_of(found).items() if name not in noise}
        latents = {name: value.reshape(*ratio.shape, -1) for name, value in said.items()}
        sizes = {name: value.shape[-1] for name, value in latents.items()}
        data = data_of(found.joint)
        self.shapes[look(args)] = found.x_dim, sizes, any(map(is_continuous, data))
        units = torch.cat([none, *latents.values()], dim=-1)
        holes = sum(map(_absent, data), none.new_zeros(()))  # an input has them beside
        return [], [found.log_likelihood, ratio, units.sum(0), units.square().sum(0), holes]


def _absent(site: dict[str, Any]) -> Tensor:
    """How many numbers of an observed site are missing, or masked."""
    value, counts = site["value"], counting(site)
    absent = value.isnan() if counts is None else value.isnan() | ~counts  # of every particle, where masks are drawn
    return absent.double().mean() * value.numel()


def _engine(weights: _Weights, engine: str, calls: int) -> Engine:
    if engine == "auto" and calls < STEPS_TO_REPAY_CAPTURE:
        engine = "eager"
    return Engine(weights, weights.pair.modules, engine, calls, finite=False, name="evaluate")


def _pick(width: int, chunk: int | None, num_particles: int) -> tuple[int, int]:
    """How many data and how many particles to score at once: few enough that they stay in the processor's cache."""
    chunk = chunk or min(MOST_ROWS, max(1, CHUNK_NUMBERS // width))
    at_once = min(num_particles, PARTICLES_AT_ONCE, chunk)
    return max(1, chunk // at_once), at_once
