"""Wake-sleep learning: the guide is fitted to posterior draws, re-weighted or dreamt, and never through the bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from dlvm.inference.bounds.bound import Bound, power_bound
from dlvm.inference.estimators.estimator import Coefficients, Estimator, assemble
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles, needs_inverse
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.nets.arguments import real


class Phases(Estimator):
    """Wake and sleep updates of the guide; the model follows the bound.

        wake:  sum_k (w~_k - 1/K) d log q(z_k | x) / d phi    z_k ~ q(z | x), towards p(z | x)
        sleep: d log q(z' | x') / d phi                       (z', x') ~ p(z, x), one dream per datum

    What 1/K takes away has mean zero, so that nothing but noise is lost: none is left where q is the posterior.

    Args:
        sleep: share of the sleep phase, between 0 and 1.
        doubly: reparametrise the wake update, sum_k (w~_k - w~_k^2) (d log w_k / d z_k) (d z_k / d phi).
    """

    def __init__(self, sleep: float = 0.0, doubly: bool = False):
        super().__init__()
        real(sleep=sleep)
        if not 0 <= sleep <= 1:
            raise ValueError(f"sleep must be between 0 and 1, got {sleep}; it is the share of the sleep phase")
        if doubly and sleep == 1:
            raise ValueError("doubly=True reparametrises the wake phase, and sleep=1 has none; choose one")
        self.sleep, self.doubly = sleep, doubly
        self.detached = not doubly

    def accept(self, bound: Bound, num_particles: int) -> None:
        if bound.side == "upper":
            raise ValueError(f"{self!r} is not defined for {bound.name}; use Total(), DReG() or ScoreFunction()")
        if num_particles < 2 and self.sleep == 0:
            raise ValueError(
                f"{bound.name} with one particle and sleep=0 would never move the guide, since a single "
                "weight says nothing; pass num_particles of at least 2, or sleep above 0"
            )

    def require(self, bound: Bound, particles: Particles) -> None:
        if not particles.drawn:
            raise ValueError(f"{bound.name} needs latent sites; for a model without, MaximumLikelihood()")
        if self.doubly:
            super().require(bound, particles)

    def extra_repr(self) -> str:
        return ", ".join([f"sleep={self.sleep:g}", *(["doubly=True"] if self.doubly else [])])

    def coefficients(self, bound: Bound, particles: Particles) -> Coefficients:
        """Those of the wake phase; dreams have no weight to be multiplied by."""
        log_w = particles.log_w
        model, weight = bound.slopes(log_w), log_w.detach().softmax(0)
        if self.sleep == 1:
            return Coefficients(model, None)
        if self.doubly:
            path = (1 - self.sleep) * weight * (1 - weight)
            return Coefficients(model, path, path)
        return Coefficients(model, None, (1 - self.sleep) * (weight - 1 / len(weight)))

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        total = assemble(self.coefficients(bound, particles), particles)
        return total + self.sleep * particles.total(dreamt_log_q(particles)) if self.sleep else total


def dreamt_log_q(particles: Particles) -> Tensor:
    """log q(z' | x') of one dream (z', x') ~ p(z, x) per datum, shape (batch,), nats."""
    programs = particles.programs
    subsampled = poutine.Trace()  # rows that the guide has picked are those to dream of
    for name, site in programs.guide_trace.nodes.items():
        if site_is_subsample(site):
            subsampled.add_node(name, **site)
    with torch.no_grad():
        model = poutine.uncondition(poutine.replay(programs.pair.model, trace=subsampled))
        dream = poutine.trace(model).get_trace(*programs.args, **programs.kwargs)
    observed = [s for s in sample_sites(dream) if s["infer"].get("was_observed") and not s["infer"].get("is_auxiliary")]
    bound = signature_of(programs.pair.model).bind(*programs.args, **programs.kwargs)
    shown = {site["name"]: _argument(site, bound.arguments) for site in observed}
    if lacking := sorted(name for name, argument in shown.items() if argument is None):
        raise ValueError(
            f"the model observes {lacking}, which none of its arguments {list(bound.arguments)} is as it stands, so "
            "that the guide cannot be shown a dream; let an argument for each site hold just what it observes"
        )
    dreamt = {str(shown[site["name"]]): site["value"] for site in observed}
    for name, value in dreamt.items():
        if getattr(bound.arguments[name], "shape", None) != value.shape:
            raise ValueError(
                f"the model dreams {name!r} of shape {tuple(value.shape)} where its argument has "
                f"{tuple(getattr(bound.arguments[name], 'shape', ()))}; pass the data of a batch as they are observed"
            )
    if programs.pair.recall(echoes, programs.args, programs.kwargs):
        raise ValueError(
            "the model draws data or latents from distributions that are made of the data that it is called with, so "
            "that a dream would be half of it data; write each step from what was drawn before, or take sleep=0"
        )
    bound.arguments.update(dreamt)
    asleep = poutine.replay(programs.pair.guide, trace=dream)
    trace = poutine.trace(asleep).get_trace(*bound.args, **bound.kwargs)
    if strange := [site["name"] for site in sample_sites(trace) if site["name"] not in dream]:
        raise ValueError(
            f"guide draws {strange}, which the model does not, so that it cannot be fitted to dreams of the model: "
            "automatic guides draw all sites as one; write a guide that draws the model's own sites"
        )
    with needs_inverse():
        trace.compute_log_prob()
    single = particles.layout._replace(num_particles=1)
    parts = [single.reduce(site["unscaled_log_prob"], site) for site in sample_sites(trace)]
    return sum(parts[1:], parts[0]).squeeze(0)


def _argument(site: dict, arguments: Mapping[str, Any]) -> str | None:
    """The argument that a site observes: the one of its name, or the one that it observes as it is."""
    if site["name"] in arguments:
        return site["name"]
    return next((name for name, value in arguments.items() if value is site["infer"]["obs"]), None)


def echoes(pair: Pair, args: tuple, kwargs: dict) -> bool:
    """Whether the model's distributions, its latents held, are others once its data are: found by two runs of it."""
    with untouched(0), torch.no_grad(), poutine.block(), pair.evaluating(), pyro.validation_enabled(False):
        dream = poutine.trace(poutine.uncondition(pair.model)).get_trace(*args, **kwargs)
        sites = sample_sites(dream)
        bound = signature_of(pair.model).bind(*args, **kwargs)
        observed = [site for site in sites if site["infer"].get("was_observed")]
        shown = {_argument(site, bound.arguments): site["value"] for site in observed}
        bound.arguments.update({str(name): value for name, value in shown.items() if name is not None})
        nodes: Any = dream.nodes
        drawn = {name: site["value"] for name, site in nodes.items() if site["type"] == "sample"}
        latent = {name: value for name, value in drawn.items() if name not in {site["name"] for site in observed}}
        again = poutine.trace(poutine.condition(pair.model, latent)).get_trace(*bound.args, **bound.kwargs)
        for trace in (dream, again):
            trace.compute_log_prob()
    pairs = [(site["log_prob"], again.nodes[site["name"]]["log_prob"]) for site in sites if site["name"] in again]
    return not all(a.shape != b.shape or torch.allclose(a, b, 1e-3, 1e-3, equal_nan=True) for a, b in pairs)


class WakeSleep(Objective):
    """The wake-sleep algorithm of the Helmholtz machine.

        theta: E_q d log p(x, z) / d theta          wake: raises the ELBO, which is what is reported
        phi:   E_p(z', x') d log q(z' | x') / d phi  sleep: fits the guide to dreams of the model

    A lower bound on log p(x) is reported; the guide does not follow its gradient.

    Args:
        num_particles: K, of the wake phase; one dream is had per datum.

    Raises:
        ValueError: when used, the model observes what none of its arguments is, or draws from what is made of data.

    References:
        The Wake-Sleep Algorithm for Unsupervised Neural Networks, Hinton, Dayan, Frey, Neal, 1995.
    """

    def __init__(self, num_particles: int = 1):
        super().__init__(replace(power_bound(0.0), linear=False), num_particles, Phases(sleep=1.0))

    def _suffix(self) -> list[str]:
        return []


class RWS(Objective):
    """Reweighted wake-sleep.

        theta: sum_k w~_k d log p(x, z_k) / d theta     raises L_K, which is what is reported
        phi:   sum_k (w~_k - 1/K) d log q(z_k | x) / d phi      wake, towards min KL(p(z | x) || q(z | x)); and sleep

    A lower bound on log p(x) is reported; the guide does not follow its gradient. Works for discrete sites.

    Args:
        num_particles: K.
        sleep: share of the sleep phase in the guide's update, between 0 (wake alone) and 1.
        doubly: reparametrise the wake update (DReG); continuous sites only.

    Raises:
        ValueError: ``sleep`` is out of range, or 1 with ``doubly``, or 0 with one particle.

    References:
        Reweighted Wake-Sleep, Bornschein, Bengio, 2015, arXiv:1406.2751.
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, Tucker, Lawson, Gu, Maddison, 2019,
        arXiv:1810.04152.
    """

    def __init__(self, num_particles: int = 5, sleep: float = 0.0, doubly: bool = False):
        super().__init__(power_bound(1.0), num_particles, Phases(sleep, doubly))

    def _settings(self) -> list[str]:
        return [*super()._settings(), self.estimator.extra_repr()]

    def _suffix(self) -> list[str]:
        return []
