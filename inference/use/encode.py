"""Codes: where q(z | x) lies and how wide it is, latent site by latent site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from pyro import poutine
from torch import Tensor

from dlvm.distributions.supports import is_periodic
from dlvm.inference.particles.layout import Layout
from dlvm.inference.particles.row_weights import refuse_subsample
from dlvm.inference.programs.batches import rows_in
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.row_arguments import number_of_rows
from dlvm.inference.programs.rows import width_of
from dlvm.inference.use.arrays import Kind, taken_in
from dlvm.inference.use.by_datum import by_datum, classes_of, has_data, joined, names_of, standing
from dlvm.nets.arguments import count, whole

NUMBERS_AT_ONCE = 800_000
MOST_ROWS = 2_000


@dataclass(frozen=True)
class Code:
    """What q(z | x) says of one latent site; arrays of the kind that x came in, one row per datum.

    Attributes:
        mean, sd: shape (n, *event); those of an angle are circular, and a class has neither (None).
        mean_se, sd_se: their Monte Carlo standard errors, 0 where they are exact.
        exact: whether mean and sd are those of the distribution itself, which no other draw goes into.
        draws: shape (num_draws, n, *event).
        probabilities: of a discrete site the probability of each of its values in order, shape (n, ..., values); None
            of any other.
        values: these values, a tensor; None where there are no probabilities.
    """

    mean: Any
    sd: Any
    mean_se: Any
    sd_se: Any
    exact: bool
    draws: Any
    probabilities: Any = None
    values: Tensor | None = None


@torch.no_grad()
def encode(
    model: Callable, guide: Callable, x: Any, num_particles: int = 100, num_draws: int = 1, seed: int = 0
) -> dict[str, Code]:
    """Finds mean, spread and draws of q(z | x) for every datum.

        E z ~ 1/K sum_k E[z | its parents' draws_k, x]

    Exact where the guide draws a site from a distribution that knows its moments and takes no other draw; else the mean
    over ``num_particles`` draws of what the site's parents are, or of the site itself, with its error.
    Modules are in evaluation mode meanwhile; the process's random state stays as it was.

    Returns:
        {latent site: ``Code``}, in the model's order. Sites that all data share are no codes and left out, and so are
        those that the guide does not draw: ``predict`` has them.

    Args:
        model, guide: Pyro programs of the same signature.
        x: one row per datum, a tensor, a NumPy array or a DataFrame; or a tuple of the model's arguments.
        num_particles: K per datum, at least 2.
        num_draws: how many of them are kept.
        seed: of the draws.

    Raises:
        TypeError: x is no such array.
        ValueError: there are less than 2 particles or fewer than draws, x is not as wide as the data the pair was made
            for, the programs take other arguments, or the guide draws no latent site of the model for each datum.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> z = encode(model, Diagonal(latents(model, x), MLP(3, 8)), x)["z"]
        >>> z.mean.shape, z.draws.shape, z.exact
        (torch.Size([5, 2]), torch.Size([1, 5, 2]), True)
    """
    whole(num_particles=num_particles)
    if num_particles < 2:
        raise ValueError(f"num_particles must be at least 2, got {num_particles}; one draw has no spread")
    count(num_draws=num_draws)
    if num_draws > num_particles:
        raise ValueError(f"num_draws must be at most num_particles={num_particles}, got {num_draws}; raise both")
    pair = Pair(model, guide)
    args, kind = taken_in(pair, x)
    parts: list[dict[str, Code]] = []

    def work(part: tuple, _: Tick) -> None:
        parts.append(_codes(pair, part, num_particles, num_draws))

    walk([args], pair, rows_at_once(args), work, seed)
    return {name: _joined([part[name] for part in parts], kind, name) for name in parts[0]}


def rows_at_once(args: tuple) -> int:
    """How many data a particle is run on at a time: by their width alone, so that draws are the same everywhere."""
    return min(MOST_ROWS, max(1, NUMBERS_AT_ONCE // width_of(args)))


def _codes(pair: Pair, args: tuple, num_particles: int, num_draws: int) -> dict[str, Code]:
    """The codes of some data, in tensors."""
    check_rows(pair, args, {})
    with in_words("the pair", args, {}):
        first, modelled = pair.traces(args, {})
    rows = number_of_rows(pair, args)
    layout = standing(sample_sites(first, modelled), rows)
    refuse_subsample(layout.plates, rows_in(args))
    drawn = {site["name"]: site for site in sample_sites(first) if not site["is_observed"]}
    latent = [site for site in sample_sites(modelled) if not site["is_observed"]]
    names = [s["name"] for s in latent if s["name"] in drawn and has_data(drawn[s["name"]], layout, rows)]
    if not names:
        raise ValueError(
            f"guide draws the sites {names_of(list(drawn.values()))}, none of which is a latent site that the model "
            f"has for each datum ({names_of(latent)}); pass the guide of this model, with its sites in the data plate"
        )
    found: dict[str, list[_Draw]] = {name: [] for name in names}

    def more(number: int) -> None:
        for _ in range(number):
            trace = poutine.trace(pair.guide).get_trace(*args) if found[names[0]] else first
            for name in names:
                found[name].append(_draw(cast(dict, trace.nodes[name]), layout))

    done = max(2, num_draws)
    more(done)
    if len(drawn) > 1 or not _same_in_all(found[names[0]]):
        more(num_particles - done)
    return {name: _code(draws, num_draws) for name, draws in found.items()}


class _Draw(NamedTuple):
    """One draw of a site for some data, and the moments of what it was drawn from; each of shape (rows, *event)."""

    value: Tensor
    mean: Tensor | None
    variance: Tensor | None
    probabilities: Tensor | None
    values: Tensor | None
    periodic: bool = False


def _draw(site: dict, layout: Layout) -> _Draw:
    """Of a site whose distribution does not know its moments, or whose mean goes round, the value alone."""
    fn, value = site["fn"], by_datum(site["value"], site, layout)[0]
    found, values = classes_of(site, layout)
    probabilities = None if found is None else found[0]
    try:
        moments = None if is_periodic(fn) else (fn.mean, fn.variance)
    except (NotImplementedError, AttributeError):
        moments = None
    if moments is None or (probabilities is not None and moments[0].isnan().all()):  # a class has no mean
        return _Draw(value, None, None, probabilities, values, is_periodic(fn))
    mean, variance = (by_datum(part, site, layout)[0] for part in moments)
    return _Draw(value, mean, variance, probabilities, values)


def _same_in_all(draws: list[_Draw]) -> bool:
    """Whether a site's distribution has the same moments, or probabilities, in every run."""
    known = [(d.probabilities,) if d.mean is None else (d.mean, d.variance) for d in draws]
    pairs = [(one, first) for each in known for one, first in zip(each, known[0], strict=True)]
    return all(one is not None and first is not None and torch.equal(one, first) for one, first in pairs)


def _code(draws: list[_Draw], num_draws: int) -> Code:
    """A site's code by all draws of it."""
    exact, first = _same_in_all(draws), draws[0]
    kept = torch.stack([draw.value for draw in draws[:num_draws]])
    probabilities = None
    if first.probabilities is not None:
        probabilities = torch.stack([cast(Tensor, draw.probabilities) for draw in draws]).mean(0)
    if first.mean is None and first.probabilities is not None:
        return Code(None, None, None, None, exact, kept, probabilities, first.values)
    found = _round(draws) if first.periodic else _moments(draws)
    mean, sd, mean_se, sd_se = (part.to(kept.dtype) for part in found)
    return Code(mean, sd, mean_se, sd_se, exact, kept, probabilities, first.values)


def _moments(draws: list[_Draw]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, standard deviation, and the errors of both: by conditional moments where there are some."""
    means = torch.stack([draw.value if draw.mean is None else draw.mean for draw in draws]).double()
    within = torch.stack([torch.zeros_like(d.value) if d.variance is None else d.variance for d in draws]).double()
    number, mean = len(draws), means.mean(0)
    between = means.var(0)
    sd = (within.mean(0) + between).sqrt()
    error = (within + (means - mean).square()).std(0) / number**0.5  # of the variance
    return mean, sd, (between / number).sqrt(), torch.where(error > 0, error / (2 * sd), 0.0)


def _round(draws: list[_Draw]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of angles: mean direction and circular standard deviation, sqrt(-2 log R)."""
    angles, number = torch.stack([draw.value for draw in draws]).double(), len(draws)
    mean = torch.atan2(angles.sin().mean(0), angles.cos().mean(0))
    length = (angles - mean).cos().mean(0)
    sd = (-2 * length.log()).clamp(min=0).sqrt()
    errors = ((angles - mean).sin().std(0), (angles - mean).cos().std(0) / sd)
    return mean, sd, *(error / length / number**0.5 for error in errors)


def _joined(parts: list[Code], kind: Kind, name: str) -> Code:
    """One site's codes of all data, in their order, as the kind of array that x was."""

    words = ("mean", "sd", "mean_se", "sd_se", "probabilities")
    mean, sd, mean_se, sd_se, probabilities = (joined(parts, kind, word, name) for word in words)
    exact = all(part.exact for part in parts)
    draws = joined(parts, kind, "draws", dim=1)
    return Code(mean, sd, mean_se, sd_se, exact, draws, probabilities, parts[0].values)
