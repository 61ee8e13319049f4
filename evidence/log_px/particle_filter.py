"""log p(x) of sequences by particle filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import Tensor

from dlvm.evidence.estimate import Estimate, over
from dlvm.inference.particles.filtering import run_filter
from dlvm.inference.particles.resampling import Resampling
from dlvm.inference.particles.stepwise import steps_of
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.pair import Pair, draws_nothing
from dlvm.nets.arguments import count

AT_ONCE = 100_000


def particle_filter(
    model: Callable,
    guide: Callable | None,
    data: Tensor | Iterable,
    num_particles: int = 100,
    num_filters: int = 32,
    resampling: Resampling | None = None,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Estimate:
    """Estimates log p(x) of sequences by particle filters, each an unbiased estimate of p(x).

        log p(x) ~ log 1/R sum_r p^_r(x),   p^_r = prod_t 1/K sum_k w_kt

    Several filters of a datum give the standard error, and say by their k-hat whether it can be trusted. A filter's
    noise grows with the length of a sequence, the weights of importance sampling as exp of it: use this for long ones.

    Returns:
        an ``Estimate``, side "lower"; its samples are the filters.

    Args:
        model: a program with steps, as LinearGaussianSSM: a method ``stepwise(x, lengths)``.
        guide: draws the particles, a chain over time; None for the model's own dynamics (bootstrap filter).
        data: a tensor x, shape (num_data, T, x_dim), or an iterable of batches (x, lengths).
        num_particles: K of each filter.
        num_filters: R of each datum; 25 or more for k-hat.
        resampling: when particles are drawn anew, and how; ``Resampling()`` unless told.
        rows: how many data at once; for 100 000 particles in all unless told.
        seed: of all that is drawn.
        progress: show a bar with the time left.

    Raises:
        ValueError: a number is below 1, there are no data, a program has no steps, or weights are NaN.
        TypeError: ``resampling`` is none.

    References:
        Feynman-Kac Formulae, Del Moral, 2004, section 7.4. A Tutorial on Particle Filtering and Smoothing: Fifteen
        Years Later, Doucet, Johansen, 2009.

    Example:
        >>> import torch
        >>> from dlvm.models import LinearGaussianSSM
        >>> model, x = LinearGaussianSSM(1, 2), torch.zeros(3, 5, 2)
        >>> found = particle_filter(model, None, x)
        >>> bool(((found.log_px - model.log_px(x)).abs() < 5 * found.log_px_se + 0.01).all())
        True
    """
    count(num_particles=num_particles, num_filters=num_filters)
    if rows is not None:
        count(rows=rows)
    if not isinstance(resampling, Resampling | None):
        raise TypeError(f"resampling must be a Resampling, as Resampling(below=0.5), got {resampling!r}")
    chosen = Resampling() if resampling is None else resampling
    pair = Pair(model, draws_nothing if guide is None else guide)

    def method(args: tuple, tick: Tick) -> Estimate:
        repeated = tuple(part.repeat(num_filters, *[1] * (part.dim() - 1)) for part in args)
        steps_of(pair, args, {})  # held against the programs on data that are each there once
        found = run_filter(*steps_of(pair, repeated, {}), num_particles, chosen)
        return Estimate.of_weights("", found.log_p.sum(1).view(num_filters, -1))

    at_once = max(1, AT_ONCE // (num_particles * num_filters))
    found = over(data, method, pair, at_once if rows is None else rows, seed, progress, "filtering")
    return replace(found, method="bootstrap filter" if guide is None else "particle filter")
