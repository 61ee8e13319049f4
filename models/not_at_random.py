"""Data with holes that are not there by chance: a latent vector per datum, and a mechanism that hides numbers."""

from __future__ import annotations

import math
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Missing, StandardNormal
from dlvm.distributions.likelihoods.missing import PartlyObserved
from dlvm.distributions.supports import inner
from dlvm.models.arguments import distribution_of, fitting, size
from dlvm.nets.arguments import count, module


class NotAtRandom(PyroModule):
    """Numbers that may be missing because of what they are: the mechanism sees those that are hidden, too.

        p(x, mask, z) = p(z) p(x | z) p(mask | x),   mask_d = 1 where x_d is there

    Data are x with NaN where a number is missing, and log p is that of what is there and of the mask,

        p(x_there, mask) = E_{z ~ p(z)} E_{x_unobserved ~ p(x | z)} p(x_there | z) p(mask | x_there, x_unobserved)

    ``x_unobserved`` is a whole datum, of which the missing numbers count alone; the others are independent of the data
    and integrate to 1. ``FromModel`` draws it from p(x | z), which makes ``IWAE`` the bound of not-MIWAE; any other
    guide of both sites gives a bound as well. ``impute`` weighs what was drawn by p(mask | x), too.

    Sites:
        z: shape (batch, z_dim), real unless the prior says otherwise; latent.
        x_unobserved: shape (batch, x_dim), the likelihood's support; latent, where x is given.
        x: shape (batch, x_dim), the likelihood's support or NaN; observed.
        mask: shape (batch, x_dim), 1 where a number is there; observed with x.
        x_complete: shape (batch, x_dim), before numbers are hidden; drawn where ``x=None``, and then x is what is left.

    Args:
        z_dim: number of latent dimensions.
        likelihood: conditional distribution p(x | z) with independent dimensions, a module from z.
        mechanism: conditional distribution p(mask | x), a module from whole data, such as ``SelfMasking(x_dim)``, or
            ``Bernoulli(MLP(x_dim, 100, x_dim))`` where any number may hide any other.
        prior: distribution p(z), a module without inputs; ``StandardNormal(z_dim)`` unless told.

    Raises:
        ValueError: the prior's event shape is not (z_dim,); when called, dimensions of the likelihood are not
            independent, or data have another shape than the likelihood or the mechanism.
        TypeError: likelihood or mechanism is no module, or the prior no module that returns a distribution.

    References:
        not-MIWAE: Deep Generative Modelling with Missing not at Random Data, Ipsen, Mattei, Frellsen, 2021,
            arXiv:2006.12871.

    Example:
        >>> from dlvm.distributions import ConstantScaleNormal, SelfMasking
        >>> _ = pyro.set_rng_seed(0)
        >>> model = NotAtRandom(2, ConstantScaleNormal(nn.Linear(2, 3)), SelfMasking(3))
        >>> model(n=500).isnan().any()
        tensor(True)
    """

    def __init__(self, z_dim: int, likelihood: nn.Module, mechanism: nn.Module, prior: nn.Module | None = None):
        super().__init__("model")
        count(z_dim=z_dim)
        module(likelihood=likelihood, mechanism=mechanism)
        prior = StandardNormal(z_dim) if prior is None else prior
        if (event_shape := distribution_of(prior).event_shape) != (z_dim,):
            raise ValueError(
                f"prior has event shape {tuple(event_shape)} where z_dim={z_dim} needs ({z_dim},); "
                "make both the same, and declare dimensions with to_event(1)"
            )
        self.prior, self.mechanism = prior, mechanism
        self.likelihood = likelihood if isinstance(likelihood, Missing) else Missing(likelihood)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), NaN where a number is missing, or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim), NaN where a number is missing.
        """
        with pyro.plate("data", size(x, n)):
            z = pyro.sample("z", self.prior())
            partly = self.likelihood(z)
            whole = dist.Independent(cast(PartlyObserved, inner(partly)).base_dist, partly.event_dim)
            if x is None:
                return self._hidden(pyro.sample("x_complete", whole))
            fitting(x, partly)
            unobserved = pyro.sample("x_unobserved", whole)
            pyro.sample("x", partly, obs=x)
            missing = x.isnan()
            mechanism = self._mechanism(torch.where(missing, unobserved, x))
            pyro.sample("mask", mechanism, obs=(~missing).to(x.dtype))
            return x

    def _hidden(self, complete: Tensor) -> Tensor:
        mask = pyro.sample("mask", self._mechanism(complete))
        seen = torch.where(mask.bool(), complete, math.nan)
        return pyro.sample("x", dist.Delta(seen).to_event(1))

    def _mechanism(self, complete: Tensor) -> dist.TorchDistribution:
        made = self.mechanism(complete)
        if made.event_shape != complete.shape[-1:]:
            raise ValueError(
                f"mechanism makes masks of shape {tuple(made.event_shape)} for data of shape "
                f"{tuple(complete.shape[-1:])}; one number for each of x, declared with to_event(1)"
            )
        return made
