"""Discrete sites that the guide draws, summed over: no noise of theirs is left in bound or gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.estimator import Estimator, differentiated
from dlvm.inference.particles.alone import stacked
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import in_parallel, weigh
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.plates import PARTICLES, sample_sites
from dlvm.inference.programs.randomness import untouched


class Enumeration(Estimator):
    """The guide's discrete sites summed over, exactly; all others drawn for each value, with the total derivative.

        sum_y q(y | x) [log p(x, y, z_y) - log q(y, z_y | x)],   z_y ~ q(z | x, y)

    The score-function estimator with what is random in y taken out (Rao-Blackwellised). It costs as many particles as
    the sites have joint values, for each of the objective's own. A particle of y counts q(y | x) in all that is made of
    it, so that reported bound, rate and gradient alike are those of the sum.

    Raises:
        ValueError: the bound is not linear in log w, as IWAE's: a model whose site is marked to be summed out, and a
            guide that leaves it out, does that; when used, a site without a finite list of values, or in a plate
            that is not around all sites, so that it is several variables of one datum.

    References:
        Semi-supervised Learning with Deep Generative Models, Kingma, Rezende, Mohamed, Welling, 2014, arXiv:1406.5298.
        Black Box Variational Inference, Ranganath, Gerrish, Blei, 2014, arXiv:1401.0118.
    """

    def accept(self, bound: Bound, num_particles: int) -> None:
        if not bound.linear:
            raise ValueError(
                f"Enumeration sums q(y | x) times the bound, which is right for the ELBO alone, got {bound.name}; take "
                "VIMCO(), or leave the discrete site out of the guide where the model marks it to be summed out"
            )

    def require(self, bound: Bound, particles: Particles) -> None:
        """Every site is fine: those that cannot be reparametrised have been summed over."""

    def draw(self, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        values = _values_in(pair, args, kwargs)
        if not values:
            return super().draw(bound, num_particles, pair, args, kwargs)
        each = math.prod(len(support) for support in values.values())
        total = num_particles * each
        if in_parallel(pair, args, kwargs, linear=True):
            nesting = pair.nesting(args, kwargs)
            inside = _guided(pair, _Each(values, torch.arange(total), nesting))
            found = weigh(inside, args, kwargs, total, linear=True, nesting=nesting, parallel=True)
        else:
            alone = (_guided(pair, _Each(values, torch.tensor([k]))) for k in range(total))
            found = stacked([weigh(inside, args, kwargs, 1, linear=True) for inside in alone])
        _refuse_several(found, values)
        return _counted(found, values, each)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        return differentiated(bound, particles, value)


Values = Mapping[str, Tensor]  # of each discrete site, shape (values, *event)


@remembered
def _values_in(pair: Pair, args: tuple, kwargs: dict) -> dict[str, Tensor]:
    """The values of each site of the guide that cannot be reparametrised; remembered for a pair."""
    with untouched(), torch.no_grad(), poutine.block(), pair.evaluating():
        sites = sample_sites(poutine.trace(pair.guide).get_trace(*args, **kwargs))
    jumps = [site for site in sites if not site["is_observed"] and not site["fn"].has_rsample]
    return {site["name"]: _values_of(site) for site in jumps}


def _values_of(site: Mapping[str, Any]) -> Tensor:
    fn = site["fn"]
    try:
        support = fn.enumerate_support(expand=False)
    except NotImplementedError as error:
        raise ValueError(
            f"Enumeration sums over the values of discrete sites, and {site['name']!r} ({type(fn).__name__}) has no "
            "list of them, as one class or one binary variable has; pass estimator=VIMCO() or ScoreFunction()"
        ) from error
    return support.reshape(len(support), *fn.event_shape)


class _Each(Messenger):
    """Inside, discrete sites have their joint values in turn, the k-th of them for particle k.

    Args:
        values: of each site.
        particles: numbers of those that are run.
        nesting: how deep plates nest, that of particles left out; None where a single particle runs by itself.
    """

    def __init__(self, values: Values, particles: Tensor, nesting: int | None = None):
        super().__init__()
        self.values, self.parallel, self.nesting, stride = {}, nesting is not None, nesting or 0, 1
        for name, support in values.items():
            self.values[name] = support[particles // stride % len(support)]
            stride *= len(support)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or (value := self.values.get(msg["name"])) is None:
            return
        batch, event = msg["fn"].batch_shape, value.shape[1:]
        value = value.reshape(*value.shape[:1], *(1,) * self.nesting, *event) if self.parallel else value[0]
        msg["value"] = value.expand(torch.broadcast_shapes(value.shape[: value.dim() - len(event)], batch) + event)


def _refuse_several(found: Particles, values: Values) -> None:
    """Raises ValueError where a site holds several variables of one datum: they would all have one value at a time."""
    layout = found.layout
    around = {PARTICLES, *(frame.name for frame in layout.plates)}
    for site in (site for part in found.parts or (found,) for site in part.drawn if site["name"] in values):
        apart = sorted({frame.name for frame in site["cond_indep_stack"] if frame.vectorized} - around)
        if where := sorted(layout.loops) or apart:
            raise ValueError(
                f"Enumeration takes one value of {site['name']!r} at a time for each datum, and plate {where} makes it "
                "several variables, whose joint values it does not list: lay all sites of a datum in one vectorised "
                "plate over data, and nothing outside, or pass estimator=VIMCO() or ScoreFunction()"
            )


def _guided(pair: Pair, handler: Messenger) -> Pair:
    """The pair with its guide run inside a handler."""
    return pair.as_they_are(pair.model, handler(pair.guide))


def _counted(found: Particles, values: Values, each: int) -> Particles:
    """The particles with all their densities times ``each`` q(y | x), so that their plain mean is the sum over y."""
    share = each * _log_shares(found, values).exp()

    def counted(part: Tensor | float) -> Tensor:
        part = torch.as_tensor(part).to(share)
        return share * part.expand(share.shape).masked_fill(share == 0, 0.0)

    terms = {
        name: term._replace(log_q=counted(term.log_q), log_p=counted(term.log_p)) for name, term in found.terms.items()
    }
    return found.changed(terms, log_likelihood=counted(found.log_likelihood))


def _log_shares(found: Particles, values: Values) -> Tensor:
    """log q(y | x) of all enumerated sites, shape (num_particles, batch)."""
    if found.parts:
        return torch.cat([_log_shares(part, values) for part in found.parts])
    sites = [site for site in found.drawn if site["name"] in values]
    return sum((_unmasked(found, site) for site in sites), found.log_likelihood.new_zeros(()))


def _unmasked(found: Particles, site: dict) -> Tensor:
    """log q of a site whether or not it counts: values of one that is masked still have shares that add up to one."""
    fn, log_q = site["fn"], site["unscaled_log_prob"]
    if isinstance(fn, dist.MaskedDistribution):
        log_q = fn.base_dist.log_prob(site["value"])
    return found.layout.reduce(log_q, {**site, "mask": None}, scaled=False)
