"""Words for things: which one was meant, and the class that `my_module:MyClass` stands for."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

ALIKE = 0.6


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is spelt most alike; None if none is.

    Example:
        >>> nearest("hvea", ["vae", "hvae", "ppca"])
        'hvae'
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=ALIKE)), None)


def unknown(option: str, word: str, known: Iterable[str], own: str) -> ValueError:
    """What to say of a word that stands for nothing.

    Args:
        option: its name.
        word: what came.
        known: the words.
        own: how a class of one's own is written.
    """
    known = list(known)
    meant, own_module = nearest(word, known), own.partition(":")[0]
    hint = "" if meant is None else f"; did you mean {meant}?"
    if meant is None and (Path.cwd() / f"{word.removesuffix('.py')}.py").is_file():
        hint = f"; write {own.replace(own_module, word.removesuffix('.py'))}, with the name of your class"
    return ValueError(f"{option} must be one of {', '.join(known)}, or {own} of your own, got {word!r}{hint}")


def own_class(option: str, word: str) -> Any:
    """The class, or function, that `my_module:MyClass` names; modules of the current folder are found as well.

    Args:
        option: whose value it is, for errors.
        word: a module's dotted name, a colon, and a name in it.

    Raises:
        ValueError: there is no such module or name, or importing it fails.
    """
    module, _, name = word.partition(":")
    if module.endswith(".py"):
        raise ValueError(f"{option} must name a module, got {word!r}; write {module.removesuffix('.py')}:{name}")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"{option} must be written as module:Class, got {word!r}; my_module:MyClass is MyClass in my_module.py"
        )
    found = imported(option, module)
    if not hasattr(found, name):
        theirs = [each for each, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__]
        meant = nearest(name, theirs)
        hint = f"did you mean {module}:{meant}?" if meant else f"it defines {', '.join(theirs) or 'nothing'}"
        raise ValueError(f"{option}: {module} has no {name}, got {word!r}; {hint}")
    return getattr(found, name)


def imported(option: str, module: str) -> ModuleType:
    """A module by its name, with the current folder among the places where it may lie."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        there = find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        raise ValueError(
            f"{option}: there is no module {module}; expected {module.replace('.', '/')}.py in {here}, or a package "
            "that is installed"
        )
    return told(f"{option}: importing {module}", importlib.import_module, module)


def told(what: str, call: Callable, *args: Any) -> Any:
    """What a call of somebody's own code gives; if that fails, an error that says what failed and in which line.

    Raises:
        ValueError: it raised an exception.
    """
    try:
        return call(*args)
    except Exception as error:  # of code that is not ours anything may come
        raise ValueError(f"{what} raised {type(error).__name__}: {one_line(error)}{line_of(error)}") from error


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks."""
    return " ".join(str(error).split())


def line_of(error: BaseException) -> str:
    """The last line of somebody's own code that an error came through, if there is one."""
    ours, packages = str(Path(__file__).resolve().parents[2]), ("-packages", "importlib", "/lib/python")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [f for f in frames if not f.filename.startswith(ours) and not any(part in f.filename for part in packages)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def own_file(word: str) -> str | None:
    """The file in which the class that `my_module:MyClass` names is written; None for another word."""
    module = sys.modules.get(word.partition(":")[0])
    return getattr(module, "__file__", None) if ":" in word else None
