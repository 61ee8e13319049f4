"""The model among a script's options: `--model WORD`, and then exactly the options that this model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, make_dataclass, replace
from typing import Annotated, Any, TypeVar

import tyro

from dlvm.experiments.options.grammar import Grammar, given
from dlvm.experiments.setups.named import about, named, word_of, words
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vae import VAESetup

T = TypeVar("T", bound="ModelOptions")


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and its own options; a script's config has this among its bases, and its default in ``setup``."""

    setup: Setup = VAESetup()

    @classmethod
    def of(cls: type[T], model: str | None = None, **settings: Any) -> T:
        """A config by flat settings, as they stand in config.json.

        Args:
            model: word for the model; None for that of the script's default.
            **settings: options of the script and of the model.

        Raises:
            ValueError: there is no such model, or it has an option that the script has, too.
            TypeError: one of the settings belongs to neither.

        Example:
            >>> setup = ModelOptions.of("hvae", sizes=(8, 4), hidden=(50, 50)).setup
            >>> setup.sizes, setup.hidden
            ((8, 4), (50, 50))
        """
        usual = default_of(cls, None if model is None else named(model))
        own = {field.name for field in fields(usual)}  # type: ignore[arg-type]  # a dataclass
        mine = {name: value for name, value in settings.items() if name in own}
        setup = replace(usual, **mine)  # type: ignore[type-var]  # a dataclass
        rest = {name: value for name, value in settings.items() if name not in own}
        return cls(setup=setup, **(wanted(cls, type(usual)) | rest))

    def settings(self) -> dict[str, Any]:
        """Flat, as they stand in config.json: the word for the model, and its options among the script's."""
        return settings_of(self)

    @classmethod
    def grammar(cls, args: Sequence[str]) -> Grammar:
        """What the command line may hold, once it is known which model it asks for."""
        word = given("model", args)
        usual = default_of(cls, None if word is None else named(word))
        kind = type(usual)
        made, model = parser(cls, usual), (word_of(kind), kind)
        return Grammar(made, wanted(cls, kind), lambda parsed: back(cls, parsed), model, others(kind))


def default_of(config: type[ModelOptions], kind: type[Setup] | None) -> Setup:
    """The options of a model unless told otherwise: the script's own for its usual model.

    Raises:
        ValueError: an option of the model bears the name of an option of the script.
    """
    usual: Any = next(field.default for field in fields(config) if field.name == "setup")
    if kind is not None and type(usual) is not kind:
        usual = kind()
    theirs = {field.name for field in fields(config)} | {"model"}
    if both := sorted(theirs & {field.name for field in fields(usual)}):
        raise ValueError(
            f"model: {word_of(type(usual))} has the field {both[0]}, which is an option of this script; rename it"
        )
    return usual


def wanted(config: type[ModelOptions], kind: type[Setup]) -> dict[str, Any]:
    """Options of a script that this model needs to be others than the script's."""
    theirs = {field.name for field in fields(config)}
    return {name: value for name, value in kind.defaults.items() if name in theirs}


def parser(config: type[ModelOptions], usual: Setup) -> type:
    """A dataclass of a script's options and those of one model, for the command line alone."""
    lines = "\n\n".join(f"{word}: {about(named(word))}" for word in words())
    text = f"The model; its options follow below.\n\n{lines}\n\nmy_module:MySetup: a Setup of your own."
    word = Annotated[str, tyro.conf.arg(help=text, metavar="WORD")]
    kind: Any = type(usual)
    setup = Annotated[kind, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=f"{word_of(kind)}")]
    both = [("setup", setup, usual), ("model", word, word_of(kind))]
    made = make_dataclass(config.__name__, both, bases=(config,), frozen=True)
    made.__doc__ = config.__doc__
    return made


def back(config: type[T], parsed: Any) -> T:
    """A script's config of what was parsed."""
    return config(**{field.name: getattr(parsed, field.name) for field in fields(config)})


def others(kind: type[Setup]) -> dict[str, dict[str, type]]:
    """{option: {model: setup}} of all models but one."""
    found: dict[str, dict[str, type]] = {}
    for word in words():
        if (other := named(word)) is not kind:
            for field in fields(other):  # type: ignore[arg-type]  # a dataclass
                found.setdefault(field.name.replace("_", "-"), {})[word] = other
    return found


def settings_of(config: Any) -> dict[str, Any]:
    """A config as flat settings, for config.json: the word for the model, and its options among the script's."""
    if not isinstance(config, ModelOptions):
        return asdict(config)
    rest = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "setup"}
    own = asdict(config.setup)  # type: ignore[call-overload]  # a dataclass
    return {"model": word_of(type(config.setup))} | own | rest
