"""What went wrong in words: which program fails on a batch and on what, and where numbers ceased to be finite."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

from dlvm.distributions.likelihoods.missing import PartlyObserved
from dlvm.distributions.supports import inner
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.notes import note, shorten, spoken, worded
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import declared
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import restore_generators, untouched

FAILURES = (
    RuntimeError,
    NotImplementedError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
    ZeroDivisionError,
)
OUTSIDE = re.compile(r"Expected parameter \w+ [^\n]*to satisfy the constraint [^\n]*?(?=, but found|$)")


class NonFinite(ArithmeticError):
    """A loss, gradient or parameter that is not a finite number; the message says where it came from."""


class OutOfConstraint(NonFinite):
    """A parameter of a distribution that training has carried out of its constraint, as a scale below zero."""


@contextmanager
def explaining(pair: Pair, args: tuple, kwargs: dict) -> Iterator[None]:
    """Notes on an error what is wrong with the data where the model alone can tell; else as ``in_words``."""
    try:
        yield
    except Exception as error:
        explained(error, pair, args, kwargs)
        raise


def explained(error: Exception, pair: Pair, args: tuple, kwargs: dict) -> None:
    """Adds to an error what ``explaining`` has to say of it."""
    shorten(error)
    if spoken(error):
        return
    try:
        with untouched(), torch.no_grad():
            check_rows(pair, args, kwargs)
    except (TypeError, ValueError) as found:
        if spoken(found):
            shorten(found)
            return note(error, str(found))
    except Exception:  # a model that fails by itself: what it said first is what counts
        pass
    worded(error, "the pair", args, kwargs)


def fault(error: Exception, pair: Pair, args: tuple, kwargs: dict, state: tuple) -> NonFinite | None:
    """The fault in numbers that an error of a step comes from, in words; None if it comes from something else.

    Args:
        error: what was raised.
        pair: that of the failed step.
        args, kwargs: its batch.
        state: the random state before it, see ``generator_state``, so that the same particles are drawn.
    """
    place, outside = _broken_input(pair, args, kwargs), OUTSIDE.search(str(error))
    if place is None and outside is not None:
        found = _first_of_sites(pair, args, kwargs, state, _unconstrained)
        if found is not None:
            return OutOfConstraint(f"out of its constraint: {found}; no step was taken; try a smaller lr")
    place = place or _first_of_sites(pair, args, kwargs, state, _broken) or broken_gradient(pair)
    if place is not None:
        said = f"{error}: " if isinstance(error, NonFinite) else ""
        return NonFinite(f"{said}not finite in {place}; no step was taken")
    if outside is not None:
        return OutOfConstraint(f"{outside.group()}: out of its constraint; no step was taken; try a smaller lr")
    return None


def check_constraints(pair: Pair, args: tuple) -> None:
    """Raises OutOfConstraint where a distribution of either program has a parameter outside its constraint."""
    with untouched(), torch.no_grad(), pair.evaluating(), pyro.validation_enabled(False):
        try:
            traces = pair.traces(args, {})
        except Exception:  # a program that fails for a reason of its own says so in its own step
            return
    for word, trace in zip(("guide", "model"), traces, strict=True):
        for site in sample_sites(trace):
            if (found := _unconstrained(site)) is not None:
                place = f"{found} of site {site['name']!r} in the {word}"
                raise OutOfConstraint(f"out of its constraint: {place} after the step; try a smaller lr")


def _broken_input(pair: Pair, args: tuple, kwargs: dict) -> str | None:
    for name, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            if value.isinf().any() or not _may_be_missing(pair, args, kwargs):
                return f"argument {name} of the batch (data)"
    return broken_parameter(pair)


def _may_be_missing(pair: Pair, args: tuple, kwargs: dict) -> bool:
    """Whether the model's likelihoods take these data with the NaN among them."""
    try:
        with untouched(), torch.no_grad():
            check_rows(pair, args, kwargs)
    except Exception:  # a model that fails says in its own step why
        return False
    return True


def broken_parameter(pair: Pair) -> str | None:
    """The first parameter that is not finite, in words."""
    for word, name, parameter in _parameters(pair):
        if not parameter.isfinite().all():
            return f"parameter {name!r} of the {word}"
    return None


def broken_gradient(pair: Pair) -> str | None:
    """The first gradient that is not finite, in words."""
    for word, name, parameter in _parameters(pair):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of parameter {name!r} of the {word}"
    return None


def _parameters(pair: Pair) -> Iterator[tuple[str, str, Tensor]]:
    for word, module in pair.roots.items():
        for name, parameter in (*module.named_parameters(), *declared(module).items()):
            yield word, name, parameter


Look = Callable[[dict], str | None]


def _first_of_sites(pair: Pair, args: tuple, kwargs: dict, state: tuple, look: Look) -> str | None:
    """Runs both programs again, without validation so that they get past the fault, and looks at every site."""
    with untouched(), torch.no_grad(), pyro.validation_enabled(False):
        restore_generators(state)
        try:
            traces = pair.traces(args, kwargs)
        except Exception:  # a program that fails for a reason of its own is no numerical fault
            return None
        for word, trace in zip(("guide", "model"), traces, strict=True):
            for site in sample_sites(trace):
                if (found := look(site)) is not None:
                    return f"{found} of site {site['name']!r} in the {word}"
    return None


def _broken(site: dict) -> str | None:
    missing = site["value"].isnan() if isinstance(inner(site["fn"]), PartlyObserved) else False
    if not (site["value"].isfinite() | missing).all():
        return "the value"
    return None if site["fn"].log_prob(site["value"]).isfinite().all() else "the log-density"


def _unconstrained(site: dict) -> str | None:
    """The first parameter of a site's distribution, or of one that it is made of, that is outside its constraint."""
    part = site["fn"]
    while part is not None:
        for name, constraint in getattr(part, "arg_constraints", {}).items():
            if constraints.is_dependent(constraint) or not isinstance(value := getattr(part, name, None), Tensor):
                continue
            if value.isfinite().all() and not constraint.check(value).all():
                return f"parameter {name!r}, which must be {constraint},"
        part = getattr(part, "base_dist", None)
    return None
