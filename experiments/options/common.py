"""Options that several scripts have, under the same word and with the same meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
import tyro
from torch import nn

from dlvm.experiments.data import Splits, load

T = TypeVar("T")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "softplus": nn.Softplus}
ActivationWord = Literal["relu", "tanh", "elu", "softplus"]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "rmsprop": partial(torch.optim.RMSprop, centered=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how many at a step."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, omniglot, cifar10, jsb, names, shakespeare, zinc, sky,
    air_quality, or the path of a .npz, .npy, .csv, .tsv, .parquet or .h5ad file, or of a folder of images."""
    key: str | None = None
    """Which array of an .npz file; otherwise its names say: images, train_images, labels, ..."""
    scale: float | None = None
    """Divide a file's numbers by this first; None is 255 for images of 8 bits."""
    label_column: str | None = None
    """Column of a table that says the class of each row."""
    index_column: str | None = None
    """Column of a table that names the rows."""
    columns: tuple[str, ...] | None = None
    """Columns of a table that are the data; all that have no other role unless told."""
    drop_columns: tuple[str, ...] | None = None
    """Columns of a table to leave out."""
    missing: tuple[str, ...] | None = None
    """What stands for an entry that is not there, such as: -200 NA; empty cells and NaN do as well then."""
    split_column: str | None = None
    """Column of a table that says train, valid or test."""
    sequence_column: str | None = None
    """Column of a table with a line for each step that says of which sequence it is."""
    time_column: str | None = None
    """Column that says when a step is: a number, or a date."""
    time_step: float | None = None
    """How far steps lie apart; those that no line is about are missing entries."""
    text_column: str | None = None
    """Column of text, whose cells are sequences of characters."""
    lines: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Each line of a text file is a sequence of characters."""
    pool: int = 1
    """Batches of sequences that are sorted together by length, so that they are padded less."""
    batch_size: int = 50
    """Data per step."""
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""

    def splits(self, **settings: Any) -> Splits:
        """The three parts; ``settings`` as in ``dlvm.experiments.data.load``."""
        beside = ("data", "pool")
        which = {field.name: getattr(self, field.name) for field in fields(DataOptions) if field.name not in beside}
        found = load(self.data, **which, **settings)
        if self.pool == 1:
            return found
        if "lengths" not in found.train.rows.names:
            raise ValueError(f"pool (--pool) is for sequences of several lengths, got {self.data}; leave it out")
        return found._replace(train=found.train.pooled(self.pool))


@dataclass(frozen=True)
class EvaluationOptions:
    """How much the evaluation of a trained pair may cost."""

    eval_particles: int = 1000
    """Importance samples per test datum."""
    eval_data: int | None = None
    """Evaluate on so many test data only."""


@dataclass(frozen=True)
class FolderOptions:
    """Where a run is written to."""

    out: Path = Path("runs")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder."""


class Tested(Protocol):
    """Options that name data, and how many of the test data to take."""

    @property
    def eval_data(self) -> int | None: ...

    def splits(self, **settings: Any) -> Splits: ...


def splits(config: Tested) -> Splits:
    """The data that a script's config names, of the test data no more than its ``eval_data``."""
    return config.splits().tested_on(config.eval_data)


def adam(lr: float) -> Callable:
    """parameters -> Adam, all of them in one kernel."""
    return partial(torch.optim.Adam, lr=lr, fused=True)


def taken(kind: type[T], settings: Mapping[str, Any]) -> T:
    """A dataclass of those settings that it has fields for; a field that is not among them has its default.

    Example:
        >>> taken(EvaluationOptions, {"eval_data": 20, "seed": 0})
        EvaluationOptions(eval_particles=1000, eval_data=20)
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass: typing has no word for one
    return kind(**{name: value for name, value in settings.items() if name in names})
