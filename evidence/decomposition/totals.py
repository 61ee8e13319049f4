"""Rate, distortion, KL per site and unit, and moments: sums over data of what particles say."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvm.evidence.decomposition.aggregate import Aggregate
from dlvm.evidence.decomposition.aggregate_draws import alone, factors
from dlvm.evidence.decomposition.record import SiteKL, Units, Views
from dlvm.evidence.mean import Mean
from dlvm.inference.evaluation.active_units import spread_of
from dlvm.inference.particles.particles import Particles


class Totals:
    """Means over particles, and their variances, of every datum: {name: list of (2, rows, *)}."""

    def __init__(self, num_particles: int):
        self.num_particles, self.num_data = num_particles, 0
        self.found: dict[str, dict[str, list[Tensor]]] = {"mean": {}, "kl": {}, "unit_kl": {}, "units": {}}
        self.how: dict[str, str] = {}

    def add(self, found: Particles) -> None:
        self.num_data += found.layout.batch
        self._keep("mean", "elbo", found.log_w)
        self._keep("mean", "rate", found.log_ratio)
        self._keep("mean", "distortion", -found.log_likelihood)
        if any(site["infer"].get("is_auxiliary") for site in found.drawn):
            self._keep("kl", " and ".join(found.latents), found.log_ratio)
        else:
            for name, term in found.terms.items():
                self._keep("kl", name, term.ratio)
                self.how[name] = found.kl[name]
                each = _unit_ratios(found, name)
                if each is not None:
                    self._keep("unit_kl", name, each)
        if self.num_particles > 1:
            for name, value in found.latents.items():
                if alone(next(site for site in found.drawn if site["name"] == name)):
                    self._keep("units", name, value.reshape(self.num_particles, found.layout.batch, -1))

    def _keep(self, kind: str, name: str, values: Tensor) -> None:
        values = values.double()
        many = self.num_particles > 1
        spread = values.var(0) / len(values) if many else torch.full_like(values[0], torch.nan)
        self.found[kind].setdefault(name, []).append(torch.stack([values.mean(0), spread]))

    def _mean(self, kind: str, name: str) -> tuple[Tensor, Tensor]:
        value, variance = torch.cat(self.found[kind][name], dim=1)
        return value.mean(0), variance.sum(0).sqrt() / self.num_data

    def _number(self, kind: str, name: str) -> Mean:
        value, se = self._mean(kind, name)
        return Mean(value.item(), se.item())

    def record(self, second: Aggregate, complete: bool, seconds: float) -> Views:
        kl = {}
        for name in self.found["kl"]:
            units = self._mean("unit_kl", name) if name in self.found["unit_kl"] else (None, None)
            kl[name] = SiteKL(self._number("kl", name), self.how.get(name, "Monte Carlo"), *units)
        return Views(
            elbo=self._number("mean", "elbo"),
            rate=self._number("mean", "rate"),
            distortion=self._number("mean", "distortion"),
            kl=kl,
            units={name: self._units(name) for name in self.found["units"]},
            **second.parts(self.num_data),
            num_particles=self.num_particles,
            num_data=self.num_data,
            complete=complete,
            seconds=seconds,
        )

    def _units(self, name: str) -> Units:
        """Without what the noise of the means adds to their variance over data."""
        mean, variance = torch.cat(self.found["units"][name], dim=1)
        between = spread_of(mean, variance)
        return Units(between, mean.mean(0), between + self.num_particles * variance.mean(0))


def _unit_ratios(found: Particles, name: str) -> Tensor | None:
    """KL, or log q / p, of each unit of a site, shape (num_particles, data, units)."""
    ours, theirs = (next((s for s in part if s["name"] == name), None) for part in (found.drawn, found.joint))
    if ours is None or theirs is None or not (alone(ours) and alone(theirs)):
        return None
    q, p = factors(ours["fn"]), factors(theirs["fn"])
    if q is None or p is None:
        return None
    each = q.kl(p) if found.kl[name] == "analytic" else None
    if each is None:
        each = q.log_prob(ours["value"]) - p.log_prob(ours["value"])
    each = each.flatten(0, -3) if each.dim() > 3 else each
    return each.expand(found.layout.num_particles, found.layout.batch, each.shape[-1])
