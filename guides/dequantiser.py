"""The noise of a dequantised model, beside any guide of its other latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.guides.sites.arguments import program
from dlvm.guides.sites.conditioning import first
from dlvm.guides.sites.latents import Latent
from dlvm.nets.arguments import module


class Dequantiser(PyroModule):
    """A guide of all latents but the noise u, and the noise.

        q(u, z | x) = q(z | x) q(u | x),   q(u | x) uniform on [0, 1]^D unless told

    Uniform noise makes the bound that of Theis et al. (2016), a learned q(u | x) that of Ho et al. (2019), which is
    higher; see ``dlvm.models.Dequantised``.

    Sites:
        those of ``guide``; and u: the shape of the data, from 0 to 1.

    Args:
        guide: of the other latent sites, built from ``latents(model, x)`` without u; for a model that has no other, one
            that draws nothing.
        noise: what ``latents(model, x)["u"]`` is.
        posterior: q(u | x), a module from x to a distribution over [0, 1]^D, as ``LogisticNoise``; uniform unless told.

    Raises:
        TypeError: ``guide`` is no program, ``noise`` no ``Latent``, or ``posterior`` no module; when called, x is no
            tensor.

    References:
        A Note on the Evaluation of Generative Models, Theis, van den Oord, Bethge, 2016, arXiv:1511.01844.
        Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design, Ho,
            Chen, Srinivas, Duan, Abbeel, 2019, arXiv:1902.00275.

    Example:
        >>> from dlvm.distributions import Normal
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import VAE, Dequantised
        >>> from dlvm.nets import MLP
        >>> model, x = Dequantised(VAE(2, Normal(MLP(2, 8), 3))), torch.zeros(5, 3)
        >>> sites = latents(model, x)
        >>> guide = Dequantiser(Diagonal({"z": sites["z"]}, MLP(3, 8)), sites["u"])
        >>> {name: tuple(value.shape) for name, value in guide(x).items()}
        {'z': (5, 2), 'u': (5, 3)}
    """

    def __init__(self, guide: Callable, noise: Latent, posterior: nn.Module | None = None):
        super().__init__("guide")
        program(guide=guide)
        if not isinstance(noise, Latent):
            raise TypeError(f'noise must be a Latent, got {type(noise).__name__}; pass latents(model, x)["u"]')
        if posterior is not None:
            module(posterior=posterior)
        self.guide, self.posterior = guide, posterior
        self.shape, self.data_plate = noise.shape, noise.plates[-1]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        values = dict(self.guide(*args, **kwargs) or {})
        x = first(args, kwargs)
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor, got {type(x).__name__}; pass the data, whose noise is drawn")
        with poutine.block(hide=[self.data_plate.name]):  # the guide may have entered it already
            plate = self.data_plate.over(len(x))
        with plate:
            values["u"] = pyro.sample("u", self._q(x), infer=cast(Any, {"is_noise": True}))
        return values

    def _q(self, x: Tensor) -> TorchDistributionMixin:
        if self.posterior is not None:
            return self.posterior(x)
        zero = x.new_zeros((len(x), *self.shape))
        return dist.Uniform(zero, torch.ones_like(zero), validate_args=False).to_event(len(self.shape))
