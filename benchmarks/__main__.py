"""``python -m benchmarks``: one command, one table of ratios."""

from __future__ import annotations

import sys

import torch
import tyro

from benchmarks.cases import RUN
from benchmarks.config import Config
from benchmarks.report import table, write
from benchmarks.results import Results
from dlvm.experiments.runs.report import print_table


def main(config: Config) -> Results:
    """Runs the sections and writes the report after each, so that what was measured outlives an interruption."""
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out must be a folder to write to, got {config.out} ({error}); change --out") from error
    torch.set_num_threads(config.threads)
    results = Results(judged=not config.quick)
    if config.quick:
        results.note(
            "Measured with --quick on tiny networks: the figures say nothing, and no target is set beside them."
        )
    for section in config.words("only"):
        print(f"measuring: {section}", file=sys.stderr, flush=True)
        RUN[section](config, results)
        write(results, config)
    return results


def start() -> None:
    """From the command line; a mistake ends in one line."""
    try:
        config = tyro.cli(Config, prog="python -m benchmarks")
        results = main(config)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the sections that were done are in the folder of the run") from None
    print_table(table(results))
    for note in results.notes:
        print(f"* {note}")
    print(f"written to {config.out / 'benchmarks.md'} and {config.out / 'benchmarks.json'}")


if __name__ == "__main__":
    start()
