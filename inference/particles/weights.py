"""Importance weights log p(x, z) - log q(z | x), one per particle and datum: what every bound here is made of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, cast

import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from dlvm.distributions.pyro_lock import TURN
from dlvm.inference.particles.alone import compared_alone, say_one_by_one, stacked
from dlvm.inference.particles.enumerated import model_trace
from dlvm.inference.particles.latent_densities import check_counted_once, check_densities
from dlvm.inference.particles.layout import Layout, layout_of
from dlvm.inference.particles.noise import MIXED, OWN, SHARED, say_noise_is_shared
from dlvm.inference.particles.particles import Particles, Programs, Term, needs_inverse
from dlvm.inference.particles.site_checks import (
    check_all_drawn,
    check_masks,
    check_not_linear,
    check_one_plate,
    check_scale,
)
from dlvm.inference.programs.beside import beside, depending
from dlvm.inference.programs.errors import FAILURES, explaining
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import depth, in_particles, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.nets.arguments import whole


def log_weights(model: Callable, guide: Callable, *args: Any, num_particles: int = 1, **kwargs: Any) -> Tensor:
    """Log importance weights of particles drawn from the guide.

        log w = log p(x, z) - log q(z | x),   z ~ q(z | x)

    Plates around every site index independent data, one weight each; what lies in further plates is summed. In a plate
    that is run through one by one, each turn is a datum. What is observed beside the data and does not depend on the
    draws, as by ``pyro.factor`` outside the plate, is in no datum's weight. A scale that all sites share (a subsampled
    plate, ``poutine.scale`` around both programs) multiplies bounds, never weights, and is left out here.

    Returns:
        shape (num_particles, batch), nats; differentiable. A model without a plate around every site has batch = 1.

    Args:
        model, guide: Pyro programs of the same signature.
        *args, **kwargs: what both are called with.
        num_particles: K, drawn in parallel by a plate on the left of all others, or one after the other where the
            programs' nets cannot take that.

    Raises:
        ValueError: ``num_particles`` is below 1, a plate around some sites only is subsampled, or data lie in another
            plate than the latent sites that they depend on.

    Example:
        >>> import torch
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> log_weights(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=4).shape
        torch.Size([4, 5])
    """
    pair = Pair(model, guide)
    with TURN, explaining(pair, args, kwargs):
        found = weigh(pair, args, kwargs, num_particles)
        if not found.layout.plates and not found.layout.loops:
            check_one_plate([*found.joint, *found.drawn])
        if not found.layout.loops:
            check_counted_once(found.joint, found.layout.plates)
        check_masks(found.joint, found.drawn)
        check_densities(found.joint, found.drawn)
        return found.log_w


def weigh(
    pair: Pair,
    args: tuple,
    kwargs: dict,
    num_particles: int = 1,
    detached: bool = False,
    linear: bool = False,
    nesting: int | None = None,
    parallel: bool | None = None,
) -> Particles:
    """Draws particles and scores them: in parallel, or one after the other where that gives other numbers.

    Args:
        pair: whose programs run.
        args, kwargs: what both are called with.
        num_particles: K.
        detached: cut the draws off from the guide's parameters.
        linear: whether what is made of the weights is linear in their logarithms, so that plates around some sites only
            may be subsampled, and particles may share noise of the model's own.
        nesting: how deep plates nest, where it is known.
        parallel: whether particles may run in parallel, where it is known; see ``in_parallel``.
    """
    whole(num_particles=num_particles)
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    if num_particles == 1:
        return _pass(pair, args, kwargs, 1, detached, linear)
    if not (in_parallel(pair, args, kwargs, linear=linear) if parallel is None else parallel):
        return stacked([_pass(pair, args, kwargs, 1, detached, linear) for _ in range(num_particles)])
    nesting = pair.nesting(args, kwargs) if nesting is None else nesting
    return _pass(pair, args, kwargs, num_particles, detached, linear, nesting)


def _pass(
    pair: Pair,
    args: tuple,
    kwargs: dict,
    num_particles: int,
    detached: bool = False,
    linear: bool = True,
    nesting: int | None = None,
) -> Particles:
    """One run of both programs."""
    (run_model, run_guide), deepest = pair.programs, math.inf
    if num_particles > 1 and nesting is not None:
        run_model, run_guide = (in_particles(program, num_particles, nesting) for program in pair.programs)
        deepest = nesting + 1
    with _Detached() if detached else nullcontext():  # outside the trace, which keeps what handlers outside it made
        guide_trace = poutine.trace(run_guide).get_trace(*args, **kwargs)
    entering, entered = (guide_trace, {}) if detached else _views(guide_trace)
    traced = model_trace(run_model, entering, args, kwargs, lambda: pair.nesting(args, kwargs) + (num_particles > 1))
    if is_validation_enabled():
        check_model_guide_match(traced, guide_trace, deepest)
    programs = Programs(pair, args, kwargs, run_guide, guide_trace)
    traces = prune_subsample_sites(traced), prune_subsample_sites(guide_trace)
    if not linear:
        sites = sample_sites(*traces)
        check_not_linear(sites, _apart(sites, programs))
    return _scored(*traces, num_particles, programs, entered, detached)


def _scored(
    joint_trace: poutine.Trace,
    guide_trace: poutine.Trace,
    num_particles: int,
    programs: Programs,
    entered: dict,
    detached: bool,
) -> Particles:
    """The log-densities of two traces, one number per site, particle and datum."""
    joint_trace.compute_log_prob()
    with needs_inverse():
        guide_trace.compute_log_prob()
    joint, drawn = sample_sites(joint_trace), [s for s in sample_sites(guide_trace) if not s["is_observed"]]
    sites = joint + drawn
    nesting = depth(sites)
    if is_validation_enabled():
        for site in cast("list[Message]", sites):
            check_site_shape(site, nesting + (num_particles > 1))
            check_scale(site, num_particles)
    check_all_drawn(joint, drawn)
    apart = _apart(sites, programs)
    joint, sites = ([site for site in part if site["name"] not in apart] for part in (joint, sites))
    layout = layout_of(sites, num_particles, nesting)
    density = {
        (site["name"], kind): layout.reduce(site["unscaled_log_prob"], site)
        for kind, found in (("p", joint), ("q", drawn))
        for site in found
    }
    observed = [density[site["name"], "p"] for site in joint if site["is_observed"]]
    names = [site["name"] for site in drawn]
    terms = {name: Term(density[name, "q"], density.get((name, "p"), 0.0)) for name in names}
    none = next(iter(density.values()), torch.zeros(())).new_zeros(())
    likelihood = sum(observed[1:], observed[0]) if observed else none
    likelihood = likelihood.expand(num_particles, layout.batch)
    kl = dict.fromkeys(names, "Monte Carlo")
    shared = _sum_of(apart.values(), num_particles, nesting)
    return Particles(likelihood, terms, layout, joint, drawn, programs, entered, detached, kl, shared)


def _apart(sites: list[dict], programs: Programs) -> dict[str, dict]:
    """What is observed beside the data and does not depend on what is drawn; empty where a batch is one datum."""
    found = {site["name"]: site for site in beside(sites)}
    if found and found.keys() & depending(programs.pair, programs.args, programs.kwargs):
        return {}
    return found


def _sum_of(sites: Iterable[dict], num_particles: int, nesting: int) -> Tensor | None:
    """Log-density of sites that is the same for all particles, a 0-d tensor, scaled; None where there are none."""
    whole_batch = Layout(num_particles, (), 1.0, nesting)
    parts = [whole_batch.reduce(site["unscaled_log_prob"], site).mean() for site in sites]
    return sum(parts[1:], parts[0]) if parts else None


class _Detached(Messenger):
    """What is drawn inside is a constant to all that follows."""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"] and msg["value"] is not None:
            msg["value"] = msg["value"].detach()


def _views(trace: poutine.Trace) -> tuple[poutine.Trace, dict[str, Tensor]]:
    """The trace with each value that carries a gradient seen through a view of its own, and these views.

    There, gradients can be scaled before they go on from the model to the guide.
    """
    seen, views = trace.copy(), {}
    for site in sample_sites(trace):
        name, value = site["name"], site["value"]
        if value.requires_grad:
            views[name] = value.view_as(value)
            seen.nodes[name] = {**site, "value": views[name]}
    return seen, views


def in_parallel(pair: Pair, args: tuple, kwargs: dict, again: bool = False, linear: bool = False) -> bool:
    """Whether particles can be drawn in parallel: each then has the densities that it has when it runs alone.

    It is found by values, with 2 particles and the same draws, and remembered; where it is not so, a line says so.
    Noise of the model's own that particles would share, see ``noise_in``, asks for one after the other too.

    Args:
        pair: whose programs run, 7 times each at most, and the model 3 times more where it draws noise of its own.
        args, kwargs: what both are called with.
        again: look anew, since parameters have changed, and raise what a single particle raises.
        linear: whether what is made of the weights is linear in their logarithms: its mean is then the same, whether
            or not particles share noise.
    """
    found = pair.recall(_run_in_parallel, args, kwargs, again)
    if found is None and again:
        with untouched(), torch.no_grad(), poutine.block(), pair.silent(), explaining(pair, args, kwargs):
            _pass(pair, args, kwargs, 1)
    if found == SHARED and not linear:
        say_noise_is_shared()
    return found in (None, OWN) or (linear and found == SHARED)


def _run_in_parallel(pair: Pair, args: tuple, kwargs: dict) -> str | None:
    """As ``compared_alone``; None where there is nothing to compare with, since one particle alone cannot run."""
    with untouched(), torch.no_grad(), poutine.block(), pair.silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            alike = compared_alone(_pass(pair, args, kwargs, 2, nesting=pair.nesting(args, kwargs)))
        except FAILURES:
            try:
                _pass(pair, args, kwargs, 1)
            except FAILURES:
                return None
            alike = MIXED
    if alike == MIXED:
        say_one_by_one()
    return alike
