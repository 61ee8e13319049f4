"""What data say of any site of the model: its posterior predictive distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from dlvm.distributions.supports import is_periodic
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.use.arrays import Kind, taken_in
from dlvm.inference.use.by_datum import by_datum, classes_of, joined, names_of
from dlvm.inference.use.weighed import (
    Weighed,
    completed,
    decides_nothing,
    mean_under,
    moments_of,
    of_picked,
    picks,
    rows_weighed_at_once,
    weighed,
)
from dlvm.nets.arguments import count


@dataclass(frozen=True)
class Prediction:
    """What p(site | x) is; arrays of the kind that x came in, one row per datum.

    Attributes:
        mean, sd: shape (n, *event); None where the site has classes, which have neither.
        mean_se: Monte Carlo standard error of the mean.
        draws: shape (num_draws, n, *event).
        probabilities: of a discrete site the probability of each of its values in order, shape (n, ..., values); None
            of any other.
        values: these values, a tensor; None where there are no probabilities.
        ess, khat: shape (n,); how far the weights can be trusted, see ``LogPx``.
    """

    mean: Any
    sd: Any
    mean_se: Any
    draws: Any
    probabilities: Any
    values: Tensor | None
    ess: Any
    khat: Any


@torch.no_grad()
def predict(
    model: Callable, guide: Callable, x: Any, site: str, num_particles: int = 1000, num_draws: int = 1, seed: int = 0
) -> Prediction:
    """Finds the posterior predictive distribution of a site by self-normalised importance sampling.

        p(y | x) ~ sum_k w_k p(y | z_k),   w_k ~ p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    The model's own posterior, and not the guide's view of it: of a latent site, as a label that was not given, of one
    that the guide leaves out and the model draws, or of data anew, which is a reconstruction; where nothing is
    observed, as of p(y | x) without y, what the model says by itself. Modules are in evaluation mode meanwhile; the
    process's random state stays as it was.

    Returns:
        a ``Prediction``.

    Args:
        model, guide: Pyro programs of the same signature. What the guide leaves out is drawn from the model.
        x: one row per datum, a tensor, a NumPy array or a DataFrame; or a tuple of the model's arguments, with None for
            what is to be predicted.
        site: name of the site.
        num_particles: K per datum.
        num_draws: how many draws of the site are returned.
        seed: of the draws.

    Raises:
        TypeError: x is no such array.
        ValueError: there is no such site, there are no particles or draws, or as ``log_px``.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> predict(model, Diagonal(latents(model, x), MLP(3, 8)), x, "x").mean.shape
        torch.Size([5, 3])
    """
    count(num_particles=num_particles, num_draws=num_draws)
    if not isinstance(site, str):
        raise TypeError(f"site must be the name of a site of the model, got {type(site).__name__}; pass 'y'")
    pair = Pair(model, guide)
    args, kind = taken_in(pair, x)
    pair = completed(pair, args, observing=False)
    found: list[Prediction] = []

    def work(part: tuple, tick: Tick) -> None:
        with untouched():
            check_rows(pair, part, {}, observing=False)
        by_moments = _check_site(pair, part, site)
        seen = partial(seen_of, name=site, by_moments=by_moments)
        done = weighed(pair, part, num_particles, seen, observing=False)
        found.append(_predicted(done, num_draws))

    walk([args], pair, rows_weighed_at_once(args, num_particles), work, seed)
    return _joined(found, kind, site)


class Seen(NamedTuple):
    """A site for some particles of some data, each of shape (num_particles, rows, *event).

    Attributes:
        value: drawn.
        mean, variance: given the other sites, or of the value itself, (value, 0); None of a class.
        probabilities: of a discrete site, (num_particles, rows, ..., values); ``values`` are these.
        periodic: whether it is an angle.
    """

    value: Tensor
    mean: Tensor | None
    variance: Tensor | None
    probabilities: Tensor | None
    values: Tensor | None
    periodic: bool


def _check_site(pair: Pair, args: tuple, name: str) -> bool:
    """Whether a site is to be known by its distribution given all others, which no other site tells more of."""
    with untouched(0):
        _, trace = pair.traces(args, {})
    sites = {site["name"]: site for site in sample_sites(trace)}
    if name not in sites:
        raise ValueError(
            f"site must be one of {names_of(list(sites.values()))}, got {name!r}; pass the name of a site of the model"
        )
    return sites[name]["is_observed"] or decides_nothing(pair, args, name)


def seen_of(particles: Particles, name: str, by_moments: bool) -> Seen:
    """What particles say of a site of the model.

    Args:
        particles: drawn together.
        name: of the site.
        by_moments: take what its distribution is given the other sites, and a draw of that; not the value that it has.
    """
    site = next(site for site in particles.joint if site["name"] == name)
    fn, layout = site["fn"], particles.layout
    value = by_datum(fn.sample() if by_moments else site["value"], site, layout)
    probabilities, values = classes_of(site, layout)
    mean: Tensor | None = value
    variance: Tensor | None = torch.zeros_like(value)
    try:
        found = moments_of(particles, site)
    except NotImplementedError:
        if probabilities is not None:
            mean = variance = None
    else:
        if by_moments and not is_periodic(fn):
            mean, variance = found
    if probabilities is not None and not by_moments:
        probabilities = _one_hot(value, cast(Tensor, values)).expand_as(probabilities)
    return Seen(value, mean, variance, probabilities, values, is_periodic(fn))


def _one_hot(value: Tensor, values: Tensor) -> Tensor:
    """1 where a value is that of the last dimension; (..., *shape of one) -> (..., values)."""
    own = values.dim() - 1
    same = value.unsqueeze(value.dim() - own) == values
    return (same.flatten(same.dim() - own).all(-1) if own else same).double()


def _predicted(done: Weighed, num_draws: int) -> Prediction:
    """Of some data, in tensors."""
    weights, parts = done.weights, [cast(Seen, seen) for seen in done.seen]
    draws = of_picked(torch.cat([part.value for part in parts]), picks(weights, num_draws))
    shares = [part.probabilities for part in parts if part.probabilities is not None]
    share = mean_under(weights, torch.cat(shares)).to(torch.get_default_dtype()) if shares else None
    mean, sd, error = (None, None, None) if parts[0].mean is None else moments_under(weights, parts)
    return Prediction(mean, sd, error, draws, share, parts[0].values, done.ess, done.khat)


def moments_under(weights: Tensor, parts: list[Seen]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and the mean's error of a site under weights, each (rows, *event)."""
    means = torch.cat([cast(Tensor, part.mean) for part in parts])
    variances = torch.cat([cast(Tensor, part.variance) for part in parts])
    around = _round if parts[0].periodic else _straight
    dtype = means.dtype if means.is_floating_point() else torch.get_default_dtype()
    mean, sd, error = around(weights, means.double(), variances.double())
    return mean.to(dtype), sd.to(dtype), error.to(dtype)


def _straight(weights: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and the mean's error under weights."""
    loc = mean_under(weights, mean)
    away = (mean - loc).square()
    return loc, mean_under(weights, variance + away).sqrt(), mean_under(weights.square(), away).sqrt()


def _round(weights: Tensor, angles: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of angles: mean direction and circular standard deviation."""
    loc = torch.atan2(mean_under(weights, angles.sin()), mean_under(weights, angles.cos()))
    length = mean_under(weights, (angles - loc).cos())
    error = mean_under(weights.square(), (angles - loc).sin().square()).sqrt()
    return loc, (-2 * length.log()).clamp(min=0).sqrt(), error / length


def _joined(parts: list[Prediction], kind: Kind, site: str) -> Prediction:
    """Of all data, in their order, as the kind of array that x was."""

    words = ("mean", "sd", "mean_se", "probabilities", "ess", "khat")
    mean, sd, mean_se, probabilities, ess, khat = (joined(parts, kind, word, site) for word in words)
    draws = joined(parts, kind, "draws", dim=1)
    return Prediction(mean, sd, mean_se, draws, probabilities, parts[0].values, ess, khat)
