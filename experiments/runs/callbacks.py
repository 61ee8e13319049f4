"""Who else is told how a run goes: TensorBoard, or a class of one's own for any other service."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dlvm.experiments.options.words import own_class, told

TOLD = ("begin", "epoch", "end")


class Callback(Protocol):
    """What is told of a run: its settings before the first epoch, each epoch's record, and the result.

    Example:
        >>> class Printing:
        ...     def begin(self, settings): print("a run of", settings["model"])
        ...     def epoch(self, record): print(record["epoch"], record["valid"])
        ...     def end(self, result): print(result["elbo"])
    """

    def begin(self, settings: Mapping[str, Any]) -> None:
        """The settings, as they stand in config.json."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch, as it stands in metrics.jsonl: bounds in nats per datum, seconds, learning rate."""

    def end(self, result: Mapping[str, Any]) -> None:
        """The result, as it stands in result.json."""


class TensorBoard:
    """Writes what are numbers as curves into the folder of a run.

    Args:
        folder: of the run.

    Raises:
        ValueError: the package is not there.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "tensorboard is not installed, which --tensorboard needs; pip install 'pyro-dlvm[tensorboard]'"
            ) from error
        self.make, self.folder = SummaryWriter, folder

    def begin(self, settings: Mapping[str, Any]) -> None:
        self.writer = self.make(str(self.folder / "tensorboard"))
        lines = [f"    {name}: {value}" for name, value in settings.items()]
        self.writer.add_text("settings", "\n".join(lines))

    def epoch(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if _is_number(value) and name != "epoch":
                self.writer.add_scalar(name, value, record["epoch"])

    def end(self, result: Mapping[str, Any]) -> None:
        for name, value in result.items():
            if _is_number(value):
                self.writer.add_scalar(f"result/{name}", value, 0)
        self.writer.close()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def callbacks_of(words: Sequence[str], tensorboard: bool, folder: Path) -> list[Callback]:
    """Makes those that a command line asks for.

    Args:
        words: ``my_module:MyCallback`` each, classes or functions that are called without arguments.
        tensorboard: whether to write for TensorBoard.
        folder: of the run.

    Raises:
        ValueError: a word names nothing, what it names fails, or is told nothing.
    """
    made: list[Callback] = [TensorBoard(folder)] if tensorboard else []
    for word in words:
        one = told(f"callback: {word}()", own_class("callback", word))
        if missing := [name for name in TOLD if not callable(getattr(one, name, None))]:
            raise ValueError(
                f"callback {word} must have begin(settings), epoch(record) and end(result), got none of the name "
                f"{missing[0]}; add it, if only with pass"
            )
        made.append(one)
    return made


@contextmanager
def attributed(word: str) -> Iterator[None]:
    """Inside, an error says that it is of somebody's callback."""
    try:
        yield
    except Exception as error:  # of code that is not ours anything may come
        raise ValueError(f"callback: {word} raised {type(error).__name__}: {error}") from error


class Callbacks:
    """All of them as one; what one of them raises ends the run, whose folder keeps what it had."""

    def __init__(self, each: Sequence[Callback]):
        self.each = each

    def begin(self, settings: Mapping[str, Any]) -> None:
        self._tell("begin", settings)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._tell("epoch", record)

    def end(self, result: Mapping[str, Any]) -> None:
        self._tell("end", result)

    def _tell(self, what: str, about: Mapping[str, Any]) -> None:
        for one in self.each:
            with attributed(f"{type(one).__name__}.{what}"):
                getattr(one, what)(about)
