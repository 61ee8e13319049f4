"""Rows of data, weighed: each held against the likelihood first, with one weight per particle, and none that is NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyro
import torch
from torch import Tensor

from dlvm.distributions.masks import masks_of
from dlvm.inference.particles.latent_densities import check_counted_once, check_estimable
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.site_checks import check_masks
from dlvm.inference.particles.weights import in_parallel, weigh
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.data_sites import names_around
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import PARTICLES, common_plates, data_plates, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import parts, rowed
from dlvm.inference.programs.rows import batch_size, rows_of

ROWS_TO_TRY = 3  # more than one, or what mixes data goes unseen; and another number than the 2 particles


class RowWeights:
    """Weighs some rows of data at a time.

    Args:
        pair: with its sites in one plate over data.
        finish: what is made of particles before their weights are looked at.
        observing: whether a model that observes nothing is refused.
    """

    def __init__(self, pair: Pair, finish: Callable[[Particles], Particles] | None = None, observing: bool = True):
        self.pair, self.finish, self.observing = pair, finish, observing
        self.parallel: bool | None = None

    def __call__(self, args: tuple, num_particles: int) -> Particles:
        """Particles of some rows.

        Raises:
            ValueError: as ``check`` and ``weigh_rows``, a weight is NaN, or a datum has density 0 under all draws.
        """
        self.check(args, num_particles)
        whole = rowed(self.pair, args) is None
        with pyro.validation_enabled(False):  # the data were held against the likelihood just now
            found = weigh_rows(self.pair, args, num_particles, whole=whole)
            found = found if self.finish is None else self.finish(found)
        refuse_nan(found.log_w)
        refuse_impossible(found.log_likelihood)
        return found

    def check(self, args: tuple, num_particles: int, rows: int | None = None) -> None:
        """Holds data against the likelihood, ``rows`` at a time; once, tries on some how particles run.

        Raises:
            ValueError: a datum lies outside the likelihood's support, or the guide lacks a mask of the model.
        """
        for part in [args] if rows is None else parts(self.pair, args, rows):
            joint = sample_sites(check_rows(self.pair, part, {}, self.observing))
            if any(masks_of(site) for site in joint if not site["is_observed"]):
                self._check_masks(part)
        if num_particles > 1 and self.parallel is None:
            having = rowed(self.pair, args)
            tried = args if having is None else rows_of(args, slice(0, ROWS_TO_TRY), having)
            self.parallel = in_parallel(self.pair, tried, {}, again=True)

    def _check_masks(self, args: tuple) -> None:
        with untouched(), torch.no_grad():
            guide_trace, model_trace = self.pair.traces(args, {})
        check_masks(sample_sites(model_trace), sample_sites(guide_trace))


def weigh_rows(
    pair: Pair,
    args: tuple,
    num_particles: int,
    nesting: int | None = None,
    parallel: bool | None = None,
    whole: bool = False,
) -> Particles:
    """Particles of some rows of data, which are taken as checked; ``nesting`` and ``parallel`` as for ``weigh``.

    Where ``args`` are a ``whole`` batch, which cannot be cut, it has as many data as the plate around all sites.

    Raises:
        ValueError: as ``row_densities`` and ``check_estimable``.
    """
    found = row_densities(pair, args, num_particles, nesting, parallel, whole)
    check_estimable(found.joint, found.drawn)
    return found


def row_densities(
    pair: Pair,
    args: tuple,
    num_particles: int,
    nesting: int | None = None,
    parallel: bool | None = None,
    whole: bool = False,
) -> Particles:
    """As ``weigh_rows``, for a guide that may place values instead of drawing them: p(x, z) alone is looked at.

    Raises:
        ValueError: as ``check_counted_once``, or there is more or less than one density per datum.
    """
    with in_words("the pair", args, {}):
        found = weigh(pair, args, {}, num_particles, nesting=nesting, parallel=parallel)
    if found.layout.loops:
        raise ValueError(
            f"the pair runs through plate {'/'.join(found.layout.loops)!r} one datum at a time, with sites of its own "
            "for each, so that no site holds a batch; write with pyro.plate(...) around the sites, or use log_weights"
        )
    rows = batch_size(pair, args)
    refuse_subsample(found.layout.plates, rows)
    _check_number(found, rows, whole)
    check_counted_once(found.joint, found.layout.plates)
    return found


def _check_number(found: Particles, rows: int, whole: bool) -> None:
    """Raises ValueError where there is no weight for each datum."""
    plates, got = found.layout.plates, found.layout.batch
    if len(data_plates(found.joint)) > len(plates) or (got != rows and not (whole and plates)):
        raise ValueError(f"the pair gives {got} weights for {rows} data: {_why_not_one_each(found, rows)}")


def _why_not_one_each(found: Particles, rows: int) -> str:
    """What makes it so that there is no weight for each datum, and what to do."""
    around = {site["name"]: common_plates([site]) for site in found.joint if not site["is_observed"]}
    data = _names(common_plates([site for site in found.joint if site["is_observed"]]))
    modelled, drawn = _names(common_plates(found.joint)), _names(common_plates(found.drawn))
    if found.layout.plates:
        return (
            f"all sites lie in plates {_names(found.layout.plates)}, and the first argument has another number of "
            "rows; let one plate, of its length, hold the sites of a datum, declare other dimensions with to_event, or "
            "say by described(model, data_plate=name) which of the plates indexes data"
        )
    if all(names_around(site) <= {PARTICLES} for site in found.joint):
        return (
            "no site of the model lies in a plate, so that they are one datum together; write with "
            'pyro.plate("data", len(x)) around the sites of a datum, or use log_weights for the whole batch'
        )
    if modelled:
        return (
            f"the model's sites lie in plates {modelled} and the guide's in {drawn}, so that no datum has a weight of "
            "its own; give both programs the same plates, or use log_weights for the whole batch"
        )
    apart = {name: all(f.name not in data and f.size != rows for f in frames) for name, frames in around.items()}
    if shared := [name for name in around if apart[name]]:
        return (
            f"the model has latent sites {shared} that all data share, outside the data plate, so that no datum has a "
            "weight of its own, whatever the size of batches; give these sites values, by poutine.condition inside "
            "poutine.block, and evaluate that model with the guide of the others; of Bayesian(...), evaluate the pair "
            "posterior_predictive(model, guide)"
        )
    inside = {name: _names(frames) for name, frames in around.items()}
    return (
        f"latent sites lie in plates {inside} and the data in {data}, none of them around all, so that no datum has a "
        "weight of its own; put the sites of a datum into one plate, or, where plates cross, use log_weights for the "
        "whole batch"
    )


def _names(frames: Iterable) -> list[str]:
    return [frame.name for frame in frames]


def refuse_subsample(frames: Iterable, rows: int) -> None:
    """Raises ValueError where a plate around the data holds fewer than are passed."""
    for frame in frames:
        if frame.size < min(rows, frame.full_size or 0):
            raise ValueError(
                f"plate {frame.name!r} holds a subsample of {frame.size} out of {rows} data, drawn by the programs, so "
                "that the others have no weight; let them take all rows that they are called with "
                "(subsample_size=None), as fit and evaluate cut data into batches"
            )


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
