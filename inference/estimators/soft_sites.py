"""Discrete sites of particles with the noisy logits behind what was drawn: what control variates are made of."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.nn import functional as F

from dlvm.inference.estimators.coupled import Given, as_tempered, not_below
from dlvm.inference.estimators.soft_draws import Relax, logits_of, noisy_behind, soft_value
from dlvm.inference.particles.alone import stacked
from dlvm.inference.particles.layout import Layout
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.randomness import untouched

PLACES, CORNERS, INWARDS = 16, 3, 1e-4  # where slopes are looked at, hard draws that are, and how far from them
LEAST = 1e-3  # nats of a datum that a density changes by, below which rounding may be all of it


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
        noisy = noisy_behind(site["value"], logits.detach(), binary, 1)[0].requires_grad_()
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
    """What share of the change of a log-density, on ways between draws, its slopes do not account for: the largest.

    Two ways are looked at: from one soft draw to another, along slopes, which must add up to the change; and from hard
    draws a little inwards, where next to nothing may change, as it does under ``z == 1`` or ``table[z.long()]``.
    """
    with untouched(0), torch.enable_grad(), poutine.block(), pair.silent():
        found, inside = weigh(pair, args, kwargs, 1, linear=True), pair.inside(Relax(1.0, hard=False))
        if not found.jumps or any(logits_of(site["fn"]) is None for site in found.jumps):
            return 0.0  # nothing is soft
        fixed = {site["name"]: site["value"].detach() for site in found.drawn}
        one, other = ({site["name"]: _anywhere(site) for site in found.jumps} for _ in range(2))

        def at(place: float, start: dict[str, Tensor], end: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            way = {name: (start[name] + place * (end[name] - start[name])).requires_grad_() for name in start}
            with untouched(0), Given({**fixed, **way}):
                return _densities(weigh(inside, args, kwargs, 1, linear=True)), way

        change = at(1.0, one, other)[0].detach() - at(0.0, one, other)[0].detach()
        along = torch.zeros_like(change)
        for point, weight in zip(*legendre(PLACES), strict=True):
            densities, way = at(point, one, other)
            for k in (k for k, density in enumerate(densities) if density.requires_grad):
                slopes = _slopes(densities[k].sum(), [*way.values()])
                for site, slope in zip(found.jumps, slopes, strict=True):
                    step = sum_rightmost(slope * (other[site["name"]] - one[site["name"]]), site["fn"].event_dim)
                    along[k] += weight * found.layout.reduce(step, {**site, "mask": None}, scaled=False)[0]
        left = _share((change - along).abs(), change.abs() + along.abs())
        for _ in range(CORNERS):
            hard = {site["name"]: _corner(_anywhere(site), site) for site in found.jumps}
            there, near, far = (at(place, hard, one)[0].detach() for place in (0.0, INWARDS, 1.0))
            left = max(left, _share((near - there).abs(), (near - there).abs() + (far - near).abs()))
        return left


def _densities(particles: Particles) -> Tensor:
    """Those of all that is observed, and of each latent site under both programs: (densities, batch)."""
    like, terms = particles.log_likelihood, particles.terms.values()
    found = [like, *(torch.as_tensor(each) for term in terms for each in (term.log_q, term.log_p))]
    return torch.stack([each.expand_as(like)[0] for each in found])


def _slopes(value: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)


def legendre(places: int) -> tuple[list[float], list[float]]:
    """Points and weights of a mean over the numbers from 0 to 1."""
    points, weights = np.polynomial.legendre.leggauss(places)
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()


def _anywhere(site: dict) -> Tensor:
    """A soft value of a discrete site, with nothing of what it cannot be."""
    logits, binary = cast(tuple[Tensor, bool], logits_of(site["fn"]))  # as required
    value, known = torch.rand_like(site["value"]), logits.detach().expand(site["value"].shape)
    if binary:
        return torch.where(known.isinf(), (known > 0).to(value), value)
    value = value.masked_fill(known == -torch.inf, 0.0)
    return value / value.sum(-1, keepdim=True)


def _corner(soft: Tensor, site: dict) -> Tensor:
    """The hard value next to a soft one."""
    _, binary = cast(tuple[Tensor, bool], logits_of(site["fn"]))
    return soft.round() if binary else F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)


def _share(part: Tensor, whole: Tensor) -> float:
    """The largest of a density, by the sum over data of what is finite; next to no change is none."""
    known = part.isfinite() & whole.isfinite()
    sizes = whole.where(known, 0.0).sum(-1)
    shares = part.where(known, 0.0).sum(-1) / sizes
    return float(shares.where(sizes > LEAST * known.sum(-1), 0.0).max())
