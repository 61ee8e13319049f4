"""What draws of a trained pair show: reconstructions, dreams, where data lie among the latents, and the bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference import log_weights


@torch.no_grad()
def reconstruct(model: Callable, guide: Callable, x: Tensor) -> Tensor:
    """E p(x | z) for one z ~ q(z | x) per datum; shape of x."""
    drawn = poutine.trace(guide).get_trace(x)
    return _site("x", poutine.replay(model, trace=drawn), x)["fn"].mean.expand_as(x)


@torch.no_grad()
def dream(model: Callable, n: int) -> Tensor:
    """E p(x | z) for n draws of z from the prior; shape (n, x_dim)."""
    return _site("x", model, n=n)["fn"].mean


@torch.no_grad()
def posterior_means(guide: Callable, x: Tensor, num_particles: int = 50) -> Tensor:
    """Means of z ~ q(z | x), shape (n, z_dim)."""
    return torch.stack([_site("z", guide, x)["value"] for _ in range(num_particles)]).mean(0)


@torch.no_grad()
def latent_size(model: Callable) -> int:
    """Number of latent dimensions of the site z."""
    return _site("z", model, n=1)["value"].shape[-1]


def _site(name: str, program: Callable, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """What one run of a program has at a site."""
    return poutine.trace(program).get_trace(*args, **kwargs).nodes[name]


@torch.no_grad()
def elbo_of(model: Callable, guide: Callable, x: Tensor, draws: int) -> tuple[float, float]:
    """The ELBO by so many draws and its standard error, nats per datum."""
    log_w = log_weights(model, guide, x, num_particles=draws).double().mean(1)
    return log_w.mean().item(), log_w.std().item() / draws**0.5
