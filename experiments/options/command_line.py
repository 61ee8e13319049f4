"""From the command line to a script's main function."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from io import StringIO
from types import MappingProxyType
from typing import Any

import tyro

from dlvm.experiments.options.grammar import check_words, grammar_of
from dlvm.experiments.options.guides import guide_named
from dlvm.experiments.options.jobs import check_jobs
from dlvm.experiments.options.repeated import beside, defaults, shown
from dlvm.inference import Baked, NoCompiler, Refused
from dlvm.inference.checkpoints.folder import CheckpointFailed

LEAST = {
    # sizes
    "z_dim": 1, "bits": 1, "toy_dim": 1, "hidden": 1, "encoder": 1, "sizes": 1, "iaf_depth": 1, "iaf_width": 1,
    "components": 1, "gaussians": 1,
    "channels": 1, "gated": 1, "receptive_field": 0, "near": 0,
    # samples
    "num_particles": 1, "groups": 1, "intervals": 1, "valid_particles": 1, "eval_particles": 1, "four_particles": 1,
    "chains": 2, "num_chains": 2, "leaps": 1,
    # data
    "batch_size": 1, "eval_data": 1, "num_data": 2, "view_data": 2, "toy_data": 2,
    "train_data": 1, "pool": 1, "dreams": 20, "unlearn_epochs": 1,
    # labels
    "labels": 0, "labels_seed": 0, "label_weight": 0,
    # sequences
    "trained_steps": 1, "guide_epochs": 1, "num_sequences": 2, "hours": 2, "state": 1, "iterations": 1, "ahead": 1,
    "num_draws": 2, "width": 1, "truncate": 1,
    # mixtures
    "floor": 0,
    # sentences
    "cycles": 1, "free_nats": 0, "free_bits": 0, "free_groups": 1,
    # how long
    "epochs": 1, "baseline_epochs": 0, "patience": 1, "warm_up": 0, "steps": 1, "four_steps": 1, "looks": 1, "seeds": 1,
    "e_steps": 1, "joint_seeds": 1, "frozen_epochs": 1,
    "checkpoint_every": 1, "reference": 1, "perturbation": 0, "order": 1,
}  # fmt: skip
POSITIVE = (
    "lr", "lr_decay", "phi_lr", "clip_norm", "skip_norm", "scale", "seconds", "betas", "temperature", "temperatures",
    "time_step",
)  # fmt: skip
BETWEEN = {
    "beta": (0, 1),
    "sleep": (0, 1),
    "hidden_share": (0, 1),
    "labelled_share": (0, 0.99),
    "resample_below": (0, 1),
    "alpha": (-math.inf, 1),
    "word_dropout": (0, 0.99),
    "seed": (0, 2**32 - 2),
    "threads": (1, 1024),
    "lr_decay": (0, 10),
}
EVERYWHERE = (
    "Beside these options: --config FILE takes the settings of a run's config.json, which other options change; "
    "--print-config shows them and ends; --quiet prints nothing but errors."
)
DIFFERENT = ("guides", "holes", "priors", "rules", "subjects", "ways")
SOME = ("iaf_width", "sizes")
LARGEST = 2**62  # of integers


def start(main: Callable, config: type, name: str) -> None:
    """Parses the command line into a config and calls main; a user's mistake, or an engine that cannot
    run what it was asked to, ends in one line, not in a traceback.

    The process ends with 0 where all was done, 1 after a mistake or a run that failed, 2 where a value is none that an
    option takes, and 130 after Ctrl-C.

    Args:
        main: called with the config.
        config: a dataclass whose fields are the options.
        name: of the script's module.
    """
    try:
        said = beside(sys.argv[1:])
        config_asked = parsed(config, said.rest, f"python -m dlvm.experiments.{name}", said.settings)
        if said.shown:
            print(shown(config_asked))
        elif said.quiet:
            silently(main, config_asked)
        else:
            main(config_asked)
    except (ValueError, OSError, ArithmeticError, CheckpointFailed, Refused, NoCompiler, Baked) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        print(f"interrupted; {str(error) or 'what was done is in the folder of the run'}", file=sys.stderr)
        raise SystemExit(130) from None


def silently(main: Callable, config: Any) -> None:
    """Runs a script without its prints; errors are told all the same, and what it writes to its folder is as ever."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        main(config)


def parsed(config: type, args: Sequence[str], prog: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A config by a command line; where a model has options of its own, by that which it asks for.

    Args:
        config: a dataclass whose fields are the options.
        args: what was typed after the script's name.
        prog: that name, for --help.
        settings: {option: value} that hold where the command line says nothing else.

    Raises:
        ValueError: a word begins with -- that is no option; with the nearest that is one.
        SystemExit: after --help, and after a value that is none.
    """
    grammar = grammar_of(config, args)
    check_words(grammar, args)
    usual = defaults(grammar, settings, args)
    default = {} if usual is None else {"default": usual}
    text = f"{config.__doc__}\n\n{EVERYWHERE}"
    return grammar.back(tyro.cli(grammar.kind, prog=prog, args=list(args), description=text, **default))


def check_options(config: Any) -> None:
    """Refuses the first option that no run can be made with; what a script asks of its own comes after.

    Args:
        config: of a script, a dataclass; options that are None are let pass, and of several numbers each is looked at.

    Raises:
        ValueError: with the option, what it must be, and what it is.

    Example:
        >>> from dlvm.experiments.train import Config
        >>> check_options(Config.of(hidden=(200, 0)))
        Traceback (most recent call last):
        ValueError: hidden must be at least 1, got 0; change --hidden
    """
    names = [field.name for field in fields(config)]
    for part in (getattr(config, name) for name in names):
        if is_dataclass(part):  # the options of a model
            check_options(part)
    for option in sorted({"guide", "guides"} & set(names)):
        words = getattr(config, option)
        for word in (words,) if isinstance(words, str) else words:
            guide_named(word, option)
    for name, value in numbers(config, names):
        remedy = f"got {value}; change --{name.replace('_', '-')}"
        if not abs(value) < (LARGEST if isinstance(value, int) else math.inf):
            raise ValueError(f"{name} must be finite, {remedy}")
        low, high = BETWEEN.get(name, (value, value))
        if not low <= value <= high:
            limits = f"between {low} and {high}" if math.isfinite(low) else f"at most {high}"
            raise ValueError(f"{name} must be {limits}, {remedy}")
        if value < LEAST.get(name, value):
            raise ValueError(f"{name} must be at least {LEAST[name]}, {remedy}")
        if name in POSITIVE and not value > 0:
            raise ValueError(f"{name} must be positive, {remedy}")
    check_different(config, *(set(names) & set(DIFFERENT)))
    for name in set(names) & set(SOME):
        if not getattr(config, name):
            raise ValueError(f"{name} must hold at least one number, got none; change --{name.replace('_', '-')}")
    if "jobs" in names:
        check_jobs(config.jobs, config.backend, config.cluster)


def check_different(config: object, *names: str) -> None:
    """Refuses to be asked for nothing, or for the same thing twice.

    Raises:
        ValueError: with the option, what it must be, and what it is.
    """
    for name in names:
        if not (chosen := getattr(config, name)) or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"{name} must be different words, at least one, got {chosen}; leave it out for the default"
            )


def check_least(config: object, **least: int) -> None:
    """Refuses numbers below what this script needs.

    Raises:
        ValueError: with the option, what it must be, and what it is.
    """
    for name, smallest in least.items():
        if (value := getattr(config, name)) < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {value}")


def numbers(config: object, names: list[str]) -> Iterator[tuple[str, float]]:
    """Every number of the options, by the option's name."""
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int | float) and not isinstance(one, bool):
                yield name, one
