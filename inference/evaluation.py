"""The record of an evaluation, and the sums over data that it is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.activity import count_active, spread_of
from inference.importance import effective_sample_size, log_mean_exp, pareto_k, relative_variance
from inference.scoring import Scored
from inference.verdict import verdict


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
        bits_per_dim: -log_px per observed dimension, in bits.
        num_particles: K.
        num_data: how many data the means are over.
        complete: whether that is all; False after Ctrl-C.
        units: latent dimensions in all.
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

    @property
    def verdict(self) -> str:
        """In plain words, whether units have collapsed and log p(x) is known, and what to try next."""
        return str(verdict(self))

    def __str__(self) -> str:
        trust = "no k-hat" if math.isnan(self.khat_bad) else f"k-hat > 0.7 for {100 * self.khat_bad:.1f} %"
        return (
            f"log p(x) {self.log_px:.3f} ± {self.log_px_se:.3f}   ELBO {self.elbo:.3f} ± {self.elbo_se:.3f} nats   "
            f"rate {self.rate:.2f}   distortion {self.distortion:.2f}   "
            f"{self.active_units} of {self.units} units active   ESS {self.ess:.1f} of {self.num_particles}   "
            f"{trust} of {self.num_data} data" + ("" if self.complete else " (interrupted: the first data only)")
        )


class Totals:
    """Sums over data of everything an ``Evaluation`` is made of."""

    def __init__(self, num_particles: int):
        self.num_particles = num_particles
        self.rows: list[Tensor] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.x_dim = 1

    def add(self, found: Scored) -> None:
        likelihood, ratio, mean, square, self.x_dim = found
        log_w = (likelihood - ratio).double()
        if log_w.isnan().any():
            raise ValueError(
                f"{int(log_w.isnan().any(0).sum())} data have NaN weights: the model's or the guide's parameters or "
                "the data are not "
                "finite; look at the run that produced them"
            )
        k = self.num_particles
        self.rows.append(
            torch.stack(
                [
                    log_w.mean(0),
                    log_w.var(0) / k if k > 1 else torch.full_like(log_w[0], math.nan),
                    log_mean_exp(log_w),
                    relative_variance(log_w),
                    ratio.double().mean(0),
                    -likelihood.double().mean(0),
                    effective_sample_size(log_w),
                    pareto_k(log_w),
                ]
            )
        )
        self.means.append(mean)
        self.variances.append((square - mean.square()) / max(1, k - 1))

    def result(self, complete: bool = True) -> Evaluation:
        rows = torch.cat(self.rows, dim=1)
        count = rows.shape[1]
        elbo, elbo_var, log_px, log_px_var, rate, distortion, ess, _ = rows.mean(1).tolist()
        known = rows[7][~rows[7].isnan()]
        khat, bad = known.mean().item(), (known > 0.7).double().mean().item()
        return Evaluation(
            elbo=elbo,
            elbo_se=math.sqrt(elbo_var / count),
            log_px=log_px,
            log_px_se=math.sqrt(log_px_var / count),
            rate=rate,
            distortion=distortion,
            active_units=self._active_units(),
            ess=ess,
            khat=khat,
            khat_bad=bad,
            bits_per_dim=-log_px / math.log(2) / self.x_dim,
            num_particles=self.num_particles,
            num_data=count,
            complete=complete,
            units=self.means[0].shape[1],
        )

    def _active_units(self) -> int | None:
        if self.num_particles < 2:
            return None
        means, noise = torch.cat(self.means).double(), torch.cat(self.variances).double()
        if not means.numel():
            return 0
        return count_active(spread_of(means, noise))
