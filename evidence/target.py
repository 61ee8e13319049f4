"""The posterior of a batch, up to its normaliser, as a function of one unconstrained vector per datum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent, Plate, latents
from dlvm.guides.sites.site_types import Reshaped, is_direction
from dlvm.inference.particles.alone import say_one_by_one
from dlvm.inference.particles.enumerated import to_be_summed
from dlvm.inference.particles.latent_densities import check_estimable
from dlvm.inference.particles.particles import Particles, needs_inverse
from dlvm.inference.particles.row_weights import refuse_subsample, row_densities
from dlvm.inference.particles.site_checks import check_masks
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import common_plates, in_particles, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import GUIDE_TOLERANCE, MODEL_TOLERANCE
from dlvm.inference.programs.rows import batch_size


class Target:
    """log p(x, z) of a batch, where all latent sites of a datum are one real vector u.

        log p(u) = sum_j log p(z_j) + log |dz_j / du_j|,   z_j = f_j(u_j),   log p(x | u) = log p(x | z)

    u is the concatenation of the sites, flattened and unconstrained, in generation order.

    Args:
        model: a Pyro program whose latent sites are continuous and lie in one plate over data; discrete ones that it
            marks by ``infer={"enumerate": "parallel"}`` are summed out.
        args: what it is called with, a batch.

    Raises:
        ValueError: a latent site is discrete, global, or in several plates.
    """

    def __init__(self, model: Callable, args: tuple):
        spec = _to_integrate(model, args)
        for name, latent in spec.items():
            if is_direction(latent.support):
                raise ValueError(
                    f"latent site {name!r} is a direction, and no map of real vectors onto a sphere is one to one; "
                    "use importance(...) or prior_sampling(...)"
                )
            if latent.support.is_discrete:
                raise ValueError(
                    f"latent site {name!r} is discrete, and has no gradient to follow; sum it out with enumerated(...) "
                    "or use importance(...)"
                )
        self.plate = check_latents(spec)
        self.model, self.args = model, args
        self.sites = {name: Reshaped(latent) for name, latent in spec.items()}
        self.event_dims = {name: len(latent.shape) for name, latent in spec.items()}
        self.dim = sum(site.size for site in self.sites.values())
        self.pair = Pair(model)
        self.num_data = batch_size(self.pair, args)
        self.nesting = 1
        with untouched(), torch.no_grad():
            u = torch.zeros_like(self.draw(model, 1))
        self.nesting = self._at(model, u).nesting(args, {})
        self._together: dict[int, bool] = {}
        self.takes_chains(model)

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log p(u) and log p(x | u), shapes (num_chains, num_data), for u of shape (num_chains, num_data, dim).

        Raises:
            ValueError: as ``row_densities``.
        """
        found = self._weighed(self.model, u)
        prior = torch.cat([part.log_prior for part in found]) + self.log_volume(u)
        return prior, torch.cat([part.log_likelihood for part in found])

    def joint(self, u: Tensor) -> Tensor:
        """log p(x, u), shape (num_chains, num_data)."""
        prior, likelihood = self(u)
        return prior + likelihood

    def log_q(self, guide: Callable, u: Tensor) -> Tensor:
        """log q(u | x) of a guide with the model's sites alone, shape (num_chains, num_data).

        Raises:
            ValueError: the guide has other sites, or its flow cannot be inverted.
        """
        with needs_inverse():
            found = self._weighed(guide, u)
        return torch.cat([part.log_p for part in found]) + self.log_volume(u)

    def accept(self, guide: Callable) -> None:
        """Looks at a guide before ``log_q``.

        Raises:
            ValueError: as ``check_estimable``, it counts a site for other data than the model, draws a subsample of
                them, or its flow cannot be inverted.
        """
        pair = Pair(self.model, guide)
        with untouched(), torch.no_grad():
            alone = sample_sites(poutine.trace(pair.guide).get_trace(*self.args))
            refuse_subsample(common_plates(alone), self.num_data)
            with in_words("the model, at what the guide draws,", self.args, {}):
                guide_trace, model_trace = pair.traces(self.args, {})
        joint, drawn = sample_sites(model_trace), sample_sites(guide_trace)
        check_masks(joint, drawn)
        check_estimable(joint, drawn)
        self.takes_chains(guide)

    def takes_chains(self, program: Callable) -> bool:
        """Whether a program gives each of several chains the density that it gives this chain alone.

        It is found by values, from two draws of the prior, once; where it is not so, chains run one after the other.
        """
        if id(program) not in self._together:
            tolerance = MODEL_TOLERANCE if program is self.model else GUIDE_TOLERANCE
            with untouched(), torch.no_grad(), needs_inverse():
                u = torch.cat([self.draw(self.model, 1), self.draw(self.model, 1)])
                at = partial(self._at, program)
                self._together[id(program)] = alike_alone(at, u, self.args, self.nesting, tolerance)
        return self._together[id(program)]

    def _weighed(self, program: Callable, u: Tensor) -> list[Particles]:
        """All chains at once, or one after the other."""
        parallel = len(u) == 1 or self.takes_chains(program)
        return weighed(partial(self._at, program), u, self.args, self.nesting, parallel)

    def draw(self, program: Callable, num_chains: int) -> Tensor:
        """u from the prior, if the program is the model, or from a guide; shape (num_chains, num_data, dim).

        Raises:
            ValueError: the guide lacks a latent site.
        """
        if num_chains > 1 and not self.takes_chains(program):
            return torch.cat([self.draw(program, 1) for _ in range(num_chains)])
        program = own(program)
        if num_chains > 1:
            program = in_particles(program, num_chains, self.nesting)
        nodes: Mapping[str, Mapping[str, Any]] = poutine.trace(program).get_trace(*self.args).nodes
        if missing := sorted(self.sites.keys() - nodes.keys()):
            raise ValueError(f"guide lacks the latent sites {missing}; add them, or start from the prior")
        u = self.flat({name: nodes[name]["value"] for name in self.sites})
        if u.numel() != num_chains * self.num_data * self.dim:
            shapes = {name: tuple(nodes[name]["value"].shape) for name in self.sites}
            raise ValueError(
                f"guide or model draws {num_chains} x {self.num_data} values of shape {shapes}, of which the model has "
                f"{self.dim} unconstrained numbers per datum; give both one shape, in one plate over data"
            )
        return u.reshape(num_chains, self.num_data, self.dim)

    def drawn_by(self, guide: Callable) -> set[str]:
        """The sites that a guide draws."""
        return {site["name"] for site in sample_sites(poutine.trace(own(guide)).get_trace(*self.args))}

    def flat(self, values: Mapping[str, Tensor]) -> Tensor:
        """The u of {site: value}, shapes (*batch, *event) -> (*batch, dim)."""
        return torch.cat([site.flatten(values[name]) for name, site in self.sites.items()], dim=-1)

    def values(self, u: Tensor) -> dict[str, Tensor]:
        """{site: value}, shapes (num_chains, num_data, *event)."""
        return {name: value for name, (value, _) in self._moved(u).items()}

    def log_volume(self, u: Tensor) -> Tensor:
        """log |dz / du|, shape (num_chains, num_data)."""
        first, *others = (volume for _, volume in self._moved(u).values())
        return sum(others, first)

    def _moved(self, u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        pieces = u.split([site.size for site in self.sites.values()], dim=-1)
        return {name: site.moved(piece) for piece, (name, site) in zip(pieces, self.sites.items(), strict=True)}

    def _at(self, program: Callable, u: Tensor) -> Pair:
        """The model, or a guide in its place, at these values."""
        chains = (len(u), *[1] * (self.nesting - 1)) if len(u) > 1 else ()
        values = {n: value.reshape(*chains, *value.shape[1:]) for n, value in self.values(u).items()}
        return placed(program, self.plate, self.num_data, values, self.event_dims, self.pair)


def _to_integrate(model: Callable, args: tuple) -> dict[str, Latent]:
    """The model's latent sites, without those that are summed out."""
    spec = latents(model, *args)
    if not any(latent.support.is_discrete for latent in spec.values()):
        return spec
    summed = to_be_summed(model, args)
    if summed >= spec.keys():
        raise ValueError(
            f"latent sites {list(spec)} are all summed out, and none is left to be integrated over: use "
            "importance(model, guide, data) with a guide that draws nothing, which is exact"
        )
    return {name: latent for name, latent in spec.items() if name not in summed}


def weighed(at: Callable[[Tensor], Pair], values: Tensor, args: tuple, nesting: int, parallel: bool) -> list[Particles]:
    """A model at values of its latent sites, shape (num_chains, ...), all at once or one after the other.

    Args:
        at: values -> the model, with a guide that draws these.
    """
    if parallel:
        return [row_densities(at(values), args, len(values), nesting, parallel=True)]
    return [row_densities(at(value), args, 1) for value in values.split(1)]


def alike_alone(at: Callable[[Tensor], Pair], two: Tensor, args: tuple, nesting: int, tolerance: float) -> bool:
    """Whether two chains at once have the densities that each has alone; where they have not, a line says so.

    Raises:
        ValueError: the same values have another density at every run.
    """

    def one_by_one() -> Tensor:
        return torch.cat([part.log_p for part in weighed(at, two, args, nesting, parallel=False)])

    single = one_by_one()
    try:
        (both,) = weighed(at, two, args, nesting, parallel=True)
        alike = torch.allclose(both.log_p, single, tolerance, tolerance, equal_nan=True)
    except FAILURES:
        alike = False
    if not alike and not torch.allclose(single, one_by_one(), tolerance, tolerance, equal_nan=True):
        raise ValueError(
            "model or guide gives the same latent values another density when it is run again, by noise of its own "
            "(torch.randn, dropout, a site hidden by poutine.block), and a density that can be had at any value is "
            "needed here; use importance(...) or evaluate(...), which integrate noise out, or make it a latent site"
        )
    if not alike:
        say_one_by_one()
    return alike


def placed(
    model: Callable,
    plate: Plate,
    num_data: int,
    values: Mapping[str, Tensor],
    event_dims: Mapping[str, int],
    like: Pair | None = None,
) -> Pair:
    """A model with a guide that draws these values, in a plate over data, and nothing else; ``like``: see ``Pair``."""

    def program(*args: Any, **kwargs: Any) -> None:
        with plate.over(num_data):
            for name, value in values.items():
                pyro.sample(name, dist.Delta(value, event_dim=event_dims[name]))

    return Pair(model, program, like)
