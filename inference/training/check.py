"""Whether a model, a guide, an objective and data can work together, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, RenyiELBO, TraceEnum_ELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO
from pyro.poutine.util import prune_subsample_sites

from dlvm.distributions.supports import is_periodic, latent_support
from dlvm.inference.engine.module_state import State
from dlvm.inference.engine.step import Step
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.estimators.pathwise import Total, check_rescored
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.site_checks import check_masks
from dlvm.inference.particles.weights import in_parallel
from dlvm.inference.programs.batches import check_dense
from dlvm.inference.programs.data_checks import check_observed, support_of
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.modules import reached
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import trainable
from dlvm.inference.programs.plates import sized
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.training.stock_objectives import kl_terms, require

Nodes = Mapping[str, Mapping[str, Any]]  # of a trace, by name


def check(model: Callable, guide: Callable, objective: ELBO, *args: Any, **kwargs: Any) -> dict[str, str]:
    """Proves that a pair fits an objective and a batch, or says why not.

    Both programs run on ``args`` at most seven times, and once more for every particle where particles cannot run in
    parallel, the model three times more where it draws noise of its own; then as the objective runs them for one loss
    and one gradient. Parameters and random state stay as they were.

    Returns:
        {latent site: "analytic" | "Monte Carlo"}: how the objective gets the site's KL.

    Args:
        model, guide: Pyro programs of the same signature.
        objective: any ``pyro.infer.ELBO``.
        *args, **kwargs: a batch, as both programs are called with it.

    Raises:
        TypeError: objective is no ELBO instance.
        ValueError: sites are missing, superfluous, or differ in shape, support, plates or scale; nothing is
            observed; data lie outside the likelihood's support; there is nothing to train, or no parameter gets a
            gradient; or the objective cannot treat this pair.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> check(model, Diagonal(latents(model, x), MLP(3, 8)), TraceMeanField_ELBO(), x)
        {'z': 'analytic'}
    """
    pair = Pair(model, guide)
    found = check_pair(pair, objective, args, kwargs)
    Step(pair, objective).prove_gradient(args, kwargs)
    return found


def check_pair(pair: Pair, objective: ELBO, args: tuple, kwargs: dict) -> dict[str, str]:
    """See ``check``."""
    if not isinstance(objective, ELBO):
        raise TypeError(
            f"objective must be an instance of pyro.infer.ELBO, got {objective!r}; write Trace_ELBO() or IWAE(5)"
        )
    check_dense(*args, **kwargs)
    with untouched(), torch.no_grad(), pair.evaluating():
        alone = _traced("model", pair.model, args, kwargs)
        check_observed(alone, lambda: _traced("model", pair.model, args, kwargs))
        drawn = _traced("guide", pair.guide, args, kwargs)
        model_trace = prune_subsample_sites(_at(drawn, pair.model, args, kwargs) or alone)
        guide_trace = prune_subsample_sites(drawn)
    _check_names(model_trace, guide_trace, enumerates=isinstance(objective, TraceEnum_ELBO | Objective))
    for name in _latent(guide_trace):
        _check_site(name, model_trace.nodes[name], guide_trace.nodes[name])
    trainable((*pair.programs, objective), (model_trace, guide_trace))
    if objective.vectorize_particles and objective.num_particles > 1:
        _check_particles(pair, objective, args, kwargs)
    with untouched(), pair.evaluating():
        require(objective, pair, args, kwargs, model_trace, guide_trace)
    if isinstance(objective, Objective):
        return _check_draws(pair, objective, args, kwargs)
    if isinstance(objective, TraceMeanField_ELBO):
        return kl_terms(model_trace, guide_trace)
    return dict.fromkeys(_latent(guide_trace), "Monte Carlo")


def _traced(name: str, program: Callable, args: tuple, kwargs: dict) -> poutine.Trace:
    with in_words(f"the {name}", args, kwargs):
        return poutine.trace(program).get_trace(*args, **kwargs)


def _at(drawn: poutine.Trace, model: Callable, args: tuple, kwargs: dict) -> poutine.Trace | None:
    """The model's trace at what the guide drew, subsamples included; None where it cannot take that."""
    try:
        return poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args, **kwargs)
    except FAILURES:  # what the guide draws has another shape, which is told of the site
        return None


def _check_draws(pair: Pair, objective: Objective, args: tuple, kwargs: dict) -> dict[str, str]:
    """Runs our objective's own checks on what it draws, and one gradient; how each site's KL is got."""
    with untouched(), State((*pair.modules, objective)).restored():
        particles = objective.draw(pair, args, kwargs)
        objective.require(particles)
        objective.surrogate(particles)
        found = objective.coefficients(particles)
        if found is not None and found.score is not None and not particles.detached:
            check_rescored(particles)
        _check_batch_norm(objective, particles)
    return {name: how for name, how in particles.kl.items() if name in {site["name"] for site in particles.joint}}


def _check_batch_norm(objective: Objective, particles: Particles) -> None:
    """A model that mixes data, as batch normalisation does, has weights that do not stand for one datum each."""
    plain = all(type(part) is Total for part in objective.modules() if isinstance(part, Estimator))
    mixing = (m for program in reached(particles.programs.pair.model) for m in program.modules())
    if not plain and any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training for m in mixing):
        raise ValueError(
            f"the model normalises over the batch, so that each weight depends on all data, and {objective!r} takes "
            "them one by one; use LayerNorm in the decoder, model.eval(), or estimator=Total()"
        )


def _check_particles(pair: Pair, objective: ELBO, args: tuple, kwargs: dict) -> None:
    """Ours draw particles one after the other where they cannot run in parallel; Pyro's have to be told."""
    if isinstance(objective, Objective):
        in_parallel(pair, args, kwargs, again=True, linear=objective.bound.linear)
        return
    linear = not isinstance(objective, RenyiELBO | TraceTailAdaptive_ELBO)
    if not in_parallel(pair, args, kwargs, again=True, linear=linear):
        in_turn = "" if isinstance(objective, TraceTailAdaptive_ELBO) else "pass vectorize_particles=False, or "
        raise ValueError(
            f"{type(objective).__name__} is to run {objective.num_particles} particles in parallel, which give other "
            f"numbers than each alone, or none: {in_turn}let nets keep every leading dimension, (particles, batch, "
            "...), and noise of the model's own have the shape of the latents"
        )


def _latent(trace: poutine.Trace) -> list[str]:
    nodes: Nodes = trace.nodes
    sites = ((n, s) for n, s in nodes.items() if s["type"] == "sample")
    return [n for n, s in sites if not s["is_observed"] and not s["infer"].get("is_auxiliary")]


def _check_names(model_trace: poutine.Trace, guide_trace: poutine.Trace, enumerates: bool) -> None:
    wanted, given = _latent(model_trace), _latent(guide_trace)
    if extra := sorted(set(given) - set(wanted)):
        raise ValueError(f"guide samples {extra}, which are no latent sites of the model; it has {wanted}")
    nodes: Nodes = model_trace.nodes
    missing = [name for name in wanted if name not in given]
    marked = {name for name in missing if nodes[name]["infer"].get("enumerate") == "parallel"}
    if missing := [name for name in missing if not enumerates or name not in marked]:
        other = "; those that are marked to be enumerated TraceEnum_ELBO, ELBO or IWAE sum out" if marked else ""
        raise ValueError(f"guide lacks the latent sites {missing} of the model; it has {given}: add them to it{other}")


def _check_site(name: str, p: Mapping[str, Any], q: Mapping[str, Any]) -> None:
    remedy = "make the guide's the same"
    subsample = (
        f"{remedy}; to subsample, pass the batch, write plate('data', N, subsample_size=len(x)) in the model, and call "
        "latents() on a batch of fewer than N data"
    )
    for word, a, b, cure in (
        ("event shape", tuple(p["fn"].event_shape), tuple(q["fn"].event_shape), remedy),
        ("plates (name, dim, size, full size)", _plates(p), _plates(q), subsample),
        ("batch shape", tuple(p["fn"].batch_shape), tuple(q["fn"].batch_shape), remedy),
    ):
        if a != b:
            raise ValueError(f"latent site {name!r} has {word} {a} in the model and {b} in the guide; {cure}")
    scales = (torch.as_tensor(site["scale"], dtype=torch.float64) for site in (p, q))
    if not torch.equal(*torch.broadcast_tensors(*scales)):
        raise ValueError(
            f"latent site {name!r} has scale {_short(p['scale'])} in the model and {_short(q['scale'])} in the guide; "
            "put poutine.scale around both"
        )
    check_masks([dict(p)], [dict(q)])
    support = latent_support(p["fn"]) if is_periodic(p["fn"]) else support_of(p["fn"])
    if support is not None and not support.check(q["value"]).all():
        raise ValueError(
            f"guide draws values of {name!r} outside the model's support {support}; "
            "map them there with torch.distributions.biject_to(support)"
        )


def _short(scale: torch.Tensor | float) -> str:
    if isinstance(scale, torch.Tensor) and scale.numel() > 1:
        return f"of shape {tuple(scale.shape)}"
    return str(float(scale))


def _plates(site: Mapping[str, Any]) -> tuple:
    frames = (frame if frame.size > 0 else sized(frame, [site]) for frame in site["cond_indep_stack"])
    return tuple(sorted((f.name, f.dim, f.size, f.full_size or f.size) for f in frames))
