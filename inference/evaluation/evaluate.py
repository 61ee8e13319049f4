"""What a trained pair is worth on data: log p(x) with its error, the ELBO and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dlvm.inference.bounds.importance import (
    WORST_KHAT,
    effective_sample_size,
    log_mean_bias,
    log_mean_exp,
    pareto_k,
    relative_variance,
)
from dlvm.inference.evaluation.active_units import ACTIVE_VARIANCE, count_active, of_the_same_data, spread_of
from dlvm.inference.evaluation.dataset_weights import Scored, number_of_batches, score
from dlvm.inference.evaluation.second_opinion import Opinion, SecondOpinion
from dlvm.inference.evaluation.verdict import verdict
from dlvm.inference.particles.row_weights import refuse_nan
from dlvm.inference.programs.pair import Pair

SHOWN_BIAS = 0.0005
NARROW = 0.25  # of the prior's variance: a unit that says nothing of x and is narrower has not collapsed to the prior


def evaluate(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 1000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> Evaluation:
    """Estimates log p(x) by importance sampling from the guide, the ELBO and its parts.

        log p(x) ~ log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    Modules are in evaluation mode meanwhile; the process's random state stays as it was. After Ctrl-C the record is of
    the data that were done, and says so.

    Batches are scored whole where halves of up to 4096 data weigh otherwise than together; what is farther is not seen.
    For a second opinion at most 16 of the data, spread over all, are weighed by at most 1000 draws from the prior as
    well, which leaves the estimates as they are.

    Returns:
        an ``Evaluation``.

    Args:
        model, guide: Pyro programs of the same signature.
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        num_particles: K per datum; at least 25 for ``khat``, at least 2 for standard errors.
        chunk: particles times data scored at once; picked from the width of x unless told, for bounded memory.
        seed: of the particles.
        progress: show a bar with the time left.
        engine: how weights are computed, as in ``SVI``; always in full precision.

    Raises:
        ValueError: ``engine`` is unknown, ``num_particles`` or ``chunk`` is below 1, there are no data, data lie
            outside the likelihood's support, or the pair gives more or less than one weight per datum, or NaN.

    Example:
        >>> import torch
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> evaluate(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=10).num_data
        5
    """
    pair, totals = Pair(model, guide), Totals(num_particles)
    second = SecondOpinion(pair, num_particles, seed, number_of_batches(data), chunk)
    walked = score(pair, data, num_particles, totals.add, chunk, seed, progress, engine, second.look)
    return totals.result(walked.complete, second)


@dataclass(frozen=True)
class Evaluation:
    """Means over data, in nats per datum unless said otherwise.

    Attributes:
        elbo: E_q[log p(x, z) - log q(z | x)].
        elbo_se: its Monte Carlo standard error.
        log_px: log of the mean importance weight, in expectation a lower bound on log p(x).
        log_px_se: its Monte Carlo standard error.
        rate: KL(q(z | x) || p(z)); elbo = -(rate + distortion).
        distortion: -E_q log p(x | z).
        active_units: latent dimensions whose posterior mean varies over data by more than 0.01; None for one particle.
        ess: effective sample size, mean over data, out of num_particles.
        khat: Pareto k, mean over the data that have one; NaN where none has.
        khat_bad: share of these whose k is above 0.7, so that their log_px cannot be trusted.
        bits_per_dim: -log_px per number that is there, in bits; NaN where ``pyro.factor`` alone observes. Of a
            ``density`` it changes with the units of the data; ``Dequantised`` makes a probability of one.
        num_particles: K.
        num_data: how many data the means are over.
        complete: whether that is all; False after Ctrl-C.
        units: latent dimensions in all; where batches have other sites, those of all of them.
        log_px_bias: about how far log_px is too low in expectation, mean over data, see ``log_mean_bias``. More data
            lessen the standard error, and leave this as it is.
        fixed_units: inactive dimensions at which q is another distribution than the prior, the same for all data.
        second_opinion: log p(x) by draws from the prior less the guide's, mean over a few data; NaN if there is none.
        second_opinion_margin: how far it may be from 0 by errors and chance alone.
        second_opinion_ess: effective sample size of the draws from the prior, median over these data.
        second_opinion_data: how many these were.
        density: whether an observed number is continuous, so that nats are no probability's.
    """

    elbo: float
    elbo_se: float
    log_px: float
    log_px_se: float
    rate: float
    distortion: float
    active_units: int | None
    ess: float
    khat: float
    khat_bad: float
    bits_per_dim: float
    num_particles: int
    num_data: int
    complete: bool = True
    units: int = 0
    log_px_bias: float = math.nan
    fixed_units: int = 0
    second_opinion: float = math.nan
    second_opinion_margin: float = math.nan
    second_opinion_ess: float = math.nan
    second_opinion_data: int = 0
    density: bool = False

    @property
    def verdict(self) -> str:
        """In plain words, whether units have collapsed and log p(x) is known, and what to try next."""
        return str(verdict(self))

    def __str__(self) -> str:
        if not (self.units or self.rate or self.log_px_se):
            return f"log p(x) {self.log_px:.3f} nats, exact, mean of {self.num_data} data"
        trust = "no k-hat" if math.isnan(self.khat_bad) else f"k-hat > 0.7 for {100 * self.khat_bad:.1f} %"
        bias = f", perhaps {self.log_px_bias:.3f} too low" if self.log_px_bias >= SHOWN_BIAS else ""
        return (
            f"log p(x) {self.log_px:.3f} ± {self.log_px_se:.3f}{bias}   "
            f"ELBO {self.elbo:.3f} ± {self.elbo_se:.3f} nats   "
            f"rate {self.rate:.2f}   distortion {self.distortion:.2f}   "
            f"{self.active_units} of {self.units} units active   ESS {self.ess:.1f} of {self.num_particles}   "
            f"{trust} of {self.num_data} data" + ("" if self.complete else " (interrupted: the first data only)")
        )


class Totals:
    """Sums over data of everything an ``Evaluation`` is made of."""

    def __init__(self, num_particles: int):
        self.num_particles = num_particles
        self.rows: list[Tensor] = []
        self.units: dict[str, list[tuple[Tensor, Tensor]]] = {}  # means and the variances of these, (rows, units) each
        self.sums, self.shared = (
            torch.zeros(2, dtype=torch.float64),
            False,
        )  # variances of the ELBO's and log p(x)'s sums
        self.observed, self.density = 0.0, False  # numbers, of all data; and whether one is continuous

    def add(self, found: Scored) -> None:
        likelihood, ratio, mean, square, x_dim, certain, density, shared = found
        log_w = (likelihood - ratio).double()
        refuse_nan(log_w)
        self.observed, self.density = self.observed + x_dim * log_w.shape[1], self.density or density
        if certain:
            self.rows.append(self._certain(log_w[0]))
            return
        k, variance, khat = self.num_particles, relative_variance(log_w), pareto_k(log_w)
        row = [
            log_w.mean(0),
            log_w.var(0) / k if k > 1 else torch.full_like(log_w[0], math.nan),
            log_mean_exp(log_w),
            variance,
            ratio.double().mean(0),
            -likelihood.double().mean(0),
            effective_sample_size(log_w),
            khat,
            log_mean_bias(variance, khat),
        ]
        self.rows.append(torch.stack(row))
        if shared and k > 1:
            weights = (log_w - row[2]).exp()
            self.sums = self.sums + torch.stack([part.sum(1).var() / k for part in (log_w, weights)]).cpu()
        self.shared = self.shared or shared
        for name, each in mean.items():
            self.units.setdefault(name, []).append((each, (square[name] - each.square()) / max(1, k - 1)))

    def _certain(self, log_px: Tensor) -> Tensor:
        """The rows of data whose log p(x) is known without a draw: as many particles would all weigh the same."""
        none = torch.zeros_like(log_px)
        return torch.stack(
            [log_px, none, log_px, none, none, -log_px, none + self.num_particles, none + math.nan, none]
        )

    def result(self, complete: bool = True, second: SecondOpinion | None = None) -> Evaluation:
        rows = torch.cat(self.rows, dim=1)
        count = rows.shape[1]
        elbo, elbo_var, log_px, log_px_var, rate, distortion, ess, _, bias = rows.mean(1).tolist()
        elbo_se, log_px_se = (math.sqrt(variance / count) for variance in (elbo_var, log_px_var))
        if self.shared and self.num_particles > 1:  # of data together, whose errors do not average out
            elbo_se, log_px_se = (math.sqrt(variance) / count for variance in self.sums.tolist())
        known = rows[7][~rows[7].isnan()]
        khat, bad = known.mean().item(), (known > WORST_KHAT).double().mean().item()
        opinion = Opinion() if second is None or not complete else second.of(rows[2], rows[3], rows[8])
        return Evaluation(
            elbo=elbo,
            elbo_se=elbo_se,
            log_px=log_px,
            log_px_se=log_px_se,
            rate=rate,
            distortion=distortion,
            active_units=self._active_units(),
            ess=ess,
            khat=khat,
            khat_bad=bad,
            bits_per_dim=-log_px / math.log(2) / (self.observed / count) if self.observed else math.nan,
            num_particles=self.num_particles,
            num_data=count,
            complete=complete,
            units=sum(max(mean.shape[1] for mean, _ in parts) for parts in self.units.values()),
            log_px_bias=bias,
            fixed_units=self._fixed_units(opinion.moments),
            second_opinion=opinion.excess,
            second_opinion_margin=opinion.margin,
            second_opinion_ess=opinion.ess,
            second_opinion_data=opinion.num_data,
            density=self.density,
        )

    def _active_units(self) -> int | None:
        if self.num_particles < 2:
            return None
        return sum(
            count_active(spread_of(means, noise))
            for parts in self.units.values()
            for _, means, noise in of_the_same_data(parts)
        )

    def _fixed_units(self, prior: Mapping[str, tuple[Tensor, Tensor]]) -> int:
        """Inactive units at which q has not the moments of the prior, but others."""
        found = 0
        for name in prior if self.num_particles > 1 else ():
            for some, means, noise in of_the_same_data(self.units.get(name, [])):
                loc, variance = (each[some] for each in prior[name])
                if len(loc) == means.shape[1]:
                    narrow = noise.nanmean(0) * (self.num_particles - 1) < NARROW * variance
                    elsewhere = (means.nanmean(0) - loc).square() > variance
                    asleep = spread_of(means, noise) <= ACTIVE_VARIANCE
                    found += int((asleep & (narrow | elsewhere)).sum())
        return found
