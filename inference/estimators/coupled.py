"""Coupled draws of discrete sites: each particle has a twin, and the gradient is made of what sets the two apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, OneHotCategorical
from torch.nn import functional as F

from dlvm.distributions.supports import inner
from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.estimator import Estimator, differentiated
from dlvm.inference.particles.alone import stacked
from dlvm.inference.particles.descent import drawn_from
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.modules import statistics_kept


class DisARM(Estimator):
    """Antithetic twins of discrete draws (DisARM, also known as U2G): ARM with its noise integrated out.

        d phi: sum_k (L - L_k) / 2 sum_i (1 - min(q_i(b), q_i(b~))) d [log q_i(b) - log q_i(b~)] / d phi,
        L_k = L with log w_k replaced by that of the twin

    b are the discrete draws of particle k, each bit or class i with a twin b~ by the coupling that leaves it as seldom
    as can be where it is: for bits that of antithetic uniform numbers, for classes a Metropolised Gibbs step. Unbiased
    for every bound; both of a pair take either role. Where the guide draws one discrete site from another, sites of one
    depth have their twins together, and what is drawn from them is drawn anew: one more run of both programs for each
    depth. All runs count in the gradient of the model's parameters. Sites that can be reparametrised get the total
    derivative. ``num_particles`` are those of the bound, independent of one another; twins are beside, so that a step
    with one depth weighs 2 K draws.

    Raises:
        ValueError: when used, a discrete site is neither Bernoulli nor Categorical nor OneHotCategorical.

    References:
        DisARM: An Antithetic Gradient Estimator for Binary Latent Variables, Dong, Mnih, Tucker, 2020,
        arXiv:2006.10680.
        ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks, Yin, Zhou, 2019, arXiv:1807.11143.
        Coupled Gradient Estimators for Discrete Latent Variables, Dong, Mnih, Tucker, 2021, arXiv:2106.08056.
    """

    def require(self, bound: Bound, particles: Particles) -> None:
        for site in (particles.parts or (particles,))[0].jumps:
            if not isinstance(inner(site["fn"]), Bernoulli | Categorical | OneHotCategorical):
                raise ValueError(
                    f"DisARM has no twin for {site['name']!r} ({type(inner(site['fn'])).__name__}): it treats "
                    "Bernoulli, Categorical and OneHotCategorical; pass estimator=VIMCO() or ScoreFunction()"
                )

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        if not particles.jumps:
            return differentiated(bound, particles, value)
        totals, known = [without_scores(bound, particles, value)], particles.log_w.detach()
        apart: Tensor | float = 0.0
        for sites in depths(particles):
            twins, ratio = _run(particles, sites, bound.linear)
            other = twins.log_w.detach()
            gains = _difference(bound(known), bound.replaced(known, other))
            losses = _difference(bound(other), bound.replaced(other, known))
            apart = apart + particles.total(((gains - losses) / 4 * ratio).sum(0))
            totals.append(without_scores(bound, twins, None))
        return sum(totals[1:], totals[0]) / len(totals) + apart


def depths(particles: Particles) -> list[list[str]]:
    """The discrete sites, those together of which the guide draws none from another, directly or not."""
    first, below = (particles.parts or (particles,))[0], _below(particles)
    depth: dict[str, int] = {}
    for site in first.jumps:
        name = site["name"]
        depth[name] = 1 + max((depth[above] for above in depth if name in below[above]), default=-1)
    return [[name for name, found in depth.items() if found == each] for each in range(max(depth.values()) + 1)]


def not_below(particles: Particles, sites: list[str]) -> dict[str, Tensor]:
    """{site of the guide that is not drawn from these: its value}."""
    below = set().union(*(_below(particles)[site] for site in sites))
    nodes: Mapping[str, Any] = particles.programs.guide_trace.nodes  # those of subsampled plates too
    return {name: site["value"] for name, site in nodes.items() if site["type"] == "sample" and name not in below}


def _below(particles: Particles) -> dict[str, set[str]]:
    programs = particles.programs
    return drawn_from(programs.pair, programs.args, programs.kwargs)


def without_scores(bound: Bound, particles: Particles, value: Tensor | None) -> Tensor:
    """The total derivative, less the scores of discrete sites where these are zero in expectation: a linear bound."""
    total = differentiated(bound, particles, value)
    if not bound.linear:
        return total
    terms = [particles.terms[site["name"]] for site in particles.jumps]
    slope = bound.slopes(particles.log_w)
    scores = [(slope * term.factor * term.log_q).sum(0) for term in terms]
    return total + particles.total(sum(scores[1:], scores[0]))


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """0 between equal values, infinite ones too."""
    return torch.where(one == other, 0.0, one - other)


def _run(particles: Particles, sites: list[str], linear: bool) -> tuple[Particles, Tensor]:
    """Particles with twins at some sites, and at all that is drawn from them; and what of log q sets the two apart.

    The second is the sum over bits and classes, (num_particles, batch), see ``DisARM``.
    """
    if particles.parts:
        found = [_run(part, sites, linear) for part in particles.parts]
        twins, ratio = stacked([part for part, _ in found]), torch.cat([ratio for _, ratio in found])
        return as_tempered(twins, particles), ratio
    (pair, args, kwargs, *_), layout = particles.programs, particles.layout
    values, ratios = not_below(particles, sites), []
    for site in (site for site in particles.drawn if site["name"] in sites):
        values[site["name"]], ratio = twin_of(site["fn"], site["value"])
        ratios.append(layout.reduce(ratio, site, scaled=False))
    nesting, parallel = (layout.nesting, True) if layout.num_particles > 1 else (None, None)
    with statistics_kept(pair.model), statistics_kept(pair.guide), Given(values):
        twins = weigh(pair, args, kwargs, layout.num_particles, linear=linear, nesting=nesting, parallel=parallel)
    return as_tempered(twins, particles), sum(ratios[1:], ratios[0])


class Given(Messenger):
    """Around both programs: the guide's sites take these values; the model has its own from the guide."""

    def __init__(self, values: Mapping[str, Tensor]):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["done"] and not msg["is_observed"] and msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


def as_tempered(twins: Particles, particles: Particles) -> Particles:
    return twins.changed({n: term._replace(factor=particles.terms[n].factor) for n, term in twins.terms.items()})


def twin_of(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    """A value coupled with another; and sum_i (1 - min(q_i(b), q_i(b~))) [log q_i(b) - log q_i(b~)], (*batch).

    Every bit or class i has its twin by itself, by a coupling c of q with q whose pairs can change places. The weight
    is q(b) q(b~) / c(b, b~), so that what the ratio gives with two independent values is had from these.
    """
    if isinstance(fn, Independent):
        twin, ratio = twin_of(fn.base_dist, value)
        return twin, sum_rightmost(ratio, fn.reinterpreted_batch_ndims)
    if isinstance(fn, MaskedDistribution):
        twin, ratio = twin_of(fn.base_dist, value)
        return twin, scale_and_mask(ratio, mask=fn._mask)
    logits = fn.logits
    if isinstance(fn, Bernoulli):
        return _twin_bit(logits, value)
    if isinstance(fn, OneHotCategorical):
        twin, ratio = _twin_class(logits, value.argmax(-1))
        return F.one_hot(twin, logits.shape[-1]).to(value), ratio
    return _twin_class(logits, value)


def _twin_bit(logits: Tensor, bit: Tensor) -> tuple[Tensor, Tensor]:
    """Changes with probability min(1, q(other) / q(bit)), as where both are made of u and 1 - u."""
    sign = 2 * bit - 1
    moved = _uniform(logits) < (-F.relu(sign * logits.detach())).exp()
    weight = sign * torch.sigmoid(logits.detach().abs())
    return torch.where(moved, 1 - bit, bit), weight * torch.where(moved, logits, 0.0)


def _twin_class(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Another class by its share among the others, taken with probability min(1, (1 - q(b)) / (1 - q(b~)))."""
    log_q = logits.detach().log_softmax(-1)
    others = _left_out(log_q, index)
    other = (others - (-_uniform(logits).clamp_min(torch.finfo(logits.dtype).tiny).log()).log()).argmax(-1)
    stays, would = others.logsumexp(-1), _left_out(log_q, other).logsumexp(-1)  # log(1 - q)
    moved = _uniform(stays) < (stays - would).clamp_max(0.0).exp()
    one, two = (logits.gather(-1, at.unsqueeze(-1)).squeeze(-1) for at in (index, other))
    weight = torch.maximum(stays, would).exp()
    return torch.where(moved, other, index), weight * torch.where(moved, one - two, 0.0)


def _left_out(log_q: Tensor, index: Tensor) -> Tensor:
    return log_q.scatter(-1, index.unsqueeze(-1), -torch.inf)


def _uniform(like: Tensor) -> Tensor:
    return torch.rand(like.shape, dtype=like.dtype, device=like.device)
