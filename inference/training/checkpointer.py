"""When a run is written down, and how it ends where somebody asks it to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dlvm.inference.checkpoints.folder import Checkpoints
from dlvm.inference.console import tell
from dlvm.inference.distributed.job import current
from dlvm.inference.training.run import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Keeper:
    """Writes checkpoints between steps, and ends a run there on Ctrl-C or SIGTERM.

    Args:
        checkpoints: where to; None to write nothing, and to leave signals as they are.
        every: steps between two checkpoints, beside those at the end of epochs; None for those alone.
    """

    def __init__(self, checkpoints: Checkpoints | None, every: int | None):
        self.checkpoints, self.every = checkpoints, every
        self.asked: int | None = None

    @property
    def last_good(self) -> str:
        """Where the newest checkpoint lies, in words that go on after an error; nothing where none is written."""
        return "" if self.checkpoints is None else f"; {self.checkpoints.last_good}"

    def after_step(self, run: Run) -> None:
        """To be called wherever the run can go on from.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: with 143, as the shell reports it, after a SIGTERM.
        """
        if (job := current()) is not None and job.all_asked:
            self.asked = job.asked or signal.SIGTERM
        if self.asked is not None or (self.every is not None and run.progress.steps % self.every == 0):
            self.save(run)

    def save(self, run: Run) -> None:
        """Writes a checkpoint if there is a folder for it, and ends the run if that was asked for."""
        if self.checkpoints is None:
            return
        run.save(self.checkpoints)
        if self.asked is not None:
            word = f"stopped in epoch {run.progress.epoch}{self.last_good}; run again to go on"
            if self.asked == signal.SIGINT:
                raise KeyboardInterrupt(word)
            tell(word)
            raise SystemExit(128 + self.asked)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, a first Ctrl-C or SIGTERM waits for the end of a step; a second one does what it always does.

        A signal that the process ignores, as one in the background may, stays ignored.
        """
        if self.checkpoints is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
        before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}

        def ask(number: int, frame: FrameType | None) -> None:
            if (job := current()) is None:
                self.asked = number
            else:  # all ranks end after the same step
                job.asked = number
            for each, handler in before.items():
                signal.signal(each, handler)

        try:
            for number in before:
                signal.signal(number, ask)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
