"""Notes below an error's own words: an error of somebody else's keeps its class, and is told where it happened."""

from __future__ import annotations

import dis
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyro.poutine.trace_messenger import TraceHandler
from torch import Tensor

RAISE = dis.opmap["RAISE_VARARGS"]
LONGEST = 60
LONGEST_TENSOR = 80
_SHAPES = re.compile(r"\s*Trace Shapes:.*\Z", re.DOTALL)  # a table of all sites, which Pyro appends
REMEDIES = (
    (r"more than 1 value per channel", "batch normalisation cannot train on a single row: leave it out (drop_last=True "
     "in a DataLoader), choose another batch size, or use LayerNorm"),
    (r"scalar types?: Long, Int", "pass tokens as whole numbers, x.long(), rather than one-hot or as another type"),
    (r"index out of range in self", "a token or label is negative, or as large as its embedding's table or larger; "
     "remove it, or enlarge the table"),
    (r"same dtype|expected scalar type|Found dtype|should be the same|not implemented for '(Long|Int|Byte|Bool|Half)'",
     "pass data of the parameters' type, as x.float() for modules in single precision"),
    (r"shapes cannot be multiplied|size mismatch|must match the size|expected input.* to have",
     "pass data of the width that both programs are made for"),
    (r"missing \d+ required|positional argument|unexpected keyword", "pass the arguments that both programs take"),
    (r"on the same device", "move data and modules to one device, as fit(..., device=) does"),
)  # fmt: skip


def note(error: BaseException, text: str) -> None:
    """Adds a line below an error's words; shown in tracebacks from Python 3.11 on, and by ``said``."""
    notes = getattr(error, "__notes__", [])
    if text not in notes:
        error.__notes__ = [*notes, text]


def said(error: BaseException) -> str:
    """An error's words with its notes, in one line."""
    return "; ".join(" ".join(text.split()) for text in (str(error), *getattr(error, "__notes__", [])) if text.strip())


@contextmanager
def noting(where: Callable[[], str], quiet: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Notes on an error that passes where it happened; those of the classes ``quiet`` say so themselves."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, quiet):
            note(error, where())
        raise


@contextmanager
def in_words(who: str, args: tuple, kwargs: dict) -> Iterator[None]:
    """Notes on an error that no room of ours has raised which program failed, after which site, and on what.

    The error keeps its class. Long tensors in its words are cut.
    """
    try:
        yield
    except Exception as error:
        worded(error, who, args, kwargs)
        raise


def worded(error: Exception, who: str, args: tuple, kwargs: dict) -> None:
    """Adds to an error who failed, and on what, and the remedy where its cause is known; nothing where it tells."""
    shorten(error)
    if spoken(error):
        return
    site = _last_site(error)
    after = "" if site is None else f", after site {site!r}"
    note(error, f"{who} fails so on a batch ({told(args, kwargs)}){after}")
    if (cure := remedy(error)) is not None:
        note(error, cure)
    if any(isinstance(value, Tensor) and value.is_floating_point() and value.isnan().any() for value in args):
        note(
            error,
            "NaN among the data means missing numbers under dlvm.distributions.Missing(likelihood) alone; give the "
            "guide an encoder that sees zeros there and a mask, dlvm.nets.Filled(net of twice as many numbers)",
        )


def _last_site(error: Exception) -> str | None:
    """The last site that a traced program had reached when it failed; None where none was."""
    at, found = error.__traceback__, None
    while at is not None:
        handler = at.tb_frame.f_locals.get("self")
        if isinstance(handler, TraceHandler):
            names = [name for name, node in handler.trace.nodes.items() if node["type"] == "sample"]
            found = names[-1] if names else found
        at = at.tb_next
    return found


def spoken(error: Exception) -> bool:
    """Whether a ``raise`` of one of our rooms has made it."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return False
    ours = at.tb_frame.f_globals.get("__name__", "").startswith("dlvm.")
    return ours and at.tb_frame.f_code.co_code[at.tb_lasti] == RAISE


def remedy(error: BaseException) -> str | None:
    """What to do where the cause of an error is known by its words."""
    text = str(error)
    return next((cure for pattern, cure in REMEDIES if re.search(pattern, text)), None)


def shorten(error: BaseException) -> None:
    """Cuts long tensors, and Pyro's table of all sites, from what an error and those that it comes from say."""
    met: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in met:
        met.add(id(at))
        if len(at.args) == 1 and isinstance(at.args[0], str):
            at.args = (without_tensors(_SHAPES.sub("", at.args[0])),)
        at = at.__cause__ or at.__context__


def without_tensors(text: str) -> str:
    """The text with every long ``tensor(...)`` in it cut."""
    parts, start = [], 0
    for found in re.finditer(r"tensor\(", text):
        if found.start() < start:
            continue
        end = _closing(text, found.end())
        if end - found.start() > LONGEST_TENSOR:
            parts += [text[start : found.end()], "...)"]
            start = end
    return "".join([*parts, text[start:]])


def _closing(text: str, at: int) -> int:
    """Behind the bracket that closes the one before ``at``."""
    depth = 1
    while depth and at < len(text):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def told(args: tuple, kwargs: dict) -> str:
    """The arguments of a call in few words: types and shapes, never numbers of a tensor."""
    return ", ".join([*map(_told, args), *(f"{name}={_told(value)}" for name, value in kwargs.items())])


def _told(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    text = " ".join(without_tensors(repr(value)).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
