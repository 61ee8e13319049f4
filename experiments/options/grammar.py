"""Which words a command line may hold, and what to say of one that is none of them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from dlvm.experiments.options.words import nearest

ASIDE = ("help", "config", "print-config", "quiet", "tyro-print-completion", "tyro-write-completion")


@dataclass(frozen=True)
class Grammar:
    """What a command line is parsed into.

    Args:
        kind: a dataclass whose fields, and those of its nested dataclasses, are the options.
        defaults: {field: value} where another than that of ``kind`` holds.
        back: from an instance of it to the script's config.
        model: the word for the model that the options belong to, and the class that has its own; None without one.
        elsewhere: {option: the classes that have it, by the words for their models} of options of other models.
    """

    kind: type
    defaults: Mapping[str, Any] = field(default_factory=dict)
    back: Callable[[Any], Any] = lambda parsed: parsed
    model: tuple[str, type] | None = None
    elsewhere: Mapping[str, Mapping[str, type]] = field(default_factory=dict)


def grammar_of(config: type, args: Sequence[str]) -> Grammar:
    """That of a config; a config with options of a model says itself which they are."""
    return config.grammar(args) if hasattr(config, "grammar") else Grammar(config)


def given(option: str, args: Sequence[str]) -> str | None:
    """The value that a command line has for an option, the last if there are several; None without one."""
    found = None
    for word, following in zip(args, [*args[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == f"--{option}":
            found = value if equals else following
    return found


def check_words(grammar: Grammar, args: Sequence[str]) -> None:
    """Refuses what looks like an option and is none.

    Raises:
        ValueError: with the nearest option, and those that the model has.
    """
    known = {name: text for kind in classes(grammar.kind) for name, text in options(kind).items()}
    flags = {f"no-{name}" for kind in classes(grammar.kind) for name in switches(kind)}
    for word in args:
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")
        if word.startswith("--") and name[:1].isalpha() and name not in {*known, *flags, *ASIDE}:
            raise ValueError(unknown(name, known, grammar))


def unknown(name: str, known: Mapping[str, str], grammar: Grammar) -> str:
    """What to say of a word that is no option."""
    models = grammar.elsewhere.get(name, {})
    meant = nearest(name, known)
    if grammar.model is None:
        return f"--{name} is no option{hint(meant)} --help lists them all"
    word, kind = grammar.model
    own = options(kind)
    if models:
        text = " ".join(options(other)[name] for other in models.values())
        meant = nearest(name, own) or alike(text, own) or meant
    has = f"{word} has {', '.join(f'--{option}' for option in own) or 'no options of its own'}"
    *others, last = models or [""]
    listed = f"{', '.join(others)} and {last}" if others else last
    whose = f", but of {listed}" if listed else ""
    return f"--{name} is no option of --model {word}{whose}{hint(meant)} {has}; --help lists the others"


def hint(meant: str | None) -> str:
    return "." if meant is None else f"; did you mean --{meant}?"


def alike(text: str, known: Mapping[str, str]) -> str | None:
    """The option whose help shares most words with a text; None if none shares any."""
    shared = {name: len(stems(text) & stems(other)) for name, other in known.items()}
    best = max(shared, key=shared.__getitem__, default=None)
    return best if best is not None and shared[best] else None


def stems(text: str) -> set[str]:
    """The longer words of a text, in lower case and without the s of a plural."""
    return {word.strip(".,;:()").lower().rstrip("s") for word in text.split() if len(word) > 5}


def classes(kind: type) -> Iterator[type]:
    """A dataclass and those nested in it."""
    yield kind
    hints = get_type_hints(kind)
    yield from (hints[each.name] for each in fields(kind) if is_dataclass(hints[each.name]))


def switches(kind: type) -> list[str]:
    """The options of a dataclass that are on or off."""
    return [each.name.replace("_", "-") for each in fields(kind) if isinstance(each.default, bool)]


def options(kind: type) -> dict[str, str]:
    """{option: help} of the fields of a dataclass, without those that hold options themselves.

    Example:
        >>> from dlvm.experiments.setups.hvae import HVAESetup
        >>> options(HVAESetup)["sizes"]
        'Dimensions of z1, z2, ...'
    """
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= helps(base)
    kept = [each for each in fields(kind) if not is_dataclass(each.default)]
    return {each.name.replace("_", "-"): texts.get(each.name, "") for each in kept}


def helps(kind: type) -> dict[str, str]:
    """{field: the text below it} in the source of a class; empty where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for here, below in zip(body, body[1:], strict=False):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name) and isinstance(below, ast.Expr):
            found[here.target.id] = str(getattr(below.value, "value", ""))
    return found
