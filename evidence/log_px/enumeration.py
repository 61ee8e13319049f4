"""log p(x) of models with discrete latents, as a sum over all of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from dlvm.evidence.estimate import Estimate, over
from dlvm.evidence.target import alike_alone, placed, weighed
from dlvm.guides.sites.latents import Latent, latents
from dlvm.inference.evaluation.dataset_weights import CHUNK_NUMBERS
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.row_arguments import MODEL_TOLERANCE
from dlvm.inference.programs.rows import batch_size, width_of
from dlvm.nets.arguments import count

ROWS = 100
PRIOR_MASS_TOLERANCE = 1e-3


def enumerated(
    model: Callable,
    data: Tensor | Iterable,
    most: int = 1_000_000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Estimate:
    """The exact log p(x) of a model whose latents are all discrete.

        log p(x) = log sum_z p(x, z),   z over all joint values of all sites

    Sites may be binary, one-hot, classes or bounded integers, single or in arrays, and may depend on one another; their
    sets of values may not.

    Returns:
        an ``Estimate``, side "exact".

    Args:
        model: a Pyro program with its sites in one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        most: joint values allowed per datum.
        chunk: joint values times data at once; picked from the width of x unless told, for bounded memory.
        seed: of the one run that finds the sites.
        progress: show a bar with the time left.

    Raises:
        ValueError: a latent is continuous or unbounded, lies in no plate or in several, there are more than ``most``
            joint values, or their prior probabilities do not sum to one.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
        >>> enumerated(model, torch.ones(2)).log_px.exp()
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    count(most=most, chunk=1 if chunk is None else chunk)

    pair = Pair(model)

    def method(args: tuple, tick: Tick) -> Estimate:
        values = JointValues(model, args, most)
        at_once = max(1, (chunk or CHUNK_NUMBERS // width_of(args, pair)) // batch_size(pair, args))
        joint = prior = torch.full((), -math.inf, dtype=torch.float64)
        for start in range(0, values.count, at_once):
            index = torch.arange(start, min(start + at_once, values.count), device=data_in(args).device)
            log_joint, log_prior = values.weigh(index)
            joint = torch.logaddexp(log_joint.double().logsumexp(0), joint.to(log_joint.device))
            prior = torch.logaddexp(log_prior.double().logsumexp(0), prior.to(log_prior.device))
            tick(len(index) / values.count)
        _check(joint, prior)
        return replace(Estimate.exactly("enumerated", joint), num_samples=values.count)

    return over(data, method, pair, min(ROWS, chunk or ROWS), seed, progress, "summing out the latents")


def _check(joint: Tensor, prior: Tensor) -> None:
    """The prior probabilities of all values sum to one, or some value was missed; no result is NaN."""
    if joint.isnan().any():
        raise ValueError(
            f"{int(joint.isnan().sum())} data have log p(x) = NaN: the model's parameters or the data are not finite; "
            "look at the run that produced them"
        )
    if not (prior.abs() < PRIOR_MASS_TOLERANCE).all():
        raise ValueError(
            f"prior probabilities of all joint values sum to {prior.exp().min().item():.4g} .. "
            f"{prior.exp().max().item():.4g}, expected 1: a site's values depend on another site, or a site carries a "
            "mask; use importance(...) with a guide"
        )


class Site(NamedTuple):
    """``table`` holds the values of one variable, shape (base, *rest); an event is ``number`` of these."""

    latent: Latent
    table: Tensor
    number: int


class JointValues:
    """All joint values of a model's latents, numbered 0 .. count - 1, for a batch."""

    def __init__(self, model: Callable, args: tuple, most: int):
        self.model, self.args = model, args
        sites = sample_sites(poutine.trace(own(model)).get_trace(*args))
        drawn = {site["name"]: site["value"] for site in sites}
        self.sites = {name: _site(name, latent, drawn[name]) for name, latent in latents(model, *args).items()}
        self.count = math.prod(len(site.table) ** site.number for site in self.sites.values())
        if self.count > most:
            each = ", ".join(f"{name}: {len(s.table)}^{s.number}" for name, s in self.sites.items())
            raise ValueError(
                f"the latents have 10^{math.log10(self.count):.1f} joint values ({each}), more than most={most}; raise "
                "most if there is time for that, or use importance(...) with a guide"
            )
        plates = {latent.plates for latent in (site.latent for site in self.sites.values())}
        if len(plates) != 1 or len(next(iter(plates))) != 1 or next(iter(plates))[0].dim != -1:
            raise ValueError(
                f"latent sites {sorted(self.sites)} must all lie in one plate over data with dim=-1; declare their "
                "other dimensions with to_event, and move global ones into the plate"
            )
        self.plate = next(iter(plates))[0]
        self.nesting = 1
        two = torch.tensor([0, self.count - 1], device=data_in(args).device)
        self.nesting = self._at(two[:1]).nesting(args, {})
        self.parallel = alike_alone(self._at, two, args, self.nesting, MODEL_TOLERANCE)

    def weigh(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log p(z) at some values, shapes (values, data)."""
        found = weighed(self._at, index, self.args, self.nesting, self.parallel)
        prior = torch.cat([part.log_prior for part in found])
        return torch.cat([part.log_likelihood for part in found]) + prior, prior

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        """{site: values of these numbers}, shapes (len(index), *event)."""
        values, stride = {}, 1
        for name, (latent, table, number) in self.sites.items():
            base = len(table)
            powers = torch.tensor([stride * base**i for i in range(number)], device=index.device)
            digits = index[:, None] // powers % base
            values[name] = table[digits].reshape(len(index), *latent.shape)
            stride *= base**number
        return values

    def _at(self, index: Tensor) -> Pair:
        """The model at these values."""
        rows, values, event_dims = batch_size(Pair(self.model), self.args), {}, {}
        for name, value in self[index].items():
            event = value.shape[1:]
            chains = (len(index), *[1] * (self.nesting - 1)) if len(index) > 1 else ()
            values[name] = value.reshape(*chains, 1, *event).expand(*chains, rows, *event)
            event_dims[name] = len(event)
        return placed(self.model, self.plate, rows, values, event_dims)


def _site(name: str, latent: Latent, drawn: Tensor) -> Site:
    """What values a latent site can take, of the type that it draws."""
    support, size = latent.support, latent.shape.numel()
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, type(constraints.one_hot)):
        classes = latent.shape[-1]
        return Site(latent, torch.eye(classes, dtype=drawn.dtype, device=drawn.device), size // classes)
    if isinstance(support, type(constraints.boolean)):
        return Site(latent, torch.arange(2, device=drawn.device).to(drawn.dtype), size)
    if isinstance(support, constraints.integer_interval):
        lower, upper = (torch.as_tensor(bound).unique() for bound in (support.lower_bound, support.upper_bound))
        if len(lower) == len(upper) == 1:
            table = torch.arange(int(lower), int(upper) + 1, device=drawn.device)
            return Site(latent, table.to(drawn.dtype), size)
    kind = f"discrete with support {latent.support}" if support.is_discrete else "continuous"
    raise ValueError(
        f"latent site {name!r} is {kind}, and has no finite list of values that is the same for every datum; use "
        "quadrature(...) for one or two continuous dimensions, or importance(...) with a guide"
    )
