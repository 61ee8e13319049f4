"""Annealing and beta: the weight of the latent terms while training."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

from torch import Tensor, nn

from dlvm.inference.objectives.aided import Aided, refuse_aided, refuse_auxiliary
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.schedules import Schedule, as_schedule
from dlvm.inference.objectives.wake_sleep import RWS, WakeSleep
from dlvm.inference.particles.particles import Particles


def tempered(objective: Objective, beta: float | Schedule | Mapping[str, float | Schedule] = 1.0) -> Aided:
    """Multiplies the latent sites' part of the log-weights by beta while training.

        log w_beta = log p(x | z) - sum_j beta_j log q(z_j | x) / p(z_j)

    With a schedule it is KL annealing (warm-up); with a number, the beta-VAE. What is reported stays the bound with
    beta = 1.

    Returns:
        an objective.

    Args:
        objective: any of ours but ``WakeSleep`` and ``RWS``, whose guide does not follow the bound; or Pyro's
            Trace_ELBO or TraceMeanField_ELBO, which are taken as ELBO with the same estimator.
        beta: a number or schedule for all latent sites, or {site: number or schedule} for some of them.

    Raises:
        TypeError: ``beta`` or ``objective`` is of another kind.
        ValueError: a negative ``beta``; an objective that is aided already, or that the guide does not follow; when
            used, an unknown site; in SVI and fit, a schedule longer than the training.

    References:
        beta-VAE, Higgins et al., 2017. Generating Sentences from a Continuous Space, Bowman et al., 2016,
        arXiv:1511.06349.

    Example:
        >>> from dlvm.inference import ELBO
        >>> from dlvm.inference.objectives.schedules import linear
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
        self.idle = all(isinstance(value, Real) and value == 1 for value in given.values())

    def __repr__(self) -> str:
        said = ", ".join(f"{site!r}: {beta!r}" for site, beta in zip(self.sites, self.betas, strict=True))
        return f"beta={self.betas[0]!r}" if self.sites == ("",) else f"beta={{{said}}}"

    def accept(self, objective: Objective) -> None:
        refuse_aided(objective, "tempered")
        if isinstance(objective, WakeSleep | RWS):
            raise ValueError(
                f"the guide does not follow the bound of {objective!r}, so that tempering it means nothing"
            )

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        known = particles.terms
        if self.sites != ("",) and (unknown := set(self.sites) - set(known)):
            raise ValueError(f"beta names {sorted(unknown)}, but the latent sites are {list(known)}")
        if self.idle:
            return objective.surrogate(particles, value)
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
