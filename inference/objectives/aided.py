"""A bound that is trained with an aid and reported without."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from pyro import infer
from torch import Tensor

from dlvm.inference.bounds.bound import Side
from dlvm.inference.estimators.estimator import Coefficients
from dlvm.inference.estimators.score_function import ScoreFunction
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.site_checks import check_no_estimates
from dlvm.inference.programs.pair import Pair


class Aid(Protocol):
    """A module that an objective can be given."""

    name: str

    def accept(self, objective: Objective) -> None:
        """Raises ValueError where an objective is none that this can aid."""

    def __call__(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        """A 0-d tensor to be maximised in place of the bound, whose value it is given if it is known."""


class Aided(Objective):
    """An objective whose gradient is changed by an aid; its value is not, and is what is reported and selected on.

    Args:
        objective: the bound.
        aid: what is maximised in its place.
        side: "neither" where what is trained is no bound, so that nothing is selected by what is reported; the
            objective's own unless told.

    Raises:
        TypeError: ``objective`` is neither ours nor Pyro's Trace_ELBO or TraceMeanField_ELBO, see ``ours``.
        ValueError: ``objective`` is aided already, or of a kind that this aid is not defined for.
    """

    def __init__(self, objective: infer.ELBO, aid: Aid, side: Side | None = None):
        bare = ours(objective)
        bound = replace(bare.bound, linear=False, side=side or bare.bound.side)  # what is trained need not be linear
        super().__init__(bound, bare.num_particles)
        self.objective, self.aid = bare, aid
        aid.accept(bare)

    def __repr__(self) -> str:
        return f"{self.aid.name}({self.objective!r}, {self.aid!r})"

    def draw(self, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        return self.objective.draw(pair, args, kwargs)

    def value(self, particles: Particles) -> Tensor:
        return self.objective.value(particles)

    def require(self, particles: Particles) -> None:
        self.objective.require(particles)
        check_no_estimates(particles.joint)  # a factor holds what would be aided

    def coefficients(self, particles: Particles) -> Coefficients | None:
        """Those of the bound without the aid."""
        return self.objective.coefficients(particles)

    def surrogate(self, particles: Particles, value: Tensor | None = None) -> Tensor:
        return self.aid(self.objective, particles, value)


def ours(objective: infer.ELBO) -> Objective:
    """An objective over log-weights: itself, or the one that has the expectation and estimator of Pyro's."""
    if isinstance(objective, Objective):
        return objective
    if type(objective) is infer.Trace_ELBO:
        return ELBO(objective.num_particles, ScoreFunction())
    if type(objective) is infer.TraceMeanField_ELBO:
        return ELBO(objective.num_particles, analytic_kl=True)
    raise TypeError(
        f"objective must be one of inference's, or Pyro's Trace_ELBO or TraceMeanField_ELBO, got {objective!r}; write "
        "ELBO(num_particles) or IWAE(num_particles), for instance"
    )


def refuse_auxiliary(particles: Particles, what: str) -> None:
    """Raises ValueError where the guide draws sites that the model has not, so that no site has a KL of its own."""
    if extra := set(particles.terms) - {site["name"] for site in particles.joint}:
        raise ValueError(
            f"{what} needs a KL for each latent site, but the guide draws {sorted(extra)} in their place, as automatic "
            "guides do; use a guide that draws the model's own sites, or tempered with one beta for all"
        )


def refuse_aided(objective: Objective, name: str) -> None:
    """Raises ValueError where an objective has an aid of its own, or weights that cannot be taken apart."""
    if not objective.apart:
        raise ValueError(
            f"{name} counts latent sites otherwise than once, and {objective!r} resamples by their weights; take "
            "ELBO or IWAE, which weigh whole sequences"
        )
    if isinstance(objective, Aided):
        raise ValueError(f"{name} takes a plain bound, got {objective!r}; two aids would undo each other: choose one")
