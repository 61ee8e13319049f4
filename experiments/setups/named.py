"""Models by their words: one file in this folder each, whose name is the word, or `my_module:MySetup` of one's own."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pkgutil import iter_modules

from dlvm.experiments.options.words import own_class, unknown
from dlvm.experiments.setups.setup import Setup

NO_MODELS = ("setup", "named", "invertible", "options", "pictures", "sequences", "sequence_pictures")
WHERE = "dlvm.experiments.setups.setup.Setup"


def words() -> list[str]:
    """The words for models."""
    folder = sys.modules[__package__].__path__
    return sorted(found.name for found in iter_modules(folder) if found.name not in NO_MODELS)


def named(word: str) -> type[Setup]:
    """The setup of a model by its word: the class in that file whose name ends in Setup; or one of your own.

    Args:
        word: one of ``words()``, or `my_module:MySetup`.

    Raises:
        ValueError: there is no such file, module or class, or the class is no frozen dataclass made of a ``Setup``, all
            of whose fields have defaults.

    Example:
        >>> named("vae")(z_dim=3).binary
        True
    """
    if ":" in word:
        return checked(word, own_class("model", word))
    if word not in (known := words()):
        raise unknown("model", word, known, "my_module:MySetup")
    module = import_module(f"{__package__}.{word}")
    inside = (kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__)
    (found,) = (kind for kind in inside if issubclass(kind, Setup))
    return found


def word_of(kind: type[Setup]) -> str:
    """The word for a setup."""
    if kind.__module__.startswith(f"{__package__}."):
        return kind.__module__.rpartition(".")[2]
    return f"{kind.__module__}:{kind.__qualname__}"


def checked(word: str, kind: object) -> type[Setup]:
    """A setup of one's own, once it is known to be one.

    Raises:
        ValueError: what is missing, and how to write it.
    """
    if not isinstance(kind, type):
        raise ValueError(f"model must be a class, got {word}, {type(kind).__name__}; write class MySetup(Setup)")
    if not issubclass(kind, Setup):
        raise ValueError(
            f"model must be a setup, got {word}, whose class has other bases; write class {kind.__name__}(Setup), and "
            f"from {WHERE.rpartition('.')[0]} import Setup"
        )
    if not (is_dataclass(kind) and "__dataclass_fields__" in vars(kind) and kind.__dataclass_params__.frozen):
        raise ValueError(
            f"model must be a frozen dataclass, got {word}; write @dataclass(frozen=True) above the class, whose "
            "fields are the options"
        )
    if bare := [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]:
        raise ValueError(f"model: every field of {word} needs a default; give {', '.join(bare)} one")
    if kind.model is Setup.model:
        raise ValueError(f"model: {word} has no model; define model(self, data), which returns a Pyro program")
    return kind


def about(kind: type[Setup]) -> str:
    """A setup in one line: the first sentence of its docstring."""
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return text if text and not text.startswith(f"{kind.__name__}(") else "no description"
