"""REBAR: the score function with a relaxation as its control variate, unbiased, with parameters fitted as it goes."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.coupled import Given, as_tempered, depths, not_below, without_scores
from dlvm.inference.estimators.estimator import Estimator, differentiated
from dlvm.inference.estimators.relaxations import check_relaxable, check_temperature
from dlvm.inference.estimators.soft_draws import Relax, logits_of, noisy_behind, soft_value
from dlvm.inference.particles.alone import stacked
from dlvm.inference.particles.layout import Layout
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.randomness import untouched
from dlvm.nets.arguments import real

PLACES, MOST = 16, 0.05  # where slopes are looked at, and what share of the change may be left over


class REBAR(Estimator):
    """REBAR: the score of discrete draws, less what a relaxation of the same draws knows of it.

        d logits: sum_k (L(b) - L_{-k}(b)) s_k - eta [(L(w) - L_{-k}(w)) s_k - r_k dL(w) / d noisy_k],
        w = soft(noisy / temperature),   noisy ~ p(noisy | b),   s = d log q(b) / d logits

    b are hard draws and w the soft ones that the noise behind b leads to; r is by how much more noisy logits follow the
    logits when noise is held than when b is, e^(noisy_i - max noisy) for classes. What is in brackets has mean zero,
    so that the estimate is unbiased for every bound, temperature and eta, where log-densities are continuous in w: a
    program that rounds or compares its draws is refused. L_{-k} is VIMCO's baseline, for two particles or more. eta,
    one number, is the one that earlier steps would have had least variance with, summed over logits; the temperature
    follows the gradient of that variance, by the optimizer that trains the pair, as a baseline does. Where the guide
    draws one discrete site from another, each depth is relaxed with all that is drawn from it: one run of both programs
    more for each. Sites that can be reparametrised get the total derivative.

    Args:
        temperature: positive; a number is where it starts, a 0-d tensor stays as it is and can be annealed in place.
        decay: weight of the past in eta, at least 0 and below 1.

    Raises:
        ValueError: ``temperature`` is not positive, or ``decay`` out of range; when used, a discrete site is neither
            Bernoulli nor OneHotCategorical, or densities jump as a soft draw moves.

    References:
        REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models, Tucker, Mnih, Maddison,
        Lawson, Sohl-Dickstein, 2017, arXiv:1703.07370.
        Backpropagation through the Void: Optimizing control variates for black-box gradient estimation, Grathwohl,
        Choi, Wu, Roeder, Duvenaud, 2018, arXiv:1711.00123.
    """

    shared: Tensor
    spread: Tensor
    held: Tensor | None

    def __init__(self, temperature: float | Tensor = 0.5, decay: float = 0.99):
        super().__init__()
        check_temperature(temperature)
        real(decay=decay)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.start, self.decay = float(temperature), decay
        self.register_buffer("held", temperature if isinstance(temperature, Tensor) else None)
        if self.held is None:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("shared", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spread", torch.zeros((), dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"temperature={self.start:g}, decay={self.decay:g}"

    @property
    def temperature(self) -> Tensor:
        """Of the soft draws, a 0-d tensor."""
        return self.log_temperature.exp() if self.held is None else self.held

    @property
    def eta(self) -> Tensor:
        """How much of the control variate is taken off, a 0-d tensor: 1 before the first step."""
        return torch.where(self.spread > 0, self.shared / self.spread, 1.0)

    def require(self, bound: Bound, particles: Particles) -> None:
        check_relaxable("REBAR", particles)
        programs = particles.programs
        if particles.jumps and (jump := _jump(programs.pair, programs.args, programs.kwargs)) > MOST:
            names = [site["name"] for site in particles.jumps]
            raise ValueError(
                f"log p(x, z) - log q(z | x) jumps where soft draws of {names} move, by {100 * jump:.0f} % of what it "
                "changes by: a program rounds, compares or takes the argmax of them, and REBAR would be biased; write "
                "it in the values themselves, as z @ table, or pass estimator=DisARM() or VIMCO()"
            )

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        if not particles.jumps:
            return differentiated(bound, particles, value)
        total, eta = without_scores(bound, particles, value), self.eta
        signal = _signals(bound, particles.log_w.detach())
        moments = torch.zeros(3, dtype=torch.float64, device=signal.device)
        for names in depths(particles):
            relaxed, sites = _relaxed(particles, names, self.temperature)
            soft = _signals(bound, relaxed.log_w)
            noisy, again = [site.noisy for site in sites], self.held is None
            slopes = torch.autograd.grad(
                bound(relaxed.log_w).sum(), noisy, create_graph=again, allow_unused=True, materialize_grads=True
            )
            for site, slope in zip(sites, slopes, strict=True):
                one, other = site.score(signal), site.score(soft) - site.through_both(slope)
                found = one - eta.to(one) * other
                total = total + particles.total(site.reduced(_times(found.detach(), site.logits)))
                products = (one * other, other.square(), found.square())
                moments = moments + torch.stack([site.reduced(each).sum().double() for each in products])
        self._learn(moments.detach() / particles.layout.batch)
        if self.held is not None:
            return total
        (slope,) = torch.autograd.grad(moments[2], self.log_temperature, retain_graph=True)
        return total - slope * self.log_temperature

    def _learn(self, moments: Tensor) -> None:
        """Moves what eta is made of, after it has been used."""
        with torch.no_grad():
            known = moments.isfinite().all()
            for average, new in zip((self.shared, self.spread), moments, strict=False):
                average.add_(torch.where(known, (1 - self.decay) * (new - average), 0.0))


class _Soft(NamedTuple):
    """A discrete site of some particles, with the noisy logits behind what was drawn."""

    site: dict
    layout: Layout
    rows: slice
    logits: Tensor
    binary: bool
    noisy: Tensor

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


def _relaxed(
    particles: Particles, names: list[str], temperature: Tensor, rows: slice = slice(None)
) -> tuple[Particles, list[_Soft]]:
    """The same particles with some sites soft, and all that is drawn from them drawn anew, softly too."""
    if particles.parts:
        parts = enumerate(particles.parts)
        each = [_relaxed(part, names, temperature, slice(k, k + 1)) for k, part in parts]
        return as_tempered(stacked([part for part, _ in each]), particles), [s for _, soft in each for s in soft]
    (pair, args, kwargs, *_), layout = particles.programs, particles.layout
    values, sites = {name: value.detach() for name, value in not_below(particles, names).items()}, []
    for site in (site for site in particles.drawn if site["name"] in names):
        logits, binary = cast(tuple[Tensor, bool], logits_of(site["fn"]))  # as required
        noisy = noisy_behind(site["value"], logits.detach(), binary, 1)[0].requires_grad_()
        values[site["name"]] = soft_value(noisy, temperature, binary)
        sites.append(_Soft(site, layout, rows, logits, binary, noisy))
    nesting, parallel = (layout.nesting, True) if layout.num_particles > 1 else (None, None)
    calls = pair.inside(Relax(temperature, hard=False)), args, kwargs, layout.num_particles
    with statistics_kept(pair.model), statistics_kept(pair.guide), Given(values):
        found = weigh(*calls, linear=True, nesting=nesting, parallel=parallel)
    return as_tempered(found, particles), sites


@remembered
def _jump(pair: Pair, args: tuple, kwargs: dict) -> float:
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


def _signals(bound: Bound, log_w: Tensor) -> Tensor:
    """What each particle's score is multiplied by, (num_particles, batch): less VIMCO's baseline, if it has others."""
    if len(log_w) == 1:
        return bound.signals(log_w)
    without = bound.left_out(log_w)
    return bound(log_w) - without.masked_fill(without == -math.inf, 0.0)


def _times(factor: Tensor, logits: Tensor) -> Tensor:
    """0 where the factor is, even for an infinite logit."""
    return factor * logits.masked_fill(factor == 0, 0.0)
