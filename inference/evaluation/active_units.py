"""Which latent dimensions a guide uses: counted by their posterior means, and told while training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from dlvm.distributions.masks import counting
from dlvm.inference.console import say
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import in_particles, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.rows import batch_size, by_length, rows_of

ACTIVE_VARIANCE = 0.01
PARTICLES_OF_A_LOOK = 64
MOST_DATA = 256
PATIENCE = 5
Active = dict[str, tuple[int, int]]


class Lookout:
    """Counts active units after every epoch, and says once what may wake those that stay asleep.

    A unit is a latent dimension; it is active if its posterior mean varies over data by more than 0.01. The guide alone
    is run, on at most 256 data. A pair whose guide cannot draw particles in parallel is not looked at.

    Args:
        pair: whose guide runs.
        args: of a batch of data.
    """

    def __init__(self, pair: Pair, args: tuple):
        self.pair, self.asleep = pair, 0
        self.args: tuple | None = None
        few = rows_of(args, slice(0, MOST_DATA), by_length(args, pair))
        with suppress(ValueError, RuntimeError, NotImplementedError, AttributeError), untouched(0):
            self._sites(few)
            self.args = few

    def look(self, warming: bool) -> Active:
        """{site: (active units, all units)}; empty where nothing can be said.

        Args:
            warming: whether a warm-up goes on, in which sleeping units are no news.
        """
        if self.args is None:
            return {}
        with untouched(0):
            found = {site["name"]: _active(where_counted(site)) for site in self._sites(self.args)}
        all_asleep = [name for name, (active, _) in found.items() if not active]
        self.asleep = self.asleep + 1 if all_asleep and not warming else 0
        if self.asleep == PATIENCE:
            say(
                f"every unit of {' and '.join(all_asleep)} sleeps for {PATIENCE} epochs: q(z | x) says nothing of x "
                "there; try a KL warm-up, tempered(objective, linear(0.0, 1.0, steps)), or free_bits(objective, 0.1)"
            )
        return found

    @torch.no_grad()
    def _sites(self, args: tuple) -> list[dict]:
        """The guide's sites whose values have shape (particles, data, *event)."""
        with self.pair.evaluating():
            nesting = self.pair.nesting(args, {})
            program = in_particles(self.pair.guide, PARTICLES_OF_A_LOOK, nesting)
            with pyro.validation_enabled(False):
                trace = poutine.trace(program).get_trace(*args)
        shape = PARTICLES_OF_A_LOOK, batch_size(self.pair, args)
        beside = ("is_auxiliary", "is_noise")  # noise within the cells of grey levels is no unit
        drawn = (site for site in sample_sites(trace) if not any(map(site["infer"].get, beside)))
        return [site for site in drawn if site["value"].shape[:2] == shape]


def where_counted(site: Mapping[str, Any]) -> Tensor:
    """The value of a traced site of particles, NaN where none of a datum counts, as behind a sequence's end."""
    value, counts = site["value"], counting(site)
    if counts is None or not value.is_floating_point():
        return value
    whole = counts.reshape(value.shape) if counts.numel() == value.numel() else counts.expand(value.shape)
    return torch.where(whole.any(0), value, torch.nan)


def units_of(found: Particles) -> dict[str, Tensor]:
    """The latents of particles, shape (particles, data, *event) each, NaN where none of a datum counts."""
    sites = {site["name"]: site for site in found.joint}
    return {
        name: where_counted({**sites[name], "value": value}) if name in sites else value
        for name, value in found.latents.items()
    }


def _active(values: Tensor) -> tuple[int, int]:
    """Active units among all, for values of shape (particles, data, *event)."""
    units = values.double().flatten(2) if values.dim() > 2 else values.double().unsqueeze(-1)
    return count_active(spread_of(units.mean(0), units.var(0) / len(units))), units.shape[-1]


def spread_of(means: Tensor, noise: Tensor) -> Tensor:
    """The variance over data of posterior means, less what their own noise adds to it.

    Returns:
        shape (units,); NaN of a unit that no datum has.

    Args:
        means: of each datum's particles, shape (num_data, units); NaN where a datum has no such unit.
        noise: the sampling variance of these means, of the same shape.
    """
    return (means - means.nanmean(0)).square().nanmean(0) - noise.nanmean(0)


def count_active(spread: Tensor) -> int:
    """Units whose posterior mean varies over data by more than 0.01.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, section 5.1, arXiv:1509.00519.
    """
    return int((spread > ACTIVE_VARIANCE).sum())


def of_the_same_data(parts: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(some units of a site, their means, the variances of these), for the data that have these units."""
    start = 0
    for stop in sorted({mean.shape[1] for mean, _ in parts}):
        having = [part for part in parts if part[0].shape[1] >= stop]
        means, noise = (
            torch.cat([each[:, start:stop] for each in kind]).double() for kind in zip(*having, strict=True)
        )
        yield slice(start, stop), means, noise
        start = stop
