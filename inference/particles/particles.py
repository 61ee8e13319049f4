"""Draws of the latents of a batch, with every log-density that a bound or its gradient is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.particles.layout import Layout
from dlvm.inference.programs.data_sites import data_of
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import same, sample_sites


class Term(NamedTuple):
    """One latent site's part of the log-weights; tensors have shape (num_particles, batch), in nats.

    ``kl`` takes the place of the sampled log q - log p where it is given, and ``factor`` multiplies either.
    """

    log_q: Tensor
    log_p: Tensor | float
    factor: Tensor | float = 1.0
    kl: Tensor | None = None

    @property
    def ratio(self) -> Tensor:
        return _times(self.factor, self.log_q - self.log_p if self.kl is None else self.kl)


class Programs(NamedTuple):
    """What was run: the pair, what it was called with, the guide as it ran, particles included, and its trace."""

    pair: Pair
    args: tuple
    kwargs: dict
    guide_of_particles: Callable
    guide_trace: poutine.Trace


@dataclass(frozen=True)
class Particles:
    """K draws of a batch's latents and their log-weights.

    Attributes:
        log_likelihood: log p(x | z) over the observed sites, shape (num_particles, batch), nats.
        terms: {latent site: Term}.
        layout: plates, and the scale that each datum's bound is multiplied by.
        joint, drawn: sample sites of the model and of the guide, as traced, without those that ``shared`` is of.
        programs: what was run.
        entered: {site: values as they entered the model}, views of those drawn; empty where draws are constants.
        detached: whether draws are constants.
        kl: how each latent site's KL is got, {site: "analytic" | "Monte Carlo"}.
        shared: log-density of what is observed beside the data (``pyro.factor`` outside their plates, a known number),
            nats, with its own scale; counted once for a batch, and in no datum's weight. None where there is nothing.
        parts: the single particles that these are made of, where they were drawn one after the other.
    """

    log_likelihood: Tensor
    terms: Mapping[str, Term]
    layout: Layout
    joint: list[dict]
    drawn: list[dict]
    programs: Programs
    entered: Mapping[str, Tensor] = field(default_factory=dict)
    detached: bool = False
    kl: Mapping[str, str] = field(default_factory=dict)
    shared: Tensor | None = None
    parts: tuple[Particles, ...] = ()

    @property
    def log_ratio(self) -> Tensor:
        """log q(z | x) / p(z), shape (num_particles, batch)."""
        return self._sum([term.ratio for term in self.terms.values()])

    @property
    def log_w(self) -> Tensor:
        """log p(x, z) / q(z | x), shape (num_particles, batch)."""
        return self.log_likelihood - self.log_ratio

    @property
    def log_p(self) -> Tensor:
        """log p(x, z), shape (num_particles, batch)."""
        return self.log_likelihood + sum(_times(term.factor, term.log_p) for term in self.terms.values())

    @property
    def log_prior(self) -> Tensor:
        """log p(z), shape (num_particles, batch), each site counted once."""
        return self._sum([torch.as_tensor(term.log_p) for term in self.terms.values()])

    @property
    def log_q(self) -> Tensor:
        """log q(z | x), shape (num_particles, batch)."""
        parts = (_times(term.factor, term.log_q) for term in self.terms.values())
        return sum(parts, self.log_likelihood.new_zeros(()))

    @property
    def scale(self) -> Tensor | float:
        """What each datum's bound is multiplied by: a number, or shape (batch,)."""
        layout = self.layout
        if isinstance(layout.scale, Tensor) and layout.scale.dim() and not layout.loops:
            single = layout._replace(num_particles=1)
            shape = single.spread(layout.scale.new_empty(layout.batch), 0).shape
            return layout.scale.expand(shape).reshape(-1)
        return layout.scale

    @property
    def latents(self) -> dict[str, Tensor]:
        """Drawn values of the model's sites; what an automatic guide draws in their place is left out."""
        names = {site["name"] for site in self.joint}
        return {site["name"]: site["value"] for site in self.drawn if site["name"] in names}

    @property
    def x_dim(self) -> int:
        """How many observed numbers one datum has; those of factors are none."""
        observed = (site["value"].numel() for site in data_of(self.joint))
        return sum(observed) // max(1, self.layout.batch)

    @property
    def jumps(self) -> list[dict]:
        """The guide's sites whose draws carry no gradient: those that cannot be reparametrised, or all if detached."""
        return [site for site in self.drawn if self.detached or not site["fn"].has_rsample]

    @property
    def tempered(self) -> bool:
        """Whether any latent site counts other than once."""
        factors = [term.factor for term in self.terms.values()]
        changed = any(isinstance(factor, Tensor) or factor != 1 for factor in factors)
        return changed or not all(same(site["scale"], self.layout.scale) for site in self.drawn)

    def total(self, values: Tensor) -> Tensor:
        """Sum over data of what each is worth, (batch,) -> a 0-d tensor, with plate and ``poutine.scale`` factors."""
        return (values * self.scale).sum()

    def changed(self, terms: Mapping[str, Term], **others: Any) -> Particles:
        """The same draws, counted otherwise."""
        return replace(self, terms={**self.terms, **terms}, **others)

    def jump_log_q(self) -> Tensor:
        """log q of ``jumps`` without their scales; shape (num_particles, batch)."""
        if self.parts:
            return torch.cat([part.jump_log_q() for part in self.parts])
        return self._sum([self.layout.reduce(s["unscaled_log_prob"], s, scaled=False) for s in self.jumps])

    def by_value(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Values as they entered the model, each with (num_particles, batch) numbers in a shape that fits it."""
        if self.parts:
            rows = zip(self.parts, numbers.split(1), strict=True)
            return [found for part, row in rows for found in part.by_value(row)]
        sites, spread = {site["name"]: site for site in self.drawn}, self.layout.spread
        found = [(v, spread(numbers, sites[name]["fn"].event_dim, sites[name])) for name, v in self.entered.items()]
        return [(v, each.reshape(each.shape[max(0, each.dim() - v.dim()) :])) for v, each in found]

    def log_q_at_fixed_values(self) -> Tensor:
        """log q of the draws as constants: its gradient is the score; shape (num_particles, batch)."""
        return self._sum([_times(self.terms[name].factor, log_q) for name, log_q in self._scored_again().items()])

    def _scored_again(self) -> dict[str, Tensor]:
        if self.parts:
            parts = [part._scored_again() for part in self.parts]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if len(self.drawn) == 1:
            (site,) = self.drawn
            with needs_inverse():
                log_q = site["fn"].log_prob(site["value"].detach())
            return {site["name"]: self.layout.reduce(log_q, site)}
        trace = self.programs.guide_trace.copy()  # a site's distribution is made from its parents' values, so anew
        for site in self.drawn:
            trace.nodes[site["name"]] = {**site, "value": site["value"].detach()}
        again = poutine.replay(self.programs.guide_of_particles, trace=trace)
        with statistics_kept(self.programs.pair.guide):
            found = poutine.trace(again).get_trace(*self.programs.args, **self.programs.kwargs)
        with needs_inverse():
            found.compute_log_prob()
        drawn = (site for site in sample_sites(found) if not site["is_observed"])
        return {site["name"]: self.layout.reduce(site["unscaled_log_prob"], site) for site in drawn}

    def _sum(self, parts: list[Tensor]) -> Tensor:
        return sum(parts[1:], parts[0]) if parts else self.log_likelihood.new_zeros(self.log_likelihood.shape)


@contextmanager
def needs_inverse() -> Iterator[None]:
    """Inside, a flow that cannot be inverted says so in words."""
    try:
        yield
    except (KeyError, NotImplementedError) as error:
        raise ValueError(
            f"the guide has no density for values other than its own last draw ({str(error)[:120]}), as flows without "
            "an inverse; use Total(), or a flow that can be inverted"
        ) from error


@overload
def _times(factor: Tensor | float, value: Tensor) -> Tensor: ...


@overload
def _times(factor: Tensor | float, value: Tensor | float) -> Tensor | float: ...


def _times(factor: Tensor | float, value: Tensor | float) -> Tensor | float:
    return value if isinstance(factor, float) and factor == 1.0 else factor * value
