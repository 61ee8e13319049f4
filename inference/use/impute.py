"""Missing entries of data: their means, spread and draws given the entries that are there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.observing import Part
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.rows import width_of
from dlvm.inference.use.arrays import Kind, taken_in
from dlvm.inference.use.by_datum import joined
from dlvm.inference.use.predict import Seen, moments_under, seen_of
from dlvm.inference.use.reconstruct import assembled, observed_first
from dlvm.inference.use.weighed import (
    Weighed,
    completed,
    decides_nothing,
    of_picked,
    picks,
    rows_weighed_at_once,
    weighed,
)
from dlvm.nets.arguments import count

TEXT = "filling in"
EXACT_AT_ONCE = 1_000_000  # numbers
MISSING, SEEN = "_unobserved", "_observed"  # how pyro.sample(..., obs_mask=...) names its two sites


class Imputing(Protocol):
    """What a model has that knows p(x_missing | x_observed), as ``LinearGaussianSSM`` and ``HiddenMarkov`` do.

    ``imputed(*args, num_draws=1)`` is called as the model is, with NaN for what is missing: mean and variance of every
    entry given all that is there, each of the shape of x, and joint draws, shape (num_draws, *shape of x). What it says
    of entries that are there is not looked at.
    """

    def imputed(self, *args: Any, num_draws: int = 1) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True)
class Imputed:
    """Data with their missing entries filled in; arrays of the shape and kind that x came in.

    Attributes:
        mean: of p(x_missing | x_observed) where an entry was missing, the entry itself where it was not; None where
            the likelihood knows no mean.
        sd: its standard deviation, 0 where the entry was there.
        mean_se: Monte Carlo standard error of the mean.
        draws: shape (num_draws, *shape of x); each a joint draw of all missing entries of a datum.
        ess, khat: shape (n,); how far the weights can be trusted, see ``LogPx``. Where the model knows the answer
            these are infinite and minus infinity, and ``mean_se`` is 0.
    """

    mean: Any
    sd: Any
    mean_se: Any
    draws: Any
    ess: Any
    khat: Any


@torch.no_grad()
def impute(
    model: Callable,
    guide: Callable,
    x: Any,
    num_particles: int = 1000,
    num_draws: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> Imputed:
    """Fills in the missing entries of data, NaN, by self-normalised importance sampling.

        E[x_m | x_o] ~ sum_k w_k E[x_m | z_k],   w_k ~ p(x_o, z_k) / q(z_k | x),   z_k ~ q(z | x)

    For entries missing at random; and for any others where the model draws what is missing at a latent site, named
    "x_unobserved" beside "x" (or beside "x_observed", as Pyro's ``obs_mask`` names the two): then its values are what
    is weighed, w_k ~ p(x_o, x_m, z, mask) / q(z, x_m | x), as of ``NotAtRandom``. The likelihood has to take NaN for
    an entry that counts nothing, and the encoder to take it for a number that it can work with. Modules are in
    evaluation mode meanwhile; the process's random state stays as it was.

    A model that knows p(x_m | x_o), see ``Imputing``, is asked for it instead, and nothing has an error.

    Returns:
        an ``Imputed``.

    Args:
        model, guide: Pyro programs of the same signature. What the guide leaves out is drawn from the model.
        x: one row per datum with NaN where an entry is missing, a tensor, a NumPy array or a DataFrame; or a tuple of
            the model's arguments, of which the first that has data is filled in.
        num_particles: K per datum.
        num_draws: how many draws are returned.
        seed: of the draws.
        progress: show a bar with the time left.

    Raises:
        TypeError: x is no such array.
        ValueError: there are no particles or draws, the likelihood takes no missing entries, or as ``log_px``.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets, Mattei, Frellsen, 2019,
        arXiv:1812.02633.
        not-MIWAE: Deep Generative Modelling with Missing not at Random Data, Ipsen, Mattei, Frellsen, 2021,
        arXiv:2006.12871.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> impute(model, Diagonal(latents(model, x), MLP(3, 8)), x).mean.equal(x)  # nothing is missing
        True
    """
    count(num_particles=num_particles, num_draws=num_draws)
    pair = Pair(model, guide)
    args, kind = taken_in(pair, x)
    found: list[Imputed] = []
    if isinstance(model, nn.Module) and callable(known := getattr(model, "imputed", None)):
        rows = max(1, EXACT_AT_ONCE // width_of(args) // num_draws)
        walk([args], pair, rows, lambda part, tick: found.append(_known(known, part, num_draws)), seed, progress, TEXT)
        return _joined(found, kind)
    pair = completed(pair, args)

    def work(part: tuple, tick: Tick) -> None:
        with untouched():
            check_rows(pair, part, {})
        places = observed_first(pair, part)
        sources = _sources(pair, part, places)
        done = weighed(pair, part, num_particles, lambda particles: _seen(particles, sources))
        found.append(_filled(done, part, places, num_draws))

    walk([args], pair, rows_weighed_at_once(args, num_particles), work, seed, progress, TEXT)
    return _joined(found, kind)


def _known(imputed: Callable, args: tuple, num_draws: int) -> Imputed:
    """Of some data by the model itself, without an error."""
    x = args[0]
    mean, variance, draws = imputed(*args, num_draws=num_draws)
    missing = x.isnan()
    sd, never = torch.where(missing, variance.sqrt(), 0), torch.full((len(x),), math.inf)
    return Imputed(
        torch.where(missing, mean, x), sd, torch.zeros_like(sd), torch.where(missing, draws, x), never, -never
    )


class Source(NamedTuple):
    """The site that says what is missing of another, and whether by its distribution, or by what it has drawn."""

    site: str
    by_moments: bool = True


def _sources(pair: Pair, args: tuple, places: dict[str, Part]) -> dict[str, Source]:
    """{observed site: where its missing entries come from}: itself, or the latent site that stands for them."""
    with untouched():
        _, trace = pair.traces(args, {})
    latent = {site["name"]: site for site in sample_sites(trace) if not site["is_observed"]}
    found = {}
    for name in places:
        other = name.removesuffix(SEEN) + MISSING
        if other not in latent:
            found[name] = Source(name)
            continue
        found[name] = Source(other, decides_nothing(pair, args, other))
    return found


def _seen(particles: Particles, sources: dict[str, Source]) -> dict[str, Seen]:
    return {name: seen_of(particles, source.site, source.by_moments) for name, source in sources.items()}


def _filled(done: Weighed, args: tuple, places: dict[str, Part], num_draws: int) -> Imputed:
    """Of some data, in tensors."""
    weights = done.weights
    x = args[next(iter(places.values())).position]
    picked = picks(weights, num_draws)
    drawn, moments = {}, {}
    for name in places:
        parts = [cast(Seen, seen[name]) for seen in done.seen]
        drawn[name] = of_picked(torch.cat([part.value for part in parts]), picked)
        if parts[0].mean is not None:
            moments[name] = moments_under(weights, parts)

    def placed(values: dict[str, Tensor]) -> Tensor:
        return torch.where(missing, assembled(args, places, values).to(x.dtype), x)

    missing = x.isnan() if x.is_floating_point() else torch.zeros_like(x, dtype=torch.bool)
    draws = torch.stack([placed({name: values[k] for name, values in drawn.items()}) for k in range(num_draws)])
    if len(moments) < len(places):
        return Imputed(None, None, None, draws, done.ess, done.khat)
    mean, sd, error = (placed({name: found[i] for name, found in moments.items()}) for i in range(3))
    nothing = torch.zeros_like(mean)
    sd, error = (torch.where(missing, part, nothing) for part in (sd, error))
    return Imputed(mean, sd, error, draws, done.ess, done.khat)


def _joined(parts: list[Imputed], kind: Kind) -> Imputed:
    """Of all data, in their order, as the kind of array that x was."""

    mean, sd, mean_se = (joined(parts, kind, word) for word in ("mean", "sd", "mean_se"))
    ess, khat = (joined(parts, kind, word, site=word) for word in ("ess", "khat"))
    return Imputed(mean, sd, mean_se, joined(parts, kind, "draws", dim=1), ess, khat)
