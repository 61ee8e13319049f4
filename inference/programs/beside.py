"""How many data a batch has, what is observed beside them, as a penalty on weights, and whether everything is."""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from torch import Tensor

from dlvm.inference.programs.data_sites import names_around, turn
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.plates import (
    common_loops,
    common_plates,
    data_plates,
    inside_the_plates,
    outer_scale,
    sample_sites,
)
from dlvm.inference.programs.randomness import generator_state, same_generators, untouched

RUNS = 4


def beside(sites: list[dict]) -> list[dict]:
    """Observed sites and factors outside the plates that index the data: a penalty on weights, something known.

    Where they do not depend on what is drawn, see ``depending``, they are a constant of the whole batch: added once to
    its bound, and no part of any datum's log p(x). Where they do, the batch is one datum.
    """
    inside = inside_the_plates(sites)
    names = {frame.name for frame in common_plates(inside)} or common_loops(inside)
    return [site for site in sites if site["is_observed"] and not names <= names_around(site)]


@remembered
def depending(pair: Pair, args: tuple, kwargs: dict) -> frozenset[str]:
    """Names of the model's observed sites that depend on its latent ones; remembered for a pair.

    Found by one run of the model that follows where values come from; where a model cannot be run so, by four that look
    whether what is observed beside the data has another density when the latent sites have other values.
    """
    with untouched(0), torch.no_grad(), poutine.block(), pair.evaluating():
        try:
            found: Any = get_dependencies(pair.model, args, kwargs)["prior_dependencies"]
            return frozenset(site for site, above in found.items() if above.keys() - {site})
        except Exception:  # whatever a program does to a tensor that remembers where it comes from
            return _differing(pair, args, kwargs)


def observes_everything(pair: Pair, args: tuple, kwargs: dict) -> bool:
    """Whether nothing is drawn for these arguments: no latent site, and no random number beside them.

    It is found anew for each call, since the values of data may decide what is latent.
    """
    with untouched(), torch.no_grad(), poutine.block(), pair.evaluating(), pyro.validation_enabled(False):
        before = generator_state()
        try:
            sites = sample_sites(*pair.traces(args, kwargs))
        except FAILURES:  # which are told where they are weighed
            return False
        return all(site["is_observed"] for site in sites) and same_generators(before, generator_state())


@remembered
def deciding(pair: Pair, args: tuple, kwargs: dict) -> frozenset[str]:
    """Names of latent sites that the density of another site is seen to be made of; remembered for a pair."""
    with untouched(0), torch.no_grad(), poutine.block(), pair.evaluating():
        try:
            made: Any = get_dependencies(pair.model, args, kwargs)["prior_dependencies"]
            sites = poutine.trace(pair.model).get_trace(*args, **kwargs).nodes
        except Exception:  # as above
            return frozenset()
    told = {site: above for site, above in made.items() if not (sites[site]["infer"] or {}).get("_deterministic")}
    return frozenset(other for site, above in told.items() for other in above.keys() - {site})


def _differing(pair: Pair, args: tuple, kwargs: dict) -> frozenset[str]:
    """The sites beside the data whose density is not the same in several runs of the model."""
    runs = []
    for _ in range(RUNS):
        trace = poutine.trace(pair.model).get_trace(*args, **kwargs)
        trace.compute_log_prob()
        runs.append({site["name"]: site["log_prob_sum"] for site in beside(sample_sites(trace))})
    return frozenset(name for name, value in runs[0].items() if any(run.get(name) != value for run in runs))


def number_of_data(sites: list[dict]) -> float:
    """How many data sites of a model stand for: the rows of the plates or loops around the data, each by its scale."""
    plates = data_plates(sites)
    local = [site for site in inside_the_plates(sites) if site["is_observed"]]
    if not plates and (loops := common_loops(local)):
        firsts = {turn(site, loops): site["scale"] for site in local}
        return float(sum(firsts.values()))
    if not plates and (count := _rows_in_many_plates(local)):
        return count
    shape, scale = [frame.size for frame in plates], outer_scale(sites, plates)
    return scale.expand(shape).sum().item() if isinstance(scale, Tensor) else scale * math.prod(shape)


def _rows_in_many_plates(data: list[dict]) -> float | None:
    """Of data that lie in plates of several names: how many rows these have, where it is one number."""
    stacks = [common_plates([site]) for site in data]
    counts = {math.prod(frame.size for frame in stack) * outer_scale([], stack) for stack in stacks}
    return float(counts.pop()) if all(stacks) and len(counts) == 1 else None
