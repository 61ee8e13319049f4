"""What each layer of a hierarchy holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.guides.joint import WHOLE
from dlvm.inference import ELBO
from dlvm.inference.evaluation.active_units import count_active, spread_of
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import untouched


class Layers(NamedTuple):
    """What each latent layer holds, {site: number}.

    Attributes:
        kl: E_q[log q(z_l | ...) - log p(z_l | z_(l+1))], nats per datum; they sum to the rate.
        active: dimensions whose posterior mean varies over data by more than 0.01.
        analytic: the layers whose KL has a closed form.
    """

    kl: dict[str, float]
    active: dict[str, int]
    analytic: list[str]


@torch.no_grad()
def layers_of(model: nn.Module, guide: nn.Module, data: Loader, num_particles: int) -> Layers:
    """The KL and the active units of each layer, z1 first, from particles of every datum."""
    kl: dict[str, list[Tensor]] = {}
    means: dict[str, list[Tensor]] = {}
    noise: dict[str, list[Tensor]] = {}
    with untouched(0):
        for batch in data:
            particles = ELBO(num_particles, analytic_kl=True).draw(Pair(model, guide), batch, {})
            for name, ratio in ratios(particles).items():
                z = particles.latents[name]
                kl.setdefault(name, []).append(ratio.mean(0))
                means.setdefault(name, []).append(z.mean(0))
                noise.setdefault(name, []).append(z.var(0) / num_particles)
    names = sorted(kl)
    active = {name: count_active(spread_of(torch.cat(means[name]), torch.cat(noise[name]))) for name in names}
    analytic = [name for name in names if particles.kl.get(name) == "analytic"]
    return Layers({name: torch.cat(kl[name]).mean().item() for name in names}, active, analytic)


def ratios(particles: Particles) -> dict[str, Tensor]:
    """log q - log p of each layer, shape (num_particles, batch); where one vector holds all layers, q by its chain."""
    found = {name: term.ratio for name, term in particles.terms.items() if name != WHOLE}
    for site in particles.drawn:
        if site["name"] == WHOLE:
            sizes = [particles.latents[name].shape[-1] for name in found]
            parts = chain(site["fn"], site["value"], sizes)
            found = {name: ratio + part for (name, ratio), part in zip(found.items(), parts, strict=True)}
    return found


def chain(q: torch.distributions.MultivariateNormal, value: Tensor, sizes: list[int]) -> list[Tensor]:
    """log q(u) by parts: log q(u_1), log q(u_2 | u_1), ..., each of the shape that log q(u) has.

    Example:
        >>> q, u = torch.distributions.MultivariateNormal(torch.zeros(3), 2 * torch.eye(3)), torch.ones(3)
        >>> bool(torch.isclose(sum(chain(q, u, [2, 1])), q.log_prob(u)))
        True
    """
    noise = torch.linalg.solve_triangular(q.scale_tril, (value - q.loc).unsqueeze(-1), upper=False).squeeze(-1)
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(noise)
    each = standard - q.scale_tril.diagonal(dim1=-2, dim2=-1).log()
    return [part.sum(-1) for part in each.split(sizes, dim=-1)]
