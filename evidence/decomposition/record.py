"""The record of the two views: every figure with its error, by site and by unit, and in words what they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dlvm.evidence.mean import Mean
from dlvm.inference.evaluation.active_units import count_active

COLLAPSED, NEARLY_ALL, FAR = 0.05, 0.5, 1.0


@dataclass(frozen=True)
class Views:
    """What the ELBO is made of, twice; means over data, nats per datum.

        elbo = -(rate + distortion),   rate = information + marginal_kl,   marginal_kl = total_correlation + unit_kl

    q(z) is the mean of q(z | x) over ``components`` of the data.

    Attributes:
        elbo, distortion: the bound, and -E log p(x | z).
        rate: E KL(q(z | x) || p(z)).
        kl: {site: SiteKL}, which add up to the rate.
        units: {site: Units}; empty for one particle.
        information: I_q(x; z) = E KL(q(z | x) || q(z)).
        marginal_kl: KL(q(z) || p(z)).
        total_correlation: KL(q(z) || prod_d q(z_d)).
        unit_kl: sum_d KL(q(z_d) || p(z_d)).
        left_out: {attribute: why it is None}, for these four.
        posterior_draws, prior_draws: {site: draws of q(z) and of p(z)}, shape (draws, *event).
        components: data that q(z) is made of; with fewer than ``num_data`` information and KLs are bounds.
        num_particles: per datum, for rate and distortion.
        num_data: how many data the means are over.
        complete: whether that is all; False after Ctrl-C.
        seconds: it took.
    """

    elbo: Mean
    rate: Mean
    distortion: Mean
    kl: Mapping[str, SiteKL]
    units: Mapping[str, Units]
    information: Mean | None
    marginal_kl: Mean | None
    total_correlation: Mean | None
    unit_kl: Mean | None
    left_out: Mapping[str, str]
    posterior_draws: Mapping[str, Tensor] = field(repr=False)
    prior_draws: Mapping[str, Tensor] = field(repr=False)
    components: int
    num_particles: int
    num_data: int
    complete: bool = True
    seconds: float = 0.0

    @property
    def most_information(self) -> float:
        """log of ``components``: no z tells more of which datum it came from."""
        return math.log(self.components)

    @property
    def imbalance(self) -> Mean | None:
        """rate - information - marginal_kl, which is 0 but for the errors; None where these are not known."""
        if self.information is None or self.marginal_kl is None:
            return None
        found = self.information.value + self.marginal_kl.value
        return Mean(self.rate.value - found, math.hypot(self.rate.se, self.information.se, self.marginal_kl.se))

    @property
    def two_sample(self) -> dict[str, Tensor]:
        """Kolmogorov-Smirnov distance between the draws of q(z) and of p(z), {site: (units,)}; see ``noise``."""
        shared = self.posterior_draws.keys() & self.prior_draws.keys()
        return {
            name: _distance(
                *(d[name].double().reshape(len(d[name]), -1) for d in (self.posterior_draws, self.prior_draws))
            )
            for name in self.posterior_draws
            if name in shared
        }

    @property
    def noise(self) -> float:
        """What a distance of ``two_sample`` exceeds in 5 % of the cases where both are the same."""
        number = min((len(draws) for draws in self.posterior_draws.values()), default=0)
        return 1.358 * math.sqrt(2 / number) if number else math.nan

    @property
    def words(self) -> list[str]:
        """What the figures come to, in plain words."""
        said = []
        if self.rate.value < COLLAPSED:
            said.append("The posterior is the prior: z says nothing of x.")
        elif self.information is not None:
            missing = self.most_information - self.information.value
            if missing < NEARLY_ALL and self.components > 1:
                said.append(f"z tells nearly all data apart, {missing:.2f} nats short of log {self.components}.")
        if self.marginal_kl is not None and self.marginal_kl.value > FAR:
            said.append(
                f"q(z) is {self.marginal_kl.value:.1f} nats from p(z): draws from the prior are often not what the "
                "decoder was trained on, and a learned prior has so much to gain."
            )
        if self.imbalance is not None and abs(self.imbalance.value) > 5 * self.imbalance.se + 1e-3:
            said.append(f"The rate and its two parts differ by {self.imbalance}: take more draws.")
        return said

    def __str__(self) -> str:
        return "\n".join([*_first(self), *_second(self), *self.words])


def _first(views: Views) -> list[str]:
    done = "" if views.complete else ", interrupted: the first data only"
    lines = [
        f"ELBO {views.elbo} = -(rate {views.rate} + distortion {views.distortion}) nats   ({views.num_data} data, "
        f"{views.num_particles} particles, {views.seconds:.1f} s{done})"
    ]
    for name, (mean, how, *_) in views.kl.items():
        lines.append(f"  KL of {name}: {mean} ({how})")
    for name, units in views.units.items():
        lines.append(f"  units of {name}: {units.active} of {len(units.mean)} active")
    return lines


def _second(views: Views) -> list[str]:
    named = (
        ("information", f"mutual information I(x; z), at most log {views.components} = {views.most_information:.3f}"),
        ("marginal_kl", "KL(q(z) || p(z))"),
        ("total_correlation", "total correlation of q(z)"),
        ("unit_kl", "sum over units of KL(q(z_d) || p(z_d))"),
    )
    values = [(text, getattr(views, name), views.left_out.get(name)) for name, text in named]
    lines = [f"{text}: {f'not known, {reason}' if mean is None else mean}" for text, mean, reason in values]
    if views.imbalance is not None:
        lines.insert(2, f"  rate less these two: {views.imbalance}")
    worst = [f"{name} {distance.max():.3f}" for name, distance in views.two_sample.items() if len(distance)]
    if worst:
        lines.append(f"largest distance of a unit of q(z) from p(z): {', '.join(worst)} (noise {views.noise:.3f})")
    return lines


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Largest difference of the empirical distribution functions, (n, units) and (m, units) -> (units,)."""
    a, b = (draws.T.contiguous().sort(-1).values for draws in (a, b))
    points = torch.cat([a, b], dim=-1)
    below = [torch.searchsorted(s, points, right=True).double() / s.shape[-1] for s in (a, b)]
    return (below[0] - below[1]).abs().amax(-1)


class SiteKL(NamedTuple):
    """E KL(q(z_j | ...) || p(z_j | ...)) of one site; ``how`` is "analytic" or "Monte Carlo".

    Shape (units,) for ``units`` and ``units_se``, nats; None where q or p has dependent dimensions.
    """

    mean: Mean
    how: str
    units: Tensor | None = None
    units_se: Tensor | None = None


class Units(NamedTuple):
    """Moments of one site under q(z), of all data; shape (units,) each.

    ``between`` is the variance over data of posterior means, ``mean`` and ``variance`` are those of q(z).
    """

    between: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def active(self) -> int:
        """How many posterior means vary over data by more than 0.01."""
        return count_active(self.between)
