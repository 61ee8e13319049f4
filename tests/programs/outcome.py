"""What comes of a program and a way: the right number, a refusal in words, or a fault."""

from __future__ import annotations

import dis
import inspect
import random
import re
from dataclasses import dataclass

import numpy as np
import pyro
import torch
from pyro import poutine

from programs.alone import quiet
from programs.brought import Brought, Pair
from programs.more_ways import WAYS
from programs.ways import CORE

RAISE = dis.opmap["RAISE_VARARGS"]
NO_REMEDY = "pass the arguments that both programs take, of the width that they are made for"
LONGEST = 1200
WORDS = ("model", "guide", "batch", "data", "estimator", "objective", "engine", "sites", "fit", "example")
GOOD = ("right", "refused", "none")
NO_REASON = (  # what stock Pyro runs, and what a way of running it is to be found for
    "not with 2 particles in parallel|parameters are declared by pyro.param|which the model observes|"
    "lacks the latent sites|has plates .* in the model and|cannot be asked for n data"
)


@dataclass(frozen=True)
class Outcome:
    """``kind`` is one of: right, refused, needless, wrong, crash; or none where the way is not for this program.

    A refusal is *needless* where stock Pyro gives a number and nothing was said in the program to be refused; a *crash*
    is an error that names neither site nor argument, or has no remedy.
    """

    kind: str
    said: str = ""
    where: str = ""

    @property
    def good(self) -> bool:
        return self.kind in GOOD


def outcome(program: Brought, way: str) -> Outcome:
    """Runs one way in a session of its own, and judges it."""
    run = CORE.get(way) or WAYS[way]
    random.seed(0)
    np.random.seed(0)
    try:
        with quiet():
            claims = run(program)
    except Exception as error:  # whatever comes of it is what is asked
        return _error(program, way, error)
    finally:
        pyro.clear_param_store()
        pyro.enable_validation(True)
    if claims is None:
        return Outcome("none")
    if broken := [claim for claim in claims if not claim.holds]:
        return Outcome("wrong", "; ".join(map(str, broken)))
    if re.fullmatch(program.must, way):
        return Outcome("wrong", f"nothing is said; right is a refusal with the words {program.words(way)!r}")
    return Outcome("right", "; ".join(map(str, claims)))


def _error(program: Brought, way: str, error: Exception) -> Outcome:
    said = " ".join(" ".join([str(error), *getattr(error, "__notes__", ())]).split())
    told, where = f"{type(error).__name__}: {said[:300]}", _place(error)
    wanted = program.words(way)
    if NO_REMEDY in said or len(said) > LONGEST:
        kind = "crash"
    elif wanted is not None and re.search(wanted, said):
        kind = "refused"
    elif not (_spoken(error) or getattr(error, "__notes__", ())):
        kind = "crash"
    else:
        needed = way not in CORE and not re.search(NO_REASON, said) and _named(program, said)
        kind = "refused" if needed else "needless"
    return Outcome(kind, told, where)


def _last(error: BaseException):
    at = error.__traceback__
    while at.tb_next is not None:
        at = at.tb_next
    return at


def _spoken(error: Exception) -> bool:
    """Whether a ``raise`` of the laboratory has made it."""
    at = _last(error)
    ours = at.tb_frame.f_globals.get("__name__", "").startswith("dlvm.")
    return ours and at.tb_frame.f_code.co_code[at.tb_lasti] == RAISE


def _place(error: Exception) -> str:
    """The last function of the laboratory that the error went through."""
    at, found = error.__traceback__, ""
    while at is not None:
        name = at.tb_frame.f_globals.get("__name__", "")
        if name.startswith("dlvm."):
            found = f"{name.removeprefix('dlvm.')}.{at.tb_frame.f_code.co_name}"
        at = at.tb_next
    return found


def _named(program: Brought, said: str) -> bool:
    """Whether words name a site, an argument or one of the two programs, and go on to a remedy."""
    pair = program.pair()
    names = {*WORDS, *_names(pair)}
    return any(re.search(rf"\b{re.escape(name)}\b", said) for name in names) and bool(re.search("[;:] ", said))


def _names(pair: Pair) -> set[str]:
    with quiet(), torch.no_grad():
        trace = poutine.trace(pair.model).get_trace(*pair.first)
    sites = {name for name, site in trace.nodes.items() if site["type"] == "sample"}
    return sites | set(inspect.signature(getattr(pair.model, "forward", pair.model)).parameters)
