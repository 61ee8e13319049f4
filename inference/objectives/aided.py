"""A bound that is trained with an aid and reported without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real

from pyro import infer
from torch import Tensor, nn

from inference.elbo import ELBO
from inference.objectives import Objective
from inference.particles import Particles
from inference.schedules import Schedule, as_schedule
from inference.score import ScoreFunction


class Aided(Objective):
    """An objective whose gradient is changed by an aid; its value is not, and is what is reported and selected on.

    Args:
        objective: the bound.
        aid: module (objective, particles, bound) -> a 0-d tensor to be maximised in place of the bound; says by
            ``accept(objective)`` which it can aid.

    Raises:
        TypeError: ``objective`` is neither ours nor Pyro's Trace_ELBO or TraceMeanField_ELBO, see ``ours``.
        ValueError: ``objective`` is aided already, or of a kind that this aid is not defined for.
    """

    plain = False

    def __init__(self, objective: Objective, aid: nn.Module):
        objective = ours(objective)
        super().__init__(objective.num_particles)
        self.objective, self.aid = objective, aid
        aid.accept(self.objective)

    def __repr__(self) -> str:
        return f"{self.aid.name}({self.objective!r}, {self.aid!r})"

    @property
    def lower(self) -> bool:
        return self.objective.lower

    def bound(self, log_w: Tensor) -> Tensor:
        return self.objective.bound(log_w)

    def draw(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Particles:
        return self.objective.draw(model, guide, args, kwargs)

    def value(self, particles: Particles) -> Tensor:
        return self.objective.value(particles)

    def require(self, particles: Particles) -> None:
        self.objective.require(particles)

    def surrogate(self, particles: Particles, bound: Tensor | None = None) -> Tensor:
        return self.aid(self.objective, particles, bound)


def tempered(objective: Objective, beta: float | Schedule | Mapping[str, float | Schedule] = 1.0) -> Aided:
    """Multiplies the latent sites' part of the log-weights by beta while training.

        log w_beta = log p(x | z) - sum_j beta_j log q(z_j | x) / p(z_j)

    With a schedule it is KL annealing (warm-up); with a number, the beta-VAE. What is reported stays the bound with
    beta = 1.

    Returns:
        an objective.

    Args:
        objective: any bound of ours that the guide follows, or Pyro's Trace_ELBO or TraceMeanField_ELBO, which are
            taken as ELBO with the same estimator.
        beta: a number or schedule for all latent sites, or {site: number or schedule} for some of them.

    Raises:
        TypeError: ``beta`` or ``objective`` is of another kind.
        ValueError: a negative ``beta``; an objective that is aided already, or that the guide does not follow; when
            used, an unknown site; in SVI and fit, a schedule longer than the training.

    References:
        beta-VAE, Higgins et al., 2017. Generating Sentences from a Continuous Space, Bowman et al., 2016,
        arXiv:1511.06349.

    Example:
        >>> from inference import ELBO
        >>> from inference.schedules import linear
        >>> tempered(ELBO(), beta=linear(0.0, 1.0, steps=1000))
        tempered(ELBO(num_particles=1), beta=linear(0, 1, steps=1000))
    """
    return Aided(objective, Temper(beta))


class Temper(nn.Module):
    """The aid of ``tempered``."""

    name = "tempered"

    def __init__(self, beta: float | Schedule | Mapping[str, float | Schedule]):
        super().__init__()
        check_sites(beta, "beta")
        given = beta if isinstance(beta, Mapping) else {"": beta}
        self.sites = tuple(given)
        self.betas = nn.ModuleList(as_schedule(value, "beta") for value in given.values())
        self.plain = all(isinstance(value, Real) and value == 1 for value in given.values())

    def __repr__(self) -> str:
        said = ", ".join(f"{site!r}: {beta!r}" for site, beta in zip(self.sites, self.betas, strict=True))
        return f"beta={self.betas[0]!r}" if self.sites == ("",) else f"beta={{{said}}}"

    def accept(self, objective: Objective) -> None:
        refuse_aided(objective, "tempered")
        if not objective.estimator.follows:
            raise ValueError(
                f"the guide does not follow the bound of {objective!r}, so that tempering it means nothing"
            )

    def forward(self, objective: Objective, particles: Particles, bound: Tensor | None) -> Tensor:
        known = particles.terms
        if self.sites != ("",) and (unknown := set(self.sites) - set(known)):
            raise ValueError(f"beta names {sorted(unknown)}, but the latent sites are {list(known)}")
        if self.plain:
            return objective.surrogate(particles, bound)
        numbers = {beta: beta().to(particles.log_likelihood) for beta in dict.fromkeys(self.betas)}
        chosen = {site: numbers[beta] for site, beta in zip(self.sites, self.betas, strict=True)}
        if self.sites == ("",):
            chosen = dict.fromkeys(known, chosen[""])
        else:
            refuse_auxiliary(particles, "beta for single sites")
        changed = particles.changed({name: known[name]._replace(factor=number) for name, number in chosen.items()})
        objective.require(changed)
        return objective.surrogate(changed)


def check_sites(value: object, name: str) -> None:
    """Raises ValueError where a mapping by latent sites names none, or something else than sites."""
    if isinstance(value, Mapping) and not (value and all(isinstance(site, str) and site for site in value)):
        raise ValueError(f"{name} names no site, got {value!r}; pass {{site: number}}, or a number for all sites")


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
    """Raises ValueError where an objective has an aid of its own."""
    if isinstance(objective, Aided):
        raise ValueError(f"{name} takes a plain bound, got {objective!r}; two aids would undo each other: choose one")
