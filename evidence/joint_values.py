"""All joint values of a model's discrete latents, by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from guides.latents import Latent, latents
from inference.ownership import own
from inference.plates import nesting_of, sample_sites
from inference.weights import weigh


class Site(NamedTuple):
    """``table`` holds the values of one variable, shape (base, *rest); an event is ``number`` of these."""

    latent: Latent
    table: Tensor
    number: int


class JointValues:
    """All joint values of a model's latents, numbered 0 .. count - 1, for a batch."""

    def __init__(self, model: Callable, args: tuple, most: int):
        self.model, self.args = own(model), args
        sites = sample_sites(poutine.trace(self.model).get_trace(*args))
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
        self.nesting = nesting_of(self.model, self._placed(torch.zeros_like(args[0].reshape(-1)[:1]).long()), args, {})

    def weigh(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log p(z) at some values, shapes (values, data)."""
        found = weigh(self.model, self._placed(index), self.args, {}, len(index), nesting=self.nesting)
        prior = sum(term.log_p for term in found.terms.values())
        return found.log_likelihood + prior, prior

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

    def _placed(self, index: Tensor) -> Callable:
        """A program that draws these values and nothing else."""
        rows, full = len(self.args[0]), self.plate.size
        values = {}
        for name, value in self[index].items():
            event = value.shape[1:]
            chains = (len(index), *[1] * (self.nesting - 1)) if len(index) > 1 else ()
            values[name] = value.reshape(*chains, 1, *event).expand(*chains, rows, *event), len(event)

        def program(*args, **kwargs):
            with pyro.plate(self.plate.name, full or rows, subsample_size=rows if full else None, dim=-1):
                for name, (value, event_dim) in values.items():
                    pyro.sample(name, dist.Delta(value, event_dim=event_dim))

        return program


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
