"""A second opinion on log p(x): a few data weighed by draws from the prior, which go where a guide may not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pyro
import torch
import torch.nn.functional as F
from pyro import poutine
from torch import Tensor

from dlvm.inference.bounds.importance import effective_sample_size, log_mean_exp, relative_variance
from dlvm.inference.console import first_line, say
from dlvm.inference.evaluation.active_units import units_of
from dlvm.inference.evaluation.dataset_weights import CHUNK_NUMBERS
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.row_weights import weigh_rows
from dlvm.inference.particles.weights import in_parallel
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import batch_size, rows_of, width_of

MOST_DATA = 16
MOST_PARTICLES = 1000
MOST_ONE_BY_ONE = 100
FEWEST_PARTICLES = 25
FINE = 0.01  # nats
TELLING = 10.0  # effective draws from the prior from which on they can agree with a guide's
ERRORS = 3.0
UNLIKELY = 1 / 1000


class Opinion(NamedTuple):
    """What draws from the prior say of a few data, beside what the guide's say of the same.

    Attributes:
        excess: log p(x) by the prior less that by the guide, mean over these data, nats; NaN where there is none.
        margin: how far it may be from 0 by errors and chance alone.
        ess: effective sample size of the draws from the prior, median over these data.
        num_data: how many these were.
        moments: {latent site: (mean, variance) of its units under the prior}.
    """

    excess: float = math.nan
    margin: float = math.nan
    ess: float = math.nan
    num_data: int = 0
    moments: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({})


class SecondOpinion:
    """Keeps a few data of a walk, spread over it, and weighs them by the prior when it is done.

    At most 16 data, and as many particles as the guide's up to 1000, or 100 where they run one after the other. Draws
    are of a stream of its own.

    Args:
        pair: whose model is asked.
        num_particles: of the guide.
        seed: of what is drawn.
        number: of batches to come, as far as known.
        chunk: particles times data weighed at once; picked from the width of x unless told.
    """

    def __init__(self, pair: Pair, num_particles: int, seed: int, number: int, chunk: int | None = None):
        self.pair, self.num_particles, self.seed, self.chunk = pair, num_particles, seed, chunk
        self.every = math.ceil(number / MOST_DATA)
        self.of_each = MOST_DATA // math.ceil(number / self.every)
        self.batches = self.data = self.known = 0
        self.kept: list[tuple[Tensor, tuple]] = []

    def look(self, args: tuple) -> None:
        """Keeps some rows of a batch; all of one that cannot be cut, if it is small."""
        count = batch_size(self.pair, args)
        most = min(self.of_each, self._at_once(args))
        if self.batches % self.every == 0 and self.known < MOST_DATA:
            having = rowed(self.pair, args)
            if having is not None:
                rows = torch.linspace(0, count - 1, min(most, count)).long()
                self._keep(rows, rows_of(args, rows, having))
            elif count <= most:
                self._keep(torch.arange(count), args)
        self.batches, self.data = self.batches + 1, self.data + count

    def _keep(self, rows: Tensor, args: tuple) -> None:
        self.kept.append((self.data + rows, args))
        self.known += len(rows)

    def _at_once(self, args: tuple) -> int:
        return self.chunk or max(1, CHUNK_NUMBERS // width_of(args, self.pair))

    def of(self, log_px: Tensor, variance: Tensor, bias: Tensor) -> Opinion:
        """The opinion, beside a guide's estimates of all data, their sampling variance and bias; shapes (num_data,)."""
        told_apart = self.data == len(log_px)  # a batch that cannot be cut may have another number of data than of rows
        if not self.kept or not told_apart or self.num_particles < FEWEST_PARTICLES:
            return Opinion()
        sums = _Sums()
        try:
            with untouched(self.seed), torch.no_grad(), self.pair.evaluating(), pyro.validation_enabled(False):
                log_w = torch.cat([self._weighed(args, sums) for _, args in self.kept], dim=1).double()
        except KeyboardInterrupt:  # the estimates themselves are done
            return Opinion()
        except FAILURES as error:
            say(f"evaluate: no second opinion from the prior, since the model fails on its draws: {first_line(error)}")
            return Opinion()
        rows = torch.cat([rows for rows, _ in self.kept]).to(log_px.device)
        own, found, count = relative_variance(log_w), log_mean_exp(log_w), len(rows)
        if not (found.isfinite() & log_px[rows].isfinite()).all():
            return Opinion()
        ess = effective_sample_size(log_w).median().item()
        margin = FINE + ERRORS * _error(variance[rows]) + bias[rows].mean().item()
        # A product of n mean weights exceeds that of n p(x) by e^(n t) with a probability of at most e^(-n t).
        chance = -math.log(UNLIKELY) / count
        margin += ERRORS * _error(own) + own.mean().item() / 2 if ess >= TELLING else chance
        return Opinion((found - log_px[rows]).mean().item(), margin, ess, count, sums.moments)

    def _weighed(self, args: tuple, sums: _Sums) -> Tensor:
        """log w of draws from the prior, shape (num_particles, rows)."""
        rows, parallel = batch_size(self.pair, args), in_parallel(self.pair, args, {})
        number = min(self.num_particles, MOST_PARTICLES if parallel else MOST_ONE_BY_ONE)
        at_once = max(1, self._at_once(args) // rows)
        prior = poutine.block(self.pair.model, hide_fn=lambda site: site["type"] == "sample" and site["is_observed"])
        alone, nesting, parts = Pair.as_they_are(self.pair.model, prior), self.pair.nesting(args, {}), []
        for start in range(0, number, at_once):
            found = weigh_rows(alone, args, min(at_once, number - start), nesting=nesting, parallel=parallel)
            sums.add(found)
            parts.append(found.log_w)
        return torch.cat(parts)


class _Sums:
    """Of the draws of each unit over particles and data: how many, the draws, and their squares."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def add(self, found: Particles) -> None:
        draws = found.log_w.numel()
        for name, values in units_of(found).items():
            units = values.reshape(draws, -1).double()
            new = torch.stack([(~units.isnan()).double().sum(0), units.nansum(0), units.square().nansum(0)])
            old = self.of.get(name, new[:, :0])
            most = max(new.shape[1], old.shape[1])
            new, old = (F.pad(each, (0, most - each.shape[1])) for each in (new, old))
            self.of[name] = new + old

    @property
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (first / n, second / n - (first / n).square()) for name, (n, first, second) in self.of.items()}


def _error(variance: Tensor) -> float:
    """Standard error of a mean over data."""
    return variance.sum().sqrt().item() / len(variance)
