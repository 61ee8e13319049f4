"""What surrounds a script's question: its options, its folder, its cells, an interrupt, its tables and its report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import pyro
import torch
from torch import nn

from dlvm.experiments.options.command_line import check_options
from dlvm.experiments.options.common import FolderOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.words import one_line
from dlvm.experiments.runs.folder import PAIRS, Run
from dlvm.experiments.runs.report import Table, print_table
from dlvm.experiments.runs.restore import keep
from dlvm.experiments.setups.options import settings_of
from dlvm.experiments.setups.pictures import Drawing
from dlvm.experiments.sweeps.cells import Cell, Done, filled
from dlvm.experiments.sweeps.sweep import Sweep, sweep
from dlvm.experiments.sweeps.workers import Workers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Options = TypeVar("Options", bound=FolderOptions | SweepOptions, covariant=True)
Modules = tuple[nn.Module, nn.Module]
Picture = tuple[str, "Figure", str]  # name, figure, caption


class Answer(NamedTuple):
    """What the cells of a comparison say of its question.

    Attributes:
        title: the question.
        intro: what was done, in paragraphs.
        tables: the results.
        said: the verdict.
        pictures: name, figure and caption of each, drawn one at a time.
        facts: what result.json is to hold beside runs and verdict.
    """

    title: str
    intro: str
    tables: list[Table]
    said: str
    pictures: Iterable[Picture] = ()
    facts: Mapping[str, Any] = {}


class Study(Generic[Options]):
    """One call of a script, from its options to its report.

    Making it looks at every option and starts the clock; ``open`` makes the folder, which a script leaves for when all
    that it has to refuse it has refused.

    Args:
        config: the script's options.

    Raises:
        ValueError: no run can be made with one of them, see ``check_options``.

    Attributes:
        run: the folder, once it is open.
    """

    run: Run

    def __init__(self, config: Options):
        self.config, self.began = config, time.perf_counter()
        torch.set_num_threads(1)
        check_options(config)

    def open(self, settings: Mapping[str, Any] | None = None) -> Run:
        """Makes the folder; that of a sweep which did not come to its end is gone on with.

        Args:
            settings: those that config.json is to hold in place of, or beside, the script's options.

        Raises:
            ValueError, TypeError: see ``Run``.
        """
        settings = settings_of(self.config) | dict(settings or {})
        goes_on = isinstance(self.config, SweepOptions)
        self.run = Run(self.config.out, settings, overwrite=self.config.overwrite, goes_on=goes_on)
        return self.run

    def sweep(self: Study[SweepOptions], cells: Sequence[Cell], told: Callable[[dict], str]) -> Sweep:
        """Computes what the folder does not hold yet of these cells; ``told`` is the line for a record."""
        return sweep(cells, self.run, Workers.of(self.config), told)

    def compare(
        self: Study[SweepOptions],
        cells: Sequence[Cell],
        told: Callable[[dict], str],
        answer: Callable[[list[Done]], Answer],
    ) -> list[dict]:
        """Makes the folder, computes the cells that are missing, writes what they say, and returns their records.

        Args:
            cells: all that are asked for.
            told: the line for a record.
            answer: of those that are done, at least one.

        Raises:
            SystemExit: at the end, if a cell failed; the others are reported.
            ValueError, TypeError: see ``open``.
        """
        run = self.open()
        grid = self.sweep(cells, told)
        run.result(runs=grid.results, failed=grid.failed)
        if not grid.done:
            grid.end(run)
        found = answer(grid.done)
        tables = [*found.tables, *grid.tables()]
        run.result(runs=grid.results, failed=grid.failed, verdict=found.said, **found.facts)
        self.show(tables)
        self.report(found.title, found.intro, tables, found.said, found.pictures)
        grid.end(run)
        return grid.rows

    @contextmanager
    def interruptible(self, found: Sized) -> Iterator[None]:
        """Inside, Ctrl-C ends the measuring alone, if there is something in ``found`` by then to report.

        What is put into the parameter store inside stays inside.

        Raises:
            KeyboardInterrupt: there is nothing.
        """
        try:
            with pyro.get_param_store().scope():
                yield
        except KeyboardInterrupt:
            print("interrupted: what is done is reported", flush=True)
            if not len(found):
                raise

    def keep(
        self, done: Iterable[Done], facts: Sequence[str], pairs: Iterable[Modules], x_dim: int, where: str = ""
    ) -> None:
        """Saves the pair of every finished cell below ``pairs/`` in the run's folder, for ``restore``.

        Args:
            done: what cells gave, with the state of their pair.
            facts: of their records, that tell one from another and name its folder.
            pairs: for each of them, one of this kind, made when its turn comes.
            x_dim: columns of the data.
            where: what else is to stand before the facts in the folders' names.
        """
        for one, pair in zip(done, pairs, strict=True):
            words = where + " ".join(f"{fact} {one.record[fact]}" for fact in facts)
            folder = self.run.folder / PAIRS / re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")
            folder.mkdir(parents=True, exist_ok=True)
            keep(folder, *filled(pair, one.tensors), x_dim)

    def show(self, tables: Iterable[Table]) -> None:
        """Prints tables."""
        for table in tables:
            print_table(table)

    def report(
        self, title: str, intro: str, tables: Sequence[Table], said: str, pictures: Iterable[Picture] = ()
    ) -> None:
        """Draws what has not been drawn yet, writes the report, and ends with its verdict and where it lies.

        Args:
            title: the question.
            intro: what was done, in paragraphs.
            tables: the results.
            said: the verdict.
            pictures: name, figure and caption of each, drawn one at a time.
        """
        with pyro.get_param_store().scope(), left_out("the pictures that follow"):
            for picture in pictures:
                self.run.figure(*picture)
        path = self.run.report(title, intro, tables, said)
        print(said)
        print(f"{time.perf_counter() - self.began:.0f} s; report: {path}")


def draw(run: Run, drawings: Iterable[Drawing]) -> None:
    """Saves every picture that can be made; of one that cannot, one line says why, since the work is done by then."""
    with pyro.get_param_store().scope(), left_out("the pictures that follow"):
        for name, made, caption in drawings:
            with left_out(f"picture {name}"):
                run.figure(name, made(), caption)


@contextmanager
def left_out(what: str) -> Iterator[None]:
    """Inside, an exception leaves this out, and says so."""
    try:
        yield
    except Exception as error:  # a picture is worth no result, and models of one's own may raise anything
        print(f"left out: {what}: {type(error).__name__}: {one_line(error)[:200]}", flush=True)
