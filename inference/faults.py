"""What went wrong in a step that gave no finite number."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from torch import Tensor

from inference.ownership import declared, modules_of, own
from inference.plates import sample_sites
from inference.randomness import restore_generators, untouched


class NonFinite(ArithmeticError):
    """A loss, gradient or parameter that is not a finite number; the message says where it came from."""


def locate(model: Callable, guide: Callable, args: tuple, kwargs: dict, state: tuple) -> str | None:
    """The first place where a batch gives something that is not finite, in words; None if there is none.

    Args:
        model, guide: the pair of the failed step.
        args, kwargs: its batch.
        state: the random state before it, see ``generator_state``, so that the same particles are drawn.
    """
    for name, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            return f"argument {name} of the batch (data)"
    return broken_parameter(model, guide) or _broken_site(model, guide, args, kwargs, state)


def broken_parameter(model: Callable, guide: Callable) -> str | None:
    """The first parameter that is not finite, in words."""
    for word, name, parameter in _parameters(model, guide):
        if not parameter.isfinite().all():
            return f"parameter {name!r} of the {word}"
    return None


def broken_gradient(model: Callable, guide: Callable) -> str | None:
    """The first gradient that is not finite, in words."""
    for word, name, parameter in _parameters(model, guide):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of parameter {name!r} of the {word}"
    return None


def _parameters(model: Callable, guide: Callable):
    for word, program in (("model", model), ("guide", guide)):
        for module in modules_of(program):
            for name, parameter in (*module.named_parameters(), *declared(module).items()):
                yield word, name, parameter


def _broken_site(model: Callable, guide: Callable, args: tuple, kwargs: dict, state: tuple) -> str | None:
    """Runs both programs again, without validation so that they get past the fault, and looks at every site."""
    with untouched(), torch.no_grad(), pyro.validation_enabled(False):
        restore_generators(state)
        try:
            guide_trace = poutine.trace(own(guide)).get_trace(*args, **kwargs)
            model_trace = poutine.trace(poutine.replay(own(model), trace=guide_trace)).get_trace(*args, **kwargs)
        except Exception:  # a program that fails for a reason of its own is no numerical fault
            return None
        for word, trace in (("guide", guide_trace), ("model", model_trace)):
            for site in sample_sites(trace):
                if not site["value"].isfinite().all():
                    return f"the value of site {site['name']!r} in the {word}"
                if not site["fn"].log_prob(site["value"]).isfinite().all():
                    return f"the log-density of site {site['name']!r} in the {word}"
    return None
