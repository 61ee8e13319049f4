"""Draws of q(z | x) with their importance weights, and what sites say under them: the posterior of the model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.bounds.importance import effective_sample_size, pareto_k
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.row_weights import RowWeights
from dlvm.inference.programs.beside import deciding
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import rows_of, width_of
from dlvm.inference.use.arrays import TRIED
from dlvm.inference.use.by_datum import by_datum, names_of

PARTICLES_AT_ONCE = 100
MOST_KEPT = 6_000_000  # numbers


class Weighed(NamedTuple):
    """All particles of some data.

    Attributes:
        log_w: log p(x, z) / q(z | x), shape (num_particles, rows), nats.
        seen: what was taken of each run of both programs, in their order.
    """

    log_w: Tensor
    seen: list[Any]

    @property
    def weights(self) -> Tensor:
        """Normalised over particles, double, shape (num_particles, rows)."""
        return self.log_w.double().softmax(0)

    @property
    def ess(self) -> Tensor:
        return effective_sample_size(self.log_w.double())

    @property
    def khat(self) -> Tensor:
        return pareto_k(self.log_w.double())


def weighed(
    pair: Pair,
    args: tuple,
    num_particles: int,
    take: Callable[[Particles], Any] = lambda found: None,
    observing: bool = True,
) -> Weighed:
    """Draws and weighs particles of some data, a hundred at a time.

    Args:
        pair: with its sites in one plate over data.
        args: of both programs.
        num_particles: K.
        take: what is to be kept of particles that were drawn together; of single ones where they cannot be.
        observing: whether a model that observes nothing is refused.
    """
    weigh, log_w, seen = RowWeights(pair, observing=observing), [], []
    for start in range(0, num_particles, PARTICLES_AT_ONCE):
        found = weigh(args, min(PARTICLES_AT_ONCE, num_particles - start))
        log_w.append(found.log_w)
        seen += [take(part) for part in (found.parts or (found,))]
    return Weighed(torch.cat(log_w), seen)


def rows_weighed_at_once(args: tuple, num_particles: int) -> int:
    """How many data so many particles are drawn for at a time, all of them kept."""
    return max(1, MOST_KEPT // width_of(args) // max(num_particles, PARTICLES_AT_ONCE))


def completed(pair: Pair, args: tuple, summed: bool = False, observing: bool = True) -> Pair:
    """The pair with a guide that draws what it leaves out from the model, given what it draws.

        q(z | x) p(y | z)

    Args:
        pair: which may lack latent sites in its guide.
        args: of both programs.
        summed: leave sites that the model marks to be summed out to that.
        observing: whether a model that observes nothing is refused.

    Raises:
        ValueError: the first rows cannot have come from the model's likelihood, or the guide is another model's.
    """
    having = rowed(pair, args)
    some = args if having is None else rows_of(args, TRIED, having)
    with untouched(0), torch.no_grad(), pair.evaluating():
        check_rows(pair, some, {}, observing)
        with in_words("the pair", some, {}):
            guide_trace, trace = pair.traces(some, {})
    latent = [s for s in sample_sites(trace) if not s["is_observed"] and s["name"] not in guide_trace.nodes]
    left = {s["name"] for s in latent if not summed or s["infer"].get("enumerate") != "parallel"}
    if not left:
        return pair
    if strange := [s for s in sample_sites(guide_trace) if not s["is_observed"] and s["name"] not in trace.nodes]:
        raise ValueError(
            f"guide draws {names_of(strange)}, which the model has not, and leaves out {names_of(latent)}; pass the "
            "guide that was trained with this model"
        )

    def hidden(msg: Any) -> bool:
        return msg["type"] == "sample" and msg["name"] not in left

    def guide(*args: Any, **kwargs: Any) -> None:
        drawn = poutine.trace(pair.guide).get_trace(*args, **kwargs)
        poutine.block(poutine.replay(pair.model, trace=drawn), hide_fn=hidden)(*args, **kwargs)

    return Pair(pair.model, guide)


def decides_nothing(pair: Pair, args: tuple, name: str) -> bool:
    """Whether no other site's density depends on what is drawn at this one, of the model, given all others.

    By where values come from, and by their densities after another draw, which of few classes may be the same one.
    """
    if name in deciding(pair, args, {}):
        return False
    with untouched(0), torch.no_grad():
        _, trace = pair.traces(args, {})
        kept = trace.copy()
        kept.remove_node(name)
        again = poutine.trace(poutine.replay(pair.model, trace=kept)).get_trace(*args)
    trace.compute_log_prob()
    again.compute_log_prob()
    others = (site for site in sample_sites(trace) if site["name"] != name)
    return all(torch.equal(site["log_prob"], cast(dict, again.nodes[site["name"]])["log_prob"]) for site in others)


def moments_of(found: Particles, site: dict) -> Iterator[Tensor]:
    """Mean and variance of a site's distribution, each (num_particles, rows, *event).

    Raises:
        NotImplementedError: it does not know them, or a class has none.
    """
    try:
        moments = site["fn"].mean, site["fn"].variance
    except AttributeError as error:
        raise NotImplementedError from error
    if moments[0].isnan().all():
        raise NotImplementedError
    return (by_datum(part, site, found.layout) for part in moments)


def mean_under(weights: Tensor, values: Tensor) -> Tensor:
    """(num_particles, rows) and (num_particles, rows, ...) -> (rows, ...), double."""
    return torch.einsum("kn,kn...->n...", weights, values.double())


def picks(weights: Tensor, number: int) -> Tensor:
    """Which particle each of so many draws is of, for each datum, by their weights; shape (number, rows)."""
    return torch.multinomial(weights.T, number, replacement=True).T


def of_picked(values: Tensor, picked: Tensor) -> Tensor:
    """Values of these particles, (num_particles, rows, ...) -> (number, rows, ...)."""
    return values[picked, torch.arange(values.shape[1], device=values.device)]
