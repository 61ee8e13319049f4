"""From a method for a few data to an estimate for a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyro
import torch
from pyro import poutine
from torch import Tensor

from evidence.estimate import Estimate
from inference.observed import check_observed
from inference.ownership import own
from inference.walk import Tick, walk


@torch.no_grad()
def over(
    data: Tensor | Iterable,
    method: Callable[[tuple, Tick], Estimate],
    programs: Iterable[Callable],
    rows: int,
    seed: int = 0,
    progress: bool = False,
    text: str = "estimating log p(x)",
) -> Estimate:
    """Applies a method to a few data at a time, see ``walk``. After Ctrl-C the estimate is of the data that were done.

    Returns:
        the estimates joined.

    Args:
        data, rows, seed, progress, text: see ``walk``.
        method: (arguments of at most ``rows`` data, tick) -> estimate of these.
        programs: the model first.

    Raises:
        ValueError: there are no data, a batch is empty, or lies outside the likelihood's support.
    """
    programs = tuple(programs)
    found: list[Estimate] = []

    def work(part: tuple, tick: Tick) -> None:
        check_observed(poutine.trace(own(programs[0])).get_trace(*part))
        with pyro.validation_enabled(False):  # the data were held against the likelihood just now
            found.append(method(part, tick))

    walked = walk(data, programs, rows, work, seed, progress, text)
    return Estimate.joined(found, walked.seconds, walked.asked)
