"""Which arguments of a batch have a row for each datum: told by what programs make of some rows, and of one alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import combinations, islice
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from dlvm.distributions.data_plates import PickedRows
from dlvm.inference.console import say
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import undeclared
from dlvm.inference.programs.plates import common_plates, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.rows import Axes, batch_size, by_length, rows_of, split, width_of

Traces = tuple[poutine.Trace, poutine.Trace]
FEWEST, MOST, NUMBERS = 3, 32, 4096  # rows that are weighed together, of which the last is weighed alone
MOST_CHOICES = 16
MODEL_TOLERANCE = 1e-4  # single precision, summed over a datum's numbers
GUIDE_TOLERANCE = 1e-2  # a flow is inverted at the draws


def rowed(pair: Pair, args: tuple) -> Axes | None:
    """The axis along which each argument has its data, None if it has none; None where a batch cannot be cut.

    Arguments as long as the first are taken to have rows, unless a datum then weighs otherwise alone than among others,
    and does not where one of them stays whole: a table that all data share. A batch cannot be cut where a datum weighs
    otherwise in any case: by a guide with a parameter for each datum, data along another axis, data that the programs
    subsample by themselves, a net that normalises over the batch. What is said of arguments, see ``described``, is no
    matter of lengths, and tried as it is.

    Costs two runs of both programs on 3 to 32 rows where nothing is amiss, once for a pair and calls that look alike;
    what data of rows that lie farther apart have to do with each other is not seen.

    Raises:
        ValueError: as ``batch_size``, or a datum weighs otherwise alone as it is said, and does not as it is told.
    """
    if batch_size(pair, args) == 1:
        return next(_choices(pair, args))
    if len(pair.said.plates) > 1 and not pair.axes:  # a row holds several data
        return None
    return pair.recall(_rowed, args, {})


def number_of_rows(pair: Pair, args: tuple) -> int:
    """How many data a batch has: the rows of its first argument, or of the programs' plate where it cannot be cut."""
    if rowed(pair, args) is not None:
        return batch_size(pair, args)
    try:
        with untouched(), torch.no_grad(), poutine.block(), pair.evaluating():
            frames = common_plates(sample_sites(*pair.traces(args, {})))
    except FAILURES:  # what is done with the batch will say what is wrong
        return batch_size(pair, args)
    return math.prod(frame.size for frame in frames) if frames else batch_size(pair, args)


def picks_rows(pair: Pair, args: tuple) -> bool:
    """Whether a batch says which rows of a larger plate it is of, by ``subsample=``; costs one run of both programs."""
    having = rowed(pair, args)
    some = args if having is None else rows_of(args, slice(0, FEWEST), having)
    with untouched(), torch.no_grad(), poutine.block(), pair.evaluating(), pyro.validation_enabled(False):
        with PickedRows() as picked, suppress(*FAILURES):  # what is done with the batch will say what is wrong
            for program in pair.programs:
                program(*some)
    return bool(picked.names)


def parts(pair: Pair, args: tuple, rows: int) -> Iterator[tuple]:
    """A batch's arguments, a few data at a time; all at once where it cannot be cut."""
    having = rowed(pair, args) if batch_size(pair, args) > rows else None
    if having is None:
        yield args
        return
    yield from split(args, rows, having)


def _rowed(pair: Pair, args: tuple, kwargs: dict) -> Axes | None:
    with untouched(), torch.no_grad(), poutine.block(), pair.evaluating(), pyro.validation_enabled(False):
        if any(guide.prototype_trace is None for guide in _automatic(pair)):
            _run(pair, args)  # its parameters are made at its first run
        for _ in range(2):
            with undeclared(*pair.owners.values()) as forgotten:
                found = next((having for having in _choices(pair, args) if _same_alone(pair, args, having)), None)
            if not forgotten:
                break
            _run(pair, args)  # declares them for the whole batch
        if found is None and pair.said.axes:
            _check_told(pair, args)
            say(
                "described: data cannot be cut as it is said, nor otherwise, since a datum weighs otherwise alone than "
                "among others; batches stay whole"
            )
        return found


def _check_told(pair: Pair, args: tuple) -> None:
    """Raises ValueError where data cannot be cut as it is said, and can as it is told without."""
    for having in _choices(untold := pair.unsaid(), args):
        if _same_alone(untold, args, having):
            names = list(signature_of(pair.model).parameters)
            told = {name: axis for name, axis in zip(names, having, strict=False) if axis is not None}
            raise ValueError(
                f"shared and per_datum are said of the model by described(...), {dict(pair.said.axes)}; a datum then "
                "weighs otherwise alone than among others, or the programs fail, and does not with "
                f"per_datum={told} and the others shared: say this, or nothing"
            )


def _run(pair: Pair, args: tuple) -> None:
    with suppress(*FAILURES):  # what is done with the batch will say what is wrong
        pair.traces(args, {})


def _automatic(pair: Pair) -> list[AutoGuide]:
    """Pyro's guides that have parameters of a shape found at their first run."""
    parts = (part for root in pair.roots.values() for part in root.modules())
    return [part for part in parts if isinstance(part, AutoGuide)]


def _choices(pair: Pair, args: tuple) -> Iterator[Axes]:
    """What may have rows: all that is as long as the first argument; without one of the others; without two.

    Arguments of which it is said have rows as it is said.
    """
    said = pair.axes
    axes = by_length(args, pair)
    others = [i for i, axis in enumerate(axes) if axis is not None and i not in said]
    if not any(axes[i] is not None for i in said if i < len(axes)):
        others = others[1:]  # some argument has rows
    left_out = (set(some) for number in range(len(others) + 1) for some in combinations(others, number))
    for some in islice(left_out, MOST_CHOICES):
        yield tuple(None if i in some else axis for i, axis in enumerate(axes))


def _same_alone(pair: Pair, args: tuple, having: Axes) -> bool:
    """Whether the last of some rows weighs alone what it weighs among them.

    Programs that weigh it otherwise at every run, by noise of their own, cannot be told, and pass; so do those without
    a plate around all sites, whose data cannot be told apart however many are passed.
    """
    count = batch_size(pair, args)
    number = min(max(FEWEST, min(MOST, NUMBERS // width_of(args, pair))), count)
    some = rows_of(args, slice(count - number, count), having)
    last = rows_of(some, slice(number - 1, number), having)
    try:
        among = pair.traces(some, {})
        if not common_plates(sample_sites(*among)):
            _again(pair, last, among, ())
            for trace in pair.traces(rows_of(some, slice(0, max(1, number - 1)), having), {}):
                trace.compute_log_prob()  # a guide that has one latent for a whole batch fits no other number of rows
            return True
        frames = [frame for frame in common_plates(sample_sites(*among)) if frame.size == number]
        alone = _again(pair, last, among, frames)
        sizes = {frame.name: frame.size for frame in common_plates(sample_sites(*alone))}
        (frame,) = (frame for frame in frames if sizes.get(frame.name) == 1)
        found = _weights(alone, frame)
        if _alike(_weights(among, frame), found):
            return True
        return not _alike(_weights(_again(pair, last, among, frames), frame), found)
    except FAILURES:  # on the whole batch the programs will say what is wrong
        return False


def _again(pair: Pair, args: tuple, among: Traces, frames: Sequence) -> Traces:
    """Traces of both programs on the last row, with what was drawn for it in these plates."""
    drawn, modelled = (prune_subsample_sites(_last(trace, frames)) for trace in among)
    guide_trace = poutine.trace(poutine.replay(pair.guide, trace=drawn)).get_trace(*args)
    entering = guide_trace.copy()
    for site in sample_sites(modelled):
        if not site["is_observed"] and site["name"] not in entering:  # the model may stand alone
            entering.nodes[site["name"]] = cast(Any, site)
    return guide_trace, poutine.trace(poutine.replay(pair.model, trace=entering)).get_trace(*args)


def _last(trace: poutine.Trace, frames: Sequence) -> poutine.Trace:
    """The trace with the values of the last row alone in these plates."""
    sizes, single = {frame.name: frame.size for frame in frames}, trace.copy()
    for site in sample_sites(trace):
        value = site["value"]
        for frame in (f for f in site["cond_indep_stack"] if f.name in sizes):
            at = value.dim() - site["fn"].event_dim + frame.dim
            if at >= 0 and value.shape[at] == sizes[frame.name]:
                value = value.narrow(at, sizes[frame.name] - 1, 1)
        single.nodes[site["name"]] = {**site, "value": value}
    return single


def _weights(traces: Traces, frame: Any) -> list[Tensor | None]:
    """log p(x, z) and log q(z | x) of the last row in a plate; None for that of a flow without an inverse."""
    guide_sites, model_sites = map(sample_sites, traces)
    log_p = _of_last([site["fn"].log_prob(site["value"]) for site in model_sites], frame)
    try:
        return [log_p, _of_last([site["fn"].log_prob(site["value"]) for site in guide_sites], frame)]
    except (KeyError, NotImplementedError):
        return [log_p, None]


def _of_last(densities: list[Tensor], frame: Any) -> Tensor:
    rows = [each.select(frame.dim, -1) if each.dim() >= -frame.dim else each for each in densities]
    return sum((row.double().sum() for row in rows), torch.zeros((), dtype=torch.float64))


def _alike(found: list[Tensor | None], other: list[Tensor | None]) -> bool:
    return all(
        a is None or b is None or torch.allclose(a, b, tolerance, tolerance, equal_nan=True)
        for a, b, tolerance in zip(found, other, (MODEL_TOLERANCE, GUIDE_TOLERANCE), strict=True)
    )
