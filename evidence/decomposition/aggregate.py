"""The aggregate posterior q(z), the mean of q(z | x) over data: draws of it, and its density there as a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pyro
import torch
from torch import Tensor

from evidence.draws import Draws, Unknown, drawn, prior_draws, rows_of
from evidence.pairs import log_mixture
from evidence.view_parts import Mean

Tick = Callable[[int], None]
PARTS = ("information", "marginal_kl", "total_correlation", "unit_kl")


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
        found = dict.fromkeys(PARTS)
        draws, whole = self.draws, self.components == num_data
        if self.mixture is not None:
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


def aggregated(model: Callable, guide: Callable, args: tuple, components: int, draws: int, tick: Tick) -> Aggregate:
    """Draws of q(z), spread evenly over its data, and the density of the whole mixture at each.

    Args:
        model, guide: the pair, run as they are.
        args: all data.
        components: how many of the data q(z) is made of, drawn at random.
        draws: of q(z), at least, where there are not more data than that.
        tick: told how many components have been done.
    """
    count, device = len(args[0]), args[0].device
    chosen = torch.randperm(count)[:components].to(device)
    repeats = max(1, math.ceil(draws / components))
    mixed = rows_of(args, chosen, count)
    source = rows_of(mixed, torch.arange(components, device=device)[:draws].repeat(repeats), components)
    with pyro.validation_enabled(False):
        try:
            found = drawn(model, guide, source)
            mixture, unit_mixture = log_mixture(guide, found, mixed, tick)
        except Unknown as error:
            return Aggregate(components, reason=str(error))
        prior = prior_draws(model, source, found.latents)
    return Aggregate(components, repeats, found, mixture, unit_mixture, prior=prior)
