"""A program that fails on a batch, in words that say which one and on what."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pyro import poutine
from torch import Tensor

from inference.observed import check_observed
from inference.ownership import own
from inference.randomness import untouched

ROOMS = {"nets", "distributions", "models", "guides", "inference", "evidence", "experiments"}
RAISE = dis.opmap["RAISE_VARARGS"]
FAILURES = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError, KeyError, AttributeError)


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


def explained(error: Exception, model: Callable, args: tuple, kwargs: dict) -> Exception:
    """The same, for a pair: what is wrong with the data where the model alone can tell."""
    if type(error) not in FAILURES or _spoken(error):
        return error
    try:
        with untouched(), torch.no_grad():
            check_observed(poutine.trace(own(model)).get_trace(*args, **kwargs))
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
    """Whether a ``raise`` of one of the rooms has made it."""
    at = error.__traceback__
    while at.tb_next is not None:
        at = at.tb_next
    room = at.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return room in ROOMS and at.tb_frame.f_code.co_code[at.tb_lasti] == RAISE


def _told(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return " ".join(repr(value).split())[:60]
