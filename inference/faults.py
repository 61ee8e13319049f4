"""What went wrong in a step that gave no finite number."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from inference.ownership import own
from inference.randomness import restore_generators, untouched


class NonFinite(ArithmeticError):
    """A loss, gradient or parameter that is not a finite number; the message says where it came from."""


def mentions_non_finite(error: Exception) -> bool:
    """Whether a validation error is about a NaN or an infinity."""
    return re.search(r"\b(nan|inf)\b", str(error)) is not None


def locate(model: Callable, guide: Callable, args: tuple, state: tuple) -> str:
    """The first place where a batch gives something that is not finite, in words.

    Args:
        model, guide, args: the pair and the batch of the failed step.
        state: the random state before it, see ``generator_state``, so that the same particles are drawn.
    """
    for i, value in enumerate(args):
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            return f"argument {i} of the batch (data)"
    for word, program in (("model", model), ("guide", guide)):
        if isinstance(program, nn.Module):
            for name, parameter in program.named_parameters():
                if not parameter.isfinite().all():
                    return f"parameter {name!r} of the {word}"
    with untouched(), torch.no_grad():
        restore_generators(state)
        return _first_site(model, guide, args) or _first_gradient(model, guide)


def _first_site(model: Callable, guide: Callable, args: tuple) -> str | None:
    guide_trace = poutine.Trace()
    for word, program in (("guide", own(guide)), ("model", own(model))):
        handler = poutine.trace(poutine.replay(program, trace=guide_trace))
        try:
            handler(*args)
            failed = None
        except (ValueError, RuntimeError) as error:
            failed = str(error).split("\n")[0]
        trace = prune_subsample_sites(handler.trace)
        guide_trace = handler.trace if word == "guide" else guide_trace
        for name, site in trace.nodes.items():
            if site["type"] == "sample":
                if not site["value"].isfinite().all():
                    return f"the value of site {name!r} in the {word}"
                if not _log_prob_finite(site):
                    return f"the log-density of site {name!r} in the {word}"
        if failed:
            last = next((n for n in reversed(trace.nodes) if trace.nodes[n]["type"] == "sample"), "none")
            return f"the {word} after site {last!r}: {failed}"
    return None


def _log_prob_finite(site: dict) -> bool:
    try:
        return bool(site["fn"].log_prob(site["value"]).isfinite().all())
    except ValueError:
        return False


def _first_gradient(model: Callable, guide: Callable) -> str:
    for word, program in (("model", model), ("guide", guide)):
        if isinstance(program, nn.Module):
            for name, parameter in program.named_parameters():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    return f"the gradient of parameter {name!r} of the {word}"
    return "the sum over particles or data"
