"""The density of the aggregate posterior: q(z | x) of every draw under every datum, a few data at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pyro
import torch
from pyro import poutine
from torch import Tensor

from evidence.draws import Draws, Unknown
from evidence.factors import factors
from inference.plates import PARTICLES, sample_sites
from inference.walk import split

NUMBERS_AT_ONCE = 1_000_000


def log_mixture(
    guide: Callable, draws: Draws, args: tuple, tick: Callable[[int], None]
) -> tuple[Tensor, Tensor | None]:
    """log q(z) and log q(z_d) of each unit, for q the mean over data; shapes (draws,) and (draws, units), nats.

    Args:
        guide: run as it is.
        draws: where.
        args: the data.
        tick: told how many of them have been done.

    Raises:
        Unknown: the guide has no density at given values.
    """
    number, count = len(draws.log_q), len(args[0])
    width = sum(value[0].numel() for value in draws.values.values())
    pieces = torch.arange(number, device=draws.log_q.device).split(max(1, NUMBERS_AT_ONCE // max(1, width)))
    rows = max(1, NUMBERS_AT_ONCE // (max(1, width) * len(pieces[0])))
    joint: list[Tensor | None] = [None] * len(pieces)
    units: list[Tensor | None] = [None] * len(pieces)
    for part in split(args, rows):
        for i, piece in enumerate(pieces):
            log_q, each = _scored(guide, {n: v[piece] for n, v in draws.values.items()}, part, draws.apart)
            joint[i] = _added(joint[i], log_q)
            if each is not None:
                units[i] = _added(units[i], each)
        tick(len(part[0]))
    return torch.cat(joint) - math.log(count), torch.cat(units) - math.log(count) if draws.apart else None


def _scored(guide: Callable, values: Mapping[str, Tensor], args: tuple, apart: bool) -> tuple[Tensor, Tensor | None]:
    """log q(z | x) of all draws under all data, (draws, data), and of each unit, (draws, data, units)."""
    number, rows = len(next(iter(values.values()))), len(args[0])
    placed = {name: value.unsqueeze(1).expand(-1, rows, *value.shape[1:]) for name, value in values.items()}
    program = pyro.plate(PARTICLES, number, dim=-2)(poutine.condition(guide, data=placed))
    trace = poutine.trace(program).get_trace(*args)
    sites = sample_sites(trace)
    if apart:
        each = [factors(site["fn"]).log_prob(site["value"]).expand(number, rows, -1) for site in sites]
        joined = each[0] if len(each) == 1 else torch.cat(each, dim=-1)
        return joined.sum(-1), joined
    try:
        trace.compute_log_prob()
    except (KeyError, NotImplementedError) as error:
        raise Unknown(
            "since the guide has no density for values other than its own draws: its flow has no inverse"
        ) from error
    return sum(site["unscaled_log_prob"] for site in sites).expand(number, rows), None


def _added(total: Tensor | None, found: Tensor) -> Tensor:
    """log of a sum over data that goes on, (draws, data, *) -> (draws, *)."""
    more = found.logsumexp(1).double()
    return more if total is None else torch.logaddexp(total, more)
