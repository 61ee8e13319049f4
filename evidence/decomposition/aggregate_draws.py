"""Draws of the aggregate posterior q(z), of the prior beside them, and the factors of their densities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer.inspect import get_dependencies
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from dlvm.distributions.masks import masks_of
from dlvm.inference.particles.analytic_kl import closed_form
from dlvm.inference.particles.enumerated import Marginal
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import PARTICLES
from dlvm.inference.programs.rows import by_length, rows_along, rows_of, split

ROWS_AT_ONCE = 1000


class Unknown(Exception):
    """Why q(z) cannot be had, in words that go on from "not known"."""


class Draws(NamedTuple):
    """Draws of q(z), one per row of some data.

    Attributes:
        values: {site of the guide: (draws, *event)}, what a density is evaluated at.
        latents: {site of the model: (draws, *event)}.
        log_q: log q(z | x) of its own datum, shape (draws,), nats.
        log_p: log p(z), shape (draws,); None where that depends on the datum.
        apart: whether the guide draws all numbers independently given x.
        factorised: whether the prior does.
    """

    values: dict[str, Tensor]
    latents: dict[str, Tensor]
    log_q: Tensor
    log_p: Tensor | None
    apart: bool
    factorised: bool


def alone(site: dict) -> bool:
    """Whether a site has one value per datum: it lies in a plate over data on the right, and in no other."""
    frames = [f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
    return len(frames) == 1 and frames[0].dim == -1 and not masks_of(site)


def drawn(pair: Pair, source: tuple, having: Sequence[int | None] | None = None) -> Draws:
    """One draw per row of ``source``; ``having``: the axes along which arguments have data, see ``rowed``.

    Raises:
        Unknown: the guide's density at given values is not that of its latents.
    """
    parts = [_drawn(pair, args, having) for args in split(source, ROWS_AT_ONCE, having)]
    first, log_p = parts[0], [part.log_p for part in parts if part.log_p is not None]
    return Draws(
        {name: torch.cat([part.values[name] for part in parts]) for name in first.values},
        {name: torch.cat([part.latents[name] for part in parts]) for name in first.latents},
        torch.cat([part.log_q for part in parts]),
        torch.cat(log_p) if len(log_p) == len(parts) else None,
        first.apart,
        first.factorised,
    )


def _drawn(pair: Pair, args: tuple, having: Sequence[int | None] | None) -> Draws:
    found = weigh(pair, args, {})
    if not found.drawn:
        raise Unknown("since there is no latent site")
    for site in found.drawn:
        if not alone(site):
            raise Unknown(f"since the latent site {site['name']!r} is masked, or in other plates than that over data")
    auxiliary = [site["name"] for site in found.drawn if site["infer"].get("is_auxiliary")]
    placed = [site["name"] for site in found.drawn if isinstance(site["fn"], Delta)]
    if len(auxiliary) + len(placed) < len(found.drawn) if auxiliary else placed:
        names = auxiliary or placed
        raise Unknown(f"since the guide's site {names[0]!r} has no density that a mixture can be made of")
    latents, values = found.latents, {s["name"]: s["value"] for s in found.drawn if s["name"] not in placed}
    prior = [site for site in found.joint if site["name"] in latents]
    if any(isinstance(site["fn"], Marginal) for site in prior):
        raise Unknown("since the prior is known at each datum's own draws alone, with sites summed out of it")
    log_p = found.log_prior.reshape(-1)
    return Draws(
        values,
        latents,
        found.log_q.reshape(-1).double(),
        log_p.double() if _same_for_all(pair.model, args, having, latents, log_p) else None,
        not auxiliary and _independent(pair.guide, args, found.drawn),
        _independent(pair.model, args, prior),
    )


def _same_for_all(
    model: Callable, args: tuple, having: Sequence[int | None] | None, latents: dict[str, Tensor], log_p: Tensor
) -> bool:
    """Whether z has the prior density under its neighbour's datum that it has under its own."""
    having = by_length(args) if having is None else having
    turned = torch.arange(rows_along(args, having), device=data_in(args).device).roll(1)
    rolled = rows_of(args, turned, having)
    trace = poutine.trace(poutine.condition(model, data=latents)).get_trace(*rolled)
    trace.compute_log_prob(lambda name, site: name in latents)
    first, *others = (trace.nodes[name]["unscaled_log_prob"] for name in latents)
    return torch.allclose(sum(others, first), log_p, rtol=1e-4, atol=1e-4)


def _independent(program: Callable, args: tuple, sites: list[dict]) -> bool:
    """Whether all numbers at these sites are independent of one another in a program."""
    if any(factors(site["fn"]) is None for site in sites):
        return False
    if len(sites) == 1:
        return True
    parents: Any
    try:
        parents = get_dependencies(program, args)["prior_dependencies"]
    except (NotImplementedError, KeyError):
        return False
    names = {site["name"] for site in sites}
    return all(not (set(parents.get(name, ())) & names - {name}) for name in names)


def prior_draws(
    model: Callable, source: tuple, latents: Mapping[str, Tensor], having: Sequence[int | None] | None = None
) -> dict[str, Tensor]:
    """{site: draws of p(z)}, one per row of some data."""
    found: dict[str, list[Tensor]] = {name: [] for name in latents}
    for args in split(source, ROWS_AT_ONCE, having):
        nodes: Mapping[str, Mapping[str, Any]] = poutine.trace(model).get_trace(*args).nodes
        for name, values in found.items():
            values.append(nodes[name]["value"])
    return {name: torch.cat(values) for name, values in found.items()}


class Factors:
    """The distribution of one unit, and how many dimensions of its batch make up the event.

    A unit is a number, or a one-hot vector.
    """

    def __init__(self, unit: Distribution, dims: int):
        self.unit, self.dims = unit, dims

    def log_prob(self, value: Tensor) -> Tensor:
        """Shape (*batch, units), nats."""
        return self._flat(self.unit.log_prob(value))

    def kl(self, prior: Factors) -> Tensor | None:
        """KL of each unit, shape (*batch, units), nats; None where no formula is known."""
        found = closed_form(self.unit, prior.unit) if self.dims == prior.dims else None
        return None if found is None else self._flat(found)

    def _flat(self, each: Tensor) -> Tensor:
        return each.flatten(-self.dims) if self.dims else each.unsqueeze(-1)


def factors(fn: Distribution | None) -> Factors | None:
    """The factors of a distribution; None where its dimensions depend on one another, or may."""
    dims = 0
    while isinstance(fn, Independent):
        dims += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    if (
        fn is None
        or isinstance(fn, Marginal)
        or not (fn.event_shape == torch.Size() or isinstance(fn, OneHotCategorical))
    ):
        return None
    return Factors(fn, dims)
