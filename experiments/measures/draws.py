"""What draws of a trained pair show: dreams, where data lie among the latents, and the bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.guides import Latent, NoLatents, latents
from dlvm.inference import decode, encode, generate, log_weights
from dlvm.inference.use.asking import data_site
from dlvm.models import Dequantised

Rows = Tensor | list[tuple[Tensor, ...]]  # of x alone, or batches of all that a model takes
NOISE = "u"  # the site of a dequantised model


def dreams(model: Callable, n: int) -> tuple[Tensor, Tensor]:
    """n draws of x from the model, and the means of p(x | z) that they come from; (n, x_dim) each."""
    drawn, x = generate(model, n), data_site(model)
    return drawn[x], decode(model, {name: value for name, value in drawn.items() if name != x})


def posterior_means(model: Callable, guide: Callable, x: Tensor | tuple[Tensor, ...], site: str = "z") -> Tensor:
    """Means of z ~ q(z | x), shape (n, z_dim)."""
    return encode(model, guide, x)[site].mean


def latent_sites(model: nn.Module, data: Loader, noise: bool = False) -> dict[str, Latent]:
    """What ``latents`` finds, the noise within cells only if asked for; empty for a model that observes everything."""
    try:
        found = latents(model, *data.examples)
    except NoLatents:
        return {}
    return {name: site for name, site in found.items() if noise or name != NOISE or not isinstance(model, Dequantised)}


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


def first_rows(data: Loader, most: int) -> Rows:
    """The first rows as batches hold them, drawn once: x alone, or batches of all that a model takes."""
    return data.first(most) if data.given == ("x",) else list(data.take(min(most, data.num_data)))


def batches_of(rows: Rows) -> list:
    """The rows as batches, each the arguments of a model."""
    return [rows] if isinstance(rows, Tensor) else rows


def plane_of(model: nn.Module, data: Loader) -> str | None:
    """The latent site, where there is but one and it has two real numbers; None where no grid can hold the latents."""
    sites = latent_sites(model, data)
    if len(sites) != 1:
        return None
    ((name, site),) = sites.items()
    return name if site.shape == (2,) and not site.support.is_discrete else None
