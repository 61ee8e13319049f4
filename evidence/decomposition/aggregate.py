"""The aggregate posterior q(z), the mean of q(z | x) over data: draws of it, and its density there as a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import pyro
import torch
from pyro import poutine
from torch import Tensor

from dlvm.evidence.decomposition.aggregate_draws import Draws, Factors, Unknown, drawn, factors, prior_draws
from dlvm.evidence.mean import Mean
from dlvm.inference.console import first_line
from dlvm.inference.particles.row_weights import ROWS_TO_TRY
from dlvm.inference.particles.weights import in_parallel
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.notes import spoken
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import in_particles, sample_sites
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import Axes, batch_size, by_length, rows_along, rows_of, split

PARTS = ("information", "marginal_kl", "total_correlation", "unit_kl")
NUMBERS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Aggregate:
    """Log-densities at draws of q(z), shape (draws,), nats; draws are the data's in turn, ``repeats`` times.

    Attributes:
        components: how many data q(z) is made of.
        repeats: draws per datum that has any.
        draws: with log q(z | x) of the datum that each came from, and log p(z).
        mixture, unit_mixture: log q(z), and log q(z_d), shape (draws, units).
        reason: why there is nothing of all this.
        prior: {site: as many draws of p(z)}, shape (draws, *event).
    """

    components: int
    repeats: int = 1
    draws: Draws | None = None
    mixture: Tensor | None = None
    unit_mixture: Tensor | None = None
    reason: str = ""
    prior: dict[str, Tensor] = field(default_factory=dict)

    def parts(self, num_data: int) -> dict:
        """What a ``Views`` has of it, by name."""
        left_out = dict.fromkeys(PARTS, self.reason)
        found: dict[str, Mean | None] = dict.fromkeys(PARTS)
        draws, whole = self.draws, self.components == num_data
        if draws is not None and self.mixture is not None:
            left_out = {}
            found["information"] = self._mean(draws.log_q - self.mixture, whole, ">=")
            if draws.log_p is None:
                left_out["marginal_kl"] = left_out["unit_kl"] = "since p(z) differs between data"
            else:
                found["marginal_kl"] = self._mean(self.mixture - draws.log_p, whole, "<=")
            if self.unit_mixture is None:
                left_out["total_correlation"] = left_out["unit_kl"] = (
                    "since the guide's dimensions are not all independent given x"
                )
            else:
                each = self.unit_mixture.sum(1)
                found["total_correlation"] = self._mean(self.mixture - each, whole, "~")
                if draws.log_p is not None and draws.factorised:
                    found["unit_kl"] = self._mean(each - draws.log_p, whole, "<=")
                else:
                    left_out.setdefault("unit_kl", "since the prior's dimensions are not all independent")
        return found | {
            "left_out": left_out,
            "components": self.components,
            "posterior_draws": {} if draws is None else draws.latents,
            "prior_draws": self.prior,
        }

    def _mean(self, values: Tensor, whole: bool, side: str) -> Mean:
        """Over draws; data count as fixed where each has several draws and is in the mixture, else as drawn too."""
        rows, error = values.unflatten(0, (self.repeats, -1)), math.nan
        if self.repeats > 1 and (whole or rows.shape[1] == 1):
            error = (rows.var(0).mean() / len(values)).sqrt().item()
        elif rows.shape[1] > 1:
            error = (rows.mean(0).var() / rows.shape[1]).sqrt().item()
        return Mean(values.mean().item(), error, "=" if whole else side)


def aggregated(pair: Pair, args: tuple, components: int, draws: int, tick: Callable[[int], None]) -> Aggregate:
    """Draws of q(z), spread evenly over its data, and the density of the whole mixture at each.

    Args:
        pair: whose programs run.
        args: all data, which can be cut into rows.
        components: how many of the data q(z) is made of, drawn at random.
        draws: of q(z), at least, where there are not more data than that.
        tick: told how many components have been done.
    """
    count, device = batch_size(pair, args), data_in(args).device
    chosen = torch.randperm(count)[:components].to(device)
    repeats = max(1, math.ceil(draws / components))
    having = rowed(pair, args) or by_length(args, pair)
    mixed = rows_of(args, chosen, having)
    source = rows_of(mixed, torch.arange(components, device=device)[:draws].repeat(repeats), having)
    with pyro.validation_enabled(False):
        try:
            found = drawn(pair, source, having)
            parallel = in_parallel(pair, rows_of(mixed, slice(0, ROWS_TO_TRY), having), {})
            mixture, unit_mixture = log_mixture(pair.guide, found, mixed, tick, having, parallel)
            prior = prior_draws(pair.model, source, found.latents, having)
        except Unknown as error:
            return Aggregate(components, reason=str(error))
        except FAILURES as error:
            if spoken(error):
                raise
            return Aggregate(components, reason=f"since a program fails on data in another order: {first_line(error)}")
    return Aggregate(components, repeats, found, mixture, unit_mixture, prior=prior)


def log_mixture(
    guide: Callable,
    draws: Draws,
    args: tuple,
    tick: Callable[[int], None],
    having: Axes | None = None,
    parallel: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """log q(z) and log q(z_d) of each unit, for q the mean over data; shapes (draws,) and (draws, units), nats.

    Args:
        guide: run as it is.
        draws: where.
        args: the data.
        tick: told how many of them have been done.
        having: the axis along which each of their arguments has its data, see ``rowed``.
        parallel: whether the guide takes draws as particles; one by one otherwise.

    Raises:
        Unknown: the guide has no density at given values.
    """
    having = by_length(args) if having is None else having
    number, count = len(draws.log_q), rows_along(args, having)
    width = sum(value[0].numel() for value in draws.values.values())
    pieces = torch.arange(number, device=draws.log_q.device).split(
        max(1, NUMBERS_AT_ONCE // max(1, width)) if parallel else 1
    )
    rows = max(1, NUMBERS_AT_ONCE // (max(1, width) * len(pieces[0])))
    joint: dict[int, Tensor] = {}
    units: dict[int, Tensor] = {}
    for part in split(args, rows, having):
        for i, piece in enumerate(pieces):
            log_q, each = _scored(
                guide, {n: v[piece] for n, v in draws.values.items()}, part, rows_along(part, having), draws.apart
            )
            joint[i] = _added(joint.get(i), log_q)
            if each is not None:
                units[i] = _added(units.get(i), each)
        tick(rows_along(part, having))
    log_q, each = torch.cat([*joint.values()]), torch.cat([*units.values()]) if draws.apart else None
    return log_q - math.log(count), None if each is None else each - math.log(count)


def _scored(
    guide: Callable, values: Mapping[str, Tensor], args: tuple, rows: int, apart: bool
) -> tuple[Tensor, Tensor | None]:
    """log q(z | x) of all draws under all data, (draws, data), and of each unit, (draws, data, units)."""
    number = len(next(iter(values.values())))
    placed = {name: value.unsqueeze(1).expand(-1, rows, *value.shape[1:]) for name, value in values.items()}
    if number == 1:
        placed = {name: value[0] for name, value in placed.items()}
    program = poutine.condition(guide, data=placed)
    trace = poutine.trace(in_particles(program, number, nesting=1) if number > 1 else program).get_trace(*args)
    sites = sample_sites(trace)
    if apart:
        known = (cast(Factors, factors(site["fn"])) for site in sites)  # apart from one another, all have some
        each = [f.log_prob(site["value"]).expand(number, rows, -1) for f, site in zip(known, sites, strict=True)]
        joined = each[0] if len(each) == 1 else torch.cat(each, dim=-1)
        return joined.sum(-1), joined
    try:
        trace.compute_log_prob()
    except (KeyError, NotImplementedError) as error:
        raise Unknown(
            "since the guide has no density for values other than its own draws: its flow has no inverse"
        ) from error
    first, *others = (site["unscaled_log_prob"] for site in sites)
    return sum(others, first).expand(number, rows), None


def _added(total: Tensor | None, found: Tensor) -> Tensor:
    """log of a sum over data that goes on, (draws, data, *) -> (draws, *)."""
    more = found.logsumexp(1).double()
    return more if total is None else torch.logaddexp(total, more)
