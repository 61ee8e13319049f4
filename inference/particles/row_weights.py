"""Rows of data, weighed: each held against the likelihood first, with one weight per particle, and none that is NaN."""

from __future__ import annotations

from collections.abc import Callable

import pyro
from torch import Tensor

from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import check_particles, weigh
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import data_plates
from dlvm.inference.programs.rows import first_datum, split


class RowWeights:
    """Weighs some rows of data at a time.

    Args:
        pair: with its sites in one plate over data.
        finish: what is made of particles before their weights are looked at.
    """

    def __init__(self, pair: Pair, finish: Callable[[Particles], Particles] | None = None):
        self.pair, self.finish, self.parallel = pair, finish, False

    def __call__(self, args: tuple, num_particles: int) -> Particles:
        """Particles of some rows.

        Raises:
            ValueError: as ``check`` and ``weigh_rows``, a weight is NaN, or a datum has density 0 under all draws.
        """
        self.check(args, num_particles)
        with pyro.validation_enabled(False):  # the data were held against the likelihood just now
            found = weigh_rows(self.pair, args, num_particles)
            found = found if self.finish is None else self.finish(found)
        refuse_nan(found.log_w)
        refuse_impossible(found.log_likelihood)
        return found

    def check(self, args: tuple, num_particles: int, rows: int | None = None) -> None:
        """Holds data against the likelihood, ``rows`` at a time; once, proves on one datum that particles run together.

        Raises:
            ValueError: a datum lies outside the likelihood's support, or the pair cannot run particles in parallel.
        """
        for part in [args] if rows is None else split(args, rows):
            check_rows(self.pair, part, {})
        if num_particles > 1 and not self.parallel:
            check_particles(self.pair, first_datum(args), {})
            self.parallel = True


def weigh_rows(pair: Pair, args: tuple, num_particles: int) -> Particles:
    """Particles of some rows of data, which are taken as checked.

    Raises:
        ValueError: there is more or less than one weight per datum.
    """
    found = weigh(pair, args, {}, num_particles)
    got, rows = found.layout.batch, len(args[0])
    if len(data_plates(found.joint)) > len(found.layout.plates):
        raise ValueError(
            f"the pair gives {got} weights for {rows} data: the model has latent sites that all data share, outside "
            "the data plate, so that no datum has a weight of its own, whatever the size of batches; give these sites "
            "values, by poutine.condition inside poutine.block, and evaluate that model with the guide of the others"
        )
    if got != rows:
        raise ValueError(
            f"the pair gives {got} weights for {rows} data; each needs one of its own: put every site into the data "
            "plate, and leave the event dimensions of a datum to to_event"
        )
    return found


def refuse_nan(log_w: Tensor) -> None:
    """Raises ValueError where a datum has a weight that is NaN; log_w has shape (num_particles, rows)."""
    if (bad := log_w.isnan().any(0)).any():
        raise ValueError(
            f"{int(bad.sum())} data have NaN weights: the model's or the guide's parameters or the data are not "
            "finite; look at the run that produced them"
        )


def refuse_impossible(log_likelihood: Tensor) -> None:
    """Raises ValueError where log p(x | z) is -inf under all particles; shape (num_particles, rows)."""
    if (bad := log_likelihood.isneginf().all(0)).any():
        raise ValueError(
            f"{int(bad.sum())} data have log p(x | z) = -inf under all {len(log_likelihood)} particles, datum "
            f"{int(bad.nonzero()[0])} of these rows the first: values too far out for their dtype's range, or that the "
            "model cannot produce; scale or remove them, compute in double precision, or take more particles"
        )
