"""Noise of a model's own, beside its sample sites: whether particles drawn in parallel have each their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlvm.inference.console import say
from dlvm.inference.particles.enumerated import model_trace
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.plates import PARTICLES, in_particles, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import MODEL_TOLERANCE

OWN, SHARED, MIXED, NONE = "own", "shared", "mixed", "none"


def say_noise_is_shared() -> None:
    """Says, once, that particles are not drawn in parallel since they would share noise, and what it costs."""
    say(
        "the model draws noise of its own (torch.randn, dropout, a site hidden by poutine.block) that particles drawn "
        "in parallel would share: K particles are drawn one after the other, each with noise of its own, by K runs of "
        "both programs in place of one; noise of the latents' shape, as torch.randn_like(z), takes them at once"
    )


def noise_in(found: Particles, single: poutine.Trace) -> str:
    """Whose the noise is that a model draws beside its sample sites, where it gives the same draws other densities.

    log p(x) of a model with such noise eps has it integrated out, and the mean weight of particles estimates it where
    each has noise of its own; where they share it, that estimates log p(x | eps). Noise of the guide's own is part of
    how it proposes: q(z | x, eps) is a density whoever shares eps, and is not looked at here.

    Told by how many random numbers a run draws beside its sites: for two particles twice as many as for one, unless
    some are shared. Costs three runs of the model.

    Returns:
        "own" of each particle; "shared" by them; "mixed", where a particle's density depends on the other's draws;
        "none", where it draws none, and another state that changes at every run tells runs apart.

    Args:
        found: two particles, drawn in parallel.
        single: the guide's trace with the draws of one of them.
    """
    pair, args, kwargs, _, drawn = found.programs
    nesting, number = pair.nesting(args, kwargs), found.layout.num_particles
    together = in_particles(pair.model, number, nesting)

    def run(program: Callable, at: poutine.Trace, dims: int) -> tuple[poutine.Trace, _Counts]:
        with untouched(0), _counting() as counts:
            return model_trace(program, at, args, kwargs, lambda: dims), counts

    _, one = run(pair.model, single, nesting)
    among, all_of_them = run(together, drawn, nesting + 1)
    if not all_of_them.numbers and not all_of_them.elsewhere:
        return NONE
    if all_of_them.elsewhere or all_of_them.numbers != number * one.numbers:
        return SHARED
    beside, _ = run(together, _first_for_all(drawn), nesting + 1)
    first, again = (_densities(trace, found)[0] for trace in (among, beside))
    return OWN if torch.allclose(first, again, MODEL_TOLERANCE, MODEL_TOLERANCE, equal_nan=True) else MIXED


def _densities(traced: poutine.Trace, found: Particles) -> Tensor:
    """log p(x, z), (num_particles, batch)."""
    traced.compute_log_prob()
    names, reduce = {site["name"] for site in found.joint}, found.layout.reduce
    parts = [reduce(site["unscaled_log_prob"], site) for site in sample_sites(traced) if site["name"] in names]
    return sum(parts[1:], parts[0])


def _first_for_all(trace: poutine.Trace) -> poutine.Trace:
    """The trace in which all particles have the draws of the first."""
    equal = trace.copy()
    for site in sample_sites(trace):
        if not site["is_observed"] and any(frame.name == PARTICLES for frame in site["cond_indep_stack"]):
            value = site["value"]
            equal.nodes[site["name"]] = {**site, "value": value[:1].expand_as(value)}
    return equal


class _Counts(TorchDispatchMode):
    """Random numbers that torch draws beside sample sites; ``elsewhere``: whether NumPy or Python drew any."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.elsewhere, self.at_a_site = 0, False, False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.at_a_site and torch.Tag.nondeterministic_seeded in func.tags:
            first = result[0] if isinstance(result, tuple) else result
            self.numbers += first.numel()
        return result


class _Sites(Messenger):
    """Outside all other handlers: what is drawn for sites that these show is not counted."""

    def __init__(self, counts: _Counts):
        super().__init__()
        self.counts = counts

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        self.counts.at_a_site = True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        self.counts.at_a_site = False


@contextmanager
def _counting() -> Iterator[_Counts]:
    before, counts = pyro.util.get_rng_state(), _Counts()
    with counts, _Sites(counts):
        yield counts
    after = pyro.util.get_rng_state()
    counts.elsewhere = before["random"] != after["random"] or str(before["numpy"]) != str(after["numpy"])
