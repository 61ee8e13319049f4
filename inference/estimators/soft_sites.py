"""Discrete sites of particles with the noisy logits behind what was drawn: what control variates are made of."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from dlvm.inference.estimators.coupled import Given, as_tempered, not_below
from dlvm.inference.estimators.soft_draws import Relax, logits_of, noisy_behind, soft_value
from dlvm.inference.particles.alone import stacked
from dlvm.inference.particles.layout import Layout
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.randomness import untouched

PLACES = 16  # where slopes are looked at
LARGEST = 1e30  # of noisy logits: infinite ones have slopes that are no number


class Soft(NamedTuple):
    """A discrete site of some particles, with the noisy logits behind what was drawn."""

    site: dict
    layout: Layout
    rows: slice
    logits: Tensor
    binary: bool
    noisy: Tensor

    @property
    def name(self) -> str:
        return self.site["name"]

    def score(self, signal: Tensor) -> Tensor:
        """signal d log q(b) / d logits; the signal is (num_particles, batch)."""
        spread = self.layout.spread(signal[self.rows], self.site["fn"].event_dim, self.site)
        return spread * (self.site["value"] - self._means)

    def through_both(self, slope: Tensor) -> Tensor:
        """What of a slope in noisy logits reaches the logits with the noise held, less what does with b held."""
        noisy, means = self.noisy.detach(), self._means
        if self.binary:
            chosen = torch.where(self.site["value"] == 1, means, 1 - means)
            return slope * (1 - (1 - (-noisy.abs()).exp()) * chosen)
        found = slope * (noisy - noisy.amax(-1, keepdim=True)).exp()
        return found - means * found.sum(-1, keepdim=True)

    def reduced(self, numbers: Tensor) -> Tensor:
        """Sum over logits and particles of what is not masked: (batch,)."""
        return self.layout.reduce(sum_rightmost(numbers, self.site["fn"].event_dim), self.site, scaled=False).sum(0)

    @property
    def _means(self) -> Tensor:
        logits = self.logits.detach()
        return logits.sigmoid() if self.binary else logits.softmax(-1)


def soft_sites(particles: Particles, names: list[str], rows: slice = slice(None)) -> list[Soft]:
    """Some discrete sites with noise that leads to what was drawn; one by one, those of each particle."""
    if particles.parts:
        parts = enumerate(particles.parts)
        return [site for k, part in parts for site in soft_sites(part, names, slice(k, k + 1))]
    found = []
    for site in (site for site in particles.drawn if site["name"] in names):
        logits, binary = cast(tuple[Tensor, bool], logits_of(site["fn"]))  # as required
        noisy = noisy_behind(site["value"], logits.detach(), binary, 1)[0].clamp(-LARGEST, LARGEST).requires_grad_()
        found.append(Soft(site, particles.layout, rows, logits, binary, noisy))
    return found


def codes(particles: Particles, sites: list[Soft]) -> Tensor:
    """All discrete sites side by side, (num_particles, batch, numbers): soft ones at temperature 1, others as drawn.

    What is drawn from the soft sites is 0: a control variate may not see it.
    """
    if particles.parts:
        each = ([site for site in sites if site.rows.start == k] for k in range(len(particles.parts)))
        return torch.cat([codes(part, soft) for part, soft in zip(particles.parts, each, strict=True)])
    soft = {site.name: soft_value(site.noisy, 1.0, site.binary) for site in sites}
    seen = {**not_below(particles, [*soft]), **soft}
    found = []
    for site in particles.jumps:
        value, layout = seen.get(site["name"], torch.zeros_like(site["value"])), particles.layout
        found.append(layout.rows(value.detach() if site["name"] not in soft else value, site["fn"].event_dim))
    return torch.cat(found, -1)


def relaxed(particles: Particles, sites: list[Soft], temperature: Tensor) -> Particles:
    """The same particles with some sites soft, and all that is drawn from them drawn anew, softly too."""
    if particles.parts:
        each = ([site for site in sites if site.rows.start == k] for k in range(len(particles.parts)))
        parts = zip(particles.parts, each, strict=True)
        return as_tempered(stacked([relaxed(part, soft, temperature) for part, soft in parts]), particles)
    (pair, args, kwargs, *_), layout = particles.programs, particles.layout
    above = not_below(particles, [site.name for site in sites])
    values = {name: value.detach() for name, value in above.items()}
    values |= {site.name: soft_value(site.noisy, temperature, site.binary) for site in sites}
    nesting, parallel = (layout.nesting, True) if layout.num_particles > 1 else (None, None)
    calls = pair.inside(Relax(temperature, hard=False)), args, kwargs, layout.num_particles
    with statistics_kept(pair.model), statistics_kept(pair.guide), Given(values):
        found = weigh(*calls, linear=True, nesting=nesting, parallel=parallel)
    return as_tempered(found, particles)


@remembered
def jump(pair: Pair, args: tuple, kwargs: dict) -> float:
    """What share of the change of log-weights, on a way between soft draws, their slopes do not account for."""
    with untouched(0), torch.enable_grad(), poutine.block(), pair.silent():
        found, inside = weigh(pair, args, kwargs, 1, linear=True), pair.inside(Relax(1.0, hard=False))
        values, way = {site["name"]: site["value"].detach() for site in found.drawn}, {}
        for site in found.jumps:
            ends = torch.rand(2, *site["value"].shape, dtype=site["value"].dtype, device=site["value"].device)
            binary = cast(tuple[Tensor, bool], logits_of(site["fn"]))[1]  # as required
            way[site["name"]] = ends if binary else ends / ends.sum(-1, keepdim=True)

        def at(place: float) -> tuple[Tensor, dict[str, Tensor]]:
            soft = {name: (one + place * (other - one)).requires_grad_() for name, (one, other) in way.items()}
            with untouched(0), Given({**values, **soft}):
                return weigh(inside, args, kwargs, 1, linear=True).log_w, soft

        change, slope = at(1.0)[0].detach() - at(0.0)[0].detach(), torch.zeros(())
        for k in range(PLACES):
            log_w, soft = at((k + 0.5) / PLACES)
            slopes = torch.autograd.grad(log_w.sum(), [*soft.values()], allow_unused=True, materialize_grads=True)
            for site, each in zip(found.jumps, slopes, strict=True):
                one, other = way[site["name"]]
                along = sum_rightmost(each * (other - one), site["fn"].event_dim)
                slope = slope + found.layout.reduce(along, site, scaled=False) / PLACES
    size = (change.abs() + slope.abs()).sum()
    return float((change - slope).abs().sum() / size) if size > 0 else 0.0
