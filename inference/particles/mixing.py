"""Whether rows of a batch weigh in a part of it what they weigh in the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from dlvm.inference.programs.data_sites import names_around
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import data_plates, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import GUIDE_TOLERANCE, MODEL_TOLERANCE

Traces = tuple[poutine.Trace, poutine.Trace]  # of the guide and of the model


class Call(NamedTuple):
    """Some rows of a batch, from ``start`` on, and what programs are called with to compute them."""

    args: tuple
    kwargs: dict
    start: int
    stop: int


def weighs_alike(pair: Pair, whole: Call, shares: Sequence[Call]) -> bool | None:
    """Whether each row has, among those of its share, the density that it has in the whole batch, at the same draws.

    What lies in no plate over data, as a latent site that all share, is to have the same density in every share. Costs
    two runs of both programs on as many rows as a batch has; modules are in evaluation mode meanwhile.

    Returns:
        None where it cannot be told, since a share does not run at the draws of the whole batch.
    """
    with untouched(), torch.no_grad(), poutine.block(), pair.evaluating(), pyro.validation_enabled(False):
        try:
            among = pair.traces(whole.args, whole.kwargs)
            frames = [frame for frame in data_plates(sample_sites(among[1])) if frame.size == whole.stop]
            if not frames:
                return None
            found = _densities(among, frames[0], whole)
            if _same(found, [_densities(_at(pair, call, among, frames[0]), frames[0], call) for call in shares]):
                return True
            again = _densities(_at(pair, whole, among, frames[0]), frames[0], whole)
            return False if _same(found, [again]) else None  # programs may have noise of their own at every run
        except FAILURES:
            return None


class _Densities(NamedTuple):
    """Of a program: of each row, shape (rows,), and of what lies in no plate over data."""

    rows: Tensor
    beside: Tensor


def _at(pair: Pair, call: Call, among: Traces, frame: Any) -> Traces:
    """Traces of both programs on some rows, with what was drawn for them among all."""
    drawn, modelled = (prune_subsample_sites(_cut(trace, call, frame)) for trace in among)
    guide_trace = poutine.trace(poutine.replay(pair.guide, trace=drawn)).get_trace(*call.args, **call.kwargs)
    entering = guide_trace.copy()
    for site in sample_sites(modelled):
        if not site["is_observed"] and site["name"] not in entering:  # the model may stand alone
            entering.nodes[site["name"]] = cast(Any, site)
    return guide_trace, poutine.trace(poutine.replay(pair.model, trace=entering)).get_trace(*call.args, **call.kwargs)


def _cut(trace: poutine.Trace, call: Call, frame: Any) -> poutine.Trace:
    """The trace with the values of some rows alone."""
    cut = trace.copy()
    for site in sample_sites(trace):
        value = site["value"]
        at = value.dim() - site["fn"].event_dim + frame.dim
        if frame.name in names_around(site) and at >= 0 and value.shape[at] == frame.size:
            value = value.narrow(at, call.start, call.stop - call.start)
        cut.nodes[site["name"]] = {**site, "value": value}
    return cut


def _densities(traces: Traces, frame: Any, call: Call) -> list[_Densities | None]:
    """Of the model and of the guide; None for a flow without an inverse."""
    guide_sites, model_sites = map(sample_sites, traces)
    found = [_of_rows(model_sites, frame, call.stop - call.start)]
    try:
        return [*found, _of_rows(guide_sites, frame, call.stop - call.start)]
    except (KeyError, NotImplementedError):
        return [*found, None]


def _of_rows(sites: list[dict], frame: Any, rows: int) -> _Densities:
    each, beside = torch.zeros(rows, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for site in sites:
        log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"]).double().cpu()
        if frame.name in names_around(site):
            full = log_prob.expand(torch.broadcast_shapes(log_prob.shape, (rows, *[1] * (-frame.dim - 1))))
            each = each + full.movedim(frame.dim, 0).reshape(rows, -1).sum(1)
        else:
            beside = beside + log_prob.sum()
    return _Densities(each, beside)


def _same(whole: list[_Densities | None], shares: list[list[_Densities | None]]) -> bool:
    """Whether the rows of all shares are those of the whole batch, and what is beside them is the same in each."""
    for k, tolerance in enumerate((MODEL_TOLERANCE, GUIDE_TOLERANCE)):
        of_whole, parts = whole[k], [part for share in shares if (part := share[k]) is not None]
        if of_whole is None or len(parts) < len(shares):
            continue
        pairs = [(of_whole.rows, torch.cat([part.rows for part in parts]))]
        pairs += [(of_whole.beside, part.beside) for part in parts]
        if not all(torch.allclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in pairs):
            return False
    return True
