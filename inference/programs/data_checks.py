"""Whether data can have come from the likelihood that they are scored under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints

from dlvm.distributions.supports import is_fixed
from dlvm.inference.programs.batches import Batches
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import untouched


def check_rows(pair: Pair, args: tuple, kwargs: dict) -> None:
    """Runs the model on some data and holds what it observes against its likelihood, see ``check_observed``."""
    check_observed(poutine.trace(pair.model).get_trace(*args, **kwargs))


def check_observed(trace: poutine.Trace) -> None:
    """Holds every observed value of a model's trace against its own likelihood.

    Raises:
        ValueError: nothing is observed, or a value has the wrong shape or lies outside the support.
    """
    observed = _observed(trace)
    if not observed:
        raise ValueError(
            "model observes nothing when called with these arguments; pass data, and write obs=x at its site"
        )
    for site in observed:
        check_values(site["name"], site["value"], site["fn"].support, tuple(site["fn"].event_shape))


def check_values(name: str, value: Tensor, support: constraints.Constraint, event_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless ``value``, shape (*batch, *event_shape), lies in ``support``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"observed site {name!r} needs a tensor, got {type(value).__name__}; pass torch.as_tensor(x)")
    got = tuple(value.shape[value.dim() - len(event_shape) :])
    if got != event_shape:
        raise ValueError(
            f"observed site {name!r} has events of shape {event_shape} under the likelihood, but the data have shape "
            f"{tuple(value.shape)}; make the likelihood's width that of the data"
        )
    if support.check(value).all():
        if value.is_floating_point() and value.isinf().any():
            raise ValueError(
                f"observed site {name!r} holds infinite values, which have no density; remove these data, or limit them"
            )
        return
    single = _elementwise(support)
    outside = value if single is None else value[~single.check(value)]
    raise ValueError(
        f"observed site {name!r} holds values outside its likelihood's support {single or support}, such as "
        f"{outside.flatten()[:3].tolist()}; the likelihood cannot have produced them: binarise grey levels for a "
        "Bernoulli "
        "(binarize='dynamic'), remove NaN, or choose a likelihood for such data"
    )


def _elementwise(support: constraints.Constraint) -> constraints.Constraint | None:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support if support.event_dim == 0 else None


def check_data(pair: Pair, first: tuple, batches: Batches) -> None:
    """Holds every batch against the supports of the sites that observe it, before any training.

    Args:
        pair: of which the model runs.
        first: the arguments of one batch, which find out what observes what.
        batches: one pass is made.

    Raises:
        ValueError: a batch has the wrong width, or holds values that the likelihood cannot have produced.
    """
    trace = _traced(pair, first)
    observed = _observed(trace)
    watched = {
        site["name"]: (position, site["fn"].support, tuple(site["fn"].event_shape))
        for site in observed
        for position, value in enumerate(first)
        if value is site["value"] and is_fixed(site["fn"].support, len(site["fn"].event_shape))
    }
    for args, _ in batches:
        for name, (position, support, event_shape) in watched.items():
            check_values(name, args[position], support, event_shape)
        if len(watched) < len(observed):
            check_observed(_traced(pair, args))


def _observed(trace: poutine.Trace) -> list[Mapping[str, Any]]:
    return [site for site in trace.nodes.values() if site["type"] == "sample" and site["is_observed"]]


def _traced(pair: Pair, args: tuple) -> poutine.Trace:
    with untouched(), torch.no_grad(), pair.evaluating():
        return prune_subsample_sites(poutine.trace(pair.model).get_trace(*args))
