"""Particles one by one: whether those drawn in parallel are what each is alone, and many made of single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.console import say
from dlvm.inference.particles.each import joined
from dlvm.inference.particles.enumerated import model_trace
from dlvm.inference.particles.layout import Layout
from dlvm.inference.particles.noise import MIXED, NONE, OWN, noise_in
from dlvm.inference.particles.particles import Particles, Term
from dlvm.inference.programs.plates import PARTICLES, sample_sites
from dlvm.inference.programs.row_arguments import GUIDE_TOLERANCE, MODEL_TOLERANCE


def say_one_by_one() -> None:
    """Says, once, that particles are not drawn in parallel, what it costs, and how it would be otherwise."""
    say(
        "nets of this pair do not take particles as one more dimension on the left, (particles, batch, ...): K "
        "particles are drawn one after the other, by K runs of both programs in place of one; nets that map the "
        "last dimensions only, as h.reshape(*z.shape[:-1], 1, 28, 28) does, take them at once"
    )


def compared_alone(found: Particles) -> str:
    """Whether particles drawn in parallel have the densities of the same draws run alone, up to rounding.

    Returns:
        "own" if they have; "mixed" if not; "shared" if the model draws noise of its own that particles share. With
        noise, runs are told apart by it alone, and what particles make of each other is found as ``noise_in`` says.
    """
    noisy = False
    for k in range(found.layout.num_particles):
        together = _densities(found.joint, found.layout)[k], _densities(found.drawn, found.layout)[k]
        alone = _alone(found, k)
        for who, a, b, tolerance in zip(
            ("model", "guide"), together, alone, (MODEL_TOLERANCE, GUIDE_TOLERANCE), strict=True
        ):
            if b is None or (a.shape == b.shape and torch.allclose(a, b, tolerance, tolerance, equal_nan=True)):
                continue
            again = _alone(found, k)[who == "guide"]
            changing = again is None or not torch.allclose(again, b, tolerance, tolerance, equal_nan=True)
            if not changing or a.shape != b.shape:
                return MIXED
            noisy = noisy or who == "model"
    whose = noise_in(found, _single(found, 0)) if noisy else OWN
    return OWN if whose == NONE else whose


def _single(found: Particles, k: int) -> poutine.Trace:
    """The guide's trace with the draws of one of the particles."""
    single = found.programs.guide_trace.copy()
    for site in sample_sites(found.programs.guide_trace):
        single.nodes[site["name"]] = {**site, "value": _value(site, k, found.layout.nesting)}
    return single


def _alone(found: Particles, k: int) -> tuple[Tensor, Tensor | None]:
    """log p(x, z) and log q(z | x) of one of the particles, each (batch,); None where a flow has no inverse."""
    pair, args, kwargs, *_ = found.programs
    single = _single(found, k)
    guide_trace = poutine.trace(poutine.replay(pair.guide, trace=single)).get_trace(*args, **kwargs)
    traced = model_trace(pair.model, single, args, kwargs, lambda: pair.nesting(args, kwargs))
    layout = found.layout._replace(num_particles=1)
    traced.compute_log_prob()
    joint = {site["name"] for site in found.joint}
    log_p = _densities([site for site in sample_sites(traced) if site["name"] in joint], layout)[0]
    try:
        guide_trace.compute_log_prob()
    except (KeyError, NotImplementedError):
        return log_p, None
    drawn = [site for site in sample_sites(guide_trace) if not site["is_observed"]]
    return log_p, _densities(drawn, layout)[0]


def _densities(sites: list[dict], layout: Layout) -> Tensor:
    """Their sum, (num_particles, batch)."""
    return sum((layout.reduce(site["unscaled_log_prob"], site) for site in sites), torch.zeros(layout.num_particles, 1))


def _value(site: dict, k: int, nesting: int) -> Tensor:
    """A site's value for one particle, without the dimensions that it would not have alone."""
    value, own = site["value"], -min((f.dim for f in site["cond_indep_stack"] if _plain(f)), default=0)
    if site["is_observed"] or not any(f.name == PARTICLES for f in site["cond_indep_stack"]):
        return value
    return value[k].reshape(value.shape[1 + nesting - own :])


def _plain(frame: Any) -> bool:
    return frame.vectorized and frame.name != PARTICLES


def stacked(parts: list[Particles]) -> Particles:
    """K particles of single ones, drawn one after the other, with (num_particles, batch) numbers as always."""
    first = parts[0]
    layout = first.layout._replace(num_particles=len(parts))
    terms = {name: _term([part.terms[name] for part in parts]) for name in first.terms}
    joint, drawn = (
        [_site(sites, layout.nesting) for sites in zip(*each, strict=True)]
        for each in ([part.joint for part in parts], [part.drawn for part in parts])
    )
    likelihood = torch.cat([part.log_likelihood for part in parts])
    return Particles(
        likelihood,
        terms,
        layout,
        joint,
        drawn,
        first.programs,
        {},
        first.detached,
        first.kl,
        first.shared,
        tuple(parts),
    )


def _term(terms: list[Term]) -> Term:
    kl = [term.kl for term in terms if term.kl is not None]
    return Term(
        torch.cat([term.log_q for term in terms]),
        _rows([term.log_p for term in terms]),
        _rows([term.factor for term in terms]),
        torch.cat(kl) if kl else None,
    )


def _rows(values: Sequence[Tensor | float]) -> Tensor | float:
    """Tensors of one row each as one; a number, or what has no rows, is the same for all."""
    tensors = [value for value in values if isinstance(value, Tensor) and value.dim()]
    return torch.cat(tensors) if tensors else values[0]


def _site(sites: tuple[dict, ...], nesting: int) -> dict:
    """One site of all particles, as a plate of particles on the left would have made it."""
    first = sites[0]
    event_dim, observed = first["fn"].event_dim, first["is_observed"]
    value = first["value"] if observed else torch.stack([_padded(s["value"], nesting + event_dim) for s in sites])
    words = "log_prob", "unscaled_log_prob"
    found = {word: torch.stack([_padded(site[word], nesting) for site in sites]) for word in words}
    return {**first, **found, "value": value, "fn": joined([site["fn"] for site in sites], nesting)}


def _padded(value: Tensor, dims: int) -> Tensor:
    return value.reshape((1,) * (dims - value.dim()) + value.shape)
