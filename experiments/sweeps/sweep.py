"""A comparison cell by cell: what is done is kept, what fails is reported, and what is missing can be done later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table
from dlvm.experiments.sweeps.cells import Cell, Done, Kept
from dlvm.experiments.sweeps.scheduler import outcomes
from dlvm.experiments.sweeps.workers import Workers
from dlvm.inference.checkpoints.lock import claim
from dlvm.inference.console import tell


class Sweep(NamedTuple):
    """What came of cells: those that are done, in the order asked for, and {title: error} of those that failed."""

    done: list[Done]
    failed: dict[str, str]

    @property
    def rows(self) -> list[dict]:
        return [done.record for done in self.done]

    @property
    def results(self) -> list[dict]:
        """The rows without what each noted on its way."""
        return [{name: value for name, value in row.items() if name != "history"} for row in self.rows]

    def tables(self) -> list[Table]:
        """What failed, for the report; none if nothing did."""
        caption = "Not among the results; the same command tries these again."
        return [Table(["failed", "error"], list(self.failed.items()), caption)] if self.failed else []

    def end(self, run: Run) -> None:
        """Ends the script with what failed, if something did.

        Raises:
            SystemExit: it did.
        """
        if self.failed:
            total = len(self.failed) + len(self.done)
            title, error = next(iter(self.failed.items()))
            raise SystemExit(
                f"{len(self.failed)} of {total} cells failed ({title}: {error}); the others are kept in {run.folder}, "
                "and the same command tries again what failed"
            )


def sweep(cells: Sequence[Cell], run: Run, workers: Workers, told: Callable[[dict], str]) -> Sweep:
    """Computes the cells that the run's folder does not hold yet.

    An exception in a cell ends that cell alone, and so does the death of its process. After Ctrl-C no worker goes on,
    and what is done stays.

    Args:
        cells: all different.
        run: its folder keeps them, and its metrics get the ``history`` of each record, for cells with facts.
        workers: how many at a time, and where.
        told: what a record says, for the line that reports it.

    Raises:
        ValueError: the workers cannot be had, see ``Workers.ready``.
        CheckpointFailed: a cell could not be written.
        BlockingIOError: another process sweeps in this folder.
    """
    claim(run, run.folder)
    kept, failed = Kept(run.folder), {}
    found = {cell.key: done for cell in cells if (done := kept.get(cell)) is not None}
    missing = [cell for cell in cells if cell.key not in found]
    if found:
        print(f"{len(found)} of {len(cells)} cells are there", flush=True)
    if outdated := kept.outdated(missing):
        changed = Counter(word for words in outdated.values() for word in words)
        reasons = ", ".join(f"other {word} ({count})" for word, count in changed.items())
        tell(f"{len(outdated)} finished cells in {kept.folder} are not taken, and computed anew: {reasons}")
    for cell in cells:
        if cell.key in found:
            log(run, cell, found[cell.key].record)
    try:
        with workers.ready(), closing(outcomes(missing, workers.jobs)) as ended:
            for cell, done in ended:
                log(run, cell, done.record)
                if "error" in done.record:
                    failed[cell.title] = done.record["error"]
                    print(f"{cell.title}: failed: {done.record['error']}", flush=True)
                    continue
                kept.put(cell, done)
                found[cell.key] = done
                print(f"[{len(found):2d}/{len(cells)}] {cell.title}: {told(done.record)}", flush=True)
    except KeyboardInterrupt:
        print(f"{len(found)} of {len(cells)} cells are done and kept; the same command goes on", flush=True)
        raise
    return Sweep([found[cell.key] for cell in cells if cell.key in found], failed)


def log(run: Run, cell: Cell, record: dict) -> None:
    """What a cell noted on its way, into metrics.jsonl."""
    if cell.facts:
        for entry in record.get("history", ()):
            run.log(**cell.facts, **entry)
