"""What went wrong in words: which program fails on a batch and on what, and where numbers ceased to be finite."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import declared
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import restore_generators, untouched

RAISE = dis.opmap["RAISE_VARARGS"]
FAILURES = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError, KeyError, AttributeError)


class NonFinite(ArithmeticError):
    """A loss, gradient or parameter that is not a finite number; the message says where it came from."""


@contextmanager
def in_words(who: str, args: tuple, kwargs: dict) -> Iterator[None]:
    """Says of an error that no room of ours has raised which program failed, and on what.

    Raises:
        TypeError, ValueError: as the error was.
    """
    try:
        yield
    except FAILURES as error:
        raise (told := worded(error, who, args, kwargs)) from told.__cause__


def worded(error: Exception, who: str, args: tuple, kwargs: dict) -> Exception:
    """The error itself where it says enough, or one that goes on after its words: who fails, and on what."""
    if type(error) not in FAILURES or _spoken(error):
        return error
    given = ", ".join([*map(_told, args), *(f"{name}={_told(value)}" for name, value in kwargs.items())])
    said = (
        f"{_first(error)}: {who} fails so on a batch ({given}); pass the arguments that both programs take, of the "
        "width that they are made for"
    )
    return _caused(TypeError(said) if isinstance(error, TypeError) else ValueError(said), error)


@contextmanager
def explaining(pair: Pair, args: tuple, kwargs: dict) -> Iterator[None]:
    """The same, for a pair: says what is wrong with the data where the model alone can tell."""
    try:
        yield
    except FAILURES as error:
        raise (told := explained(error, pair, args, kwargs)) from told.__cause__


def explained(error: Exception, pair: Pair, args: tuple, kwargs: dict) -> Exception:
    """What ``explaining`` raises in place of an error."""
    if type(error) not in FAILURES or _spoken(error):
        return error
    try:
        with untouched(), torch.no_grad():
            check_rows(pair, args, kwargs)
    except (TypeError, ValueError) as found:
        if _spoken(found):
            return _caused(type(found)(f"{_first(error)}: {found}"), error)
    except Exception:  # a model that fails by itself: what it said first is what counts
        pass
    return worded(error, "the pair", args, kwargs)


def _caused(new: Exception, error: Exception) -> Exception:
    new.__cause__ = error.__cause__ or error
    return new


def _first(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, TypeError | ValueError | RuntimeError) else f"{type(error).__name__}: {said}"


def _spoken(error: Exception) -> bool:
    """Whether a ``raise`` of one of our rooms has made it."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return False
    ours = at.tb_frame.f_globals.get("__name__", "").startswith("dlvm.")
    return ours and at.tb_frame.f_code.co_code[at.tb_lasti] == RAISE


def _told(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return " ".join(repr(value).split())[:60]


def locate(pair: Pair, args: tuple, kwargs: dict, state: tuple) -> str | None:
    """The first place where a batch gives something that is not finite, in words; None if there is none.

    Args:
        pair: that of the failed step.
        args, kwargs: its batch.
        state: the random state before it, see ``generator_state``, so that the same particles are drawn.
    """
    for name, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            return f"argument {name} of the batch (data)"
    return broken_parameter(pair) or _broken_site(pair, args, kwargs, state)


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


def _broken_site(pair: Pair, args: tuple, kwargs: dict, state: tuple) -> str | None:
    """Runs both programs again, without validation so that they get past the fault, and looks at every site."""
    with untouched(), torch.no_grad(), pyro.validation_enabled(False):
        restore_generators(state)
        try:
            traces = pair.traces(args, kwargs)
        except Exception:  # a program that fails for a reason of its own is no numerical fault
            return None
        for word, trace in zip(("guide", "model"), traces, strict=True):
            for site in sample_sites(trace):
                if not site["value"].isfinite().all():
                    return f"the value of site {site['name']!r} in the {word}"
                if not site["fn"].log_prob(site["value"]).isfinite().all():
                    return f"the log-density of site {site['name']!r} in the {word}"
    return None
