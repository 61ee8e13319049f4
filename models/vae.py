"""The deep latent Gaussian model of one layer."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import StandardNormal
from dlvm.models.arguments import distribution_of, fitting, size
from dlvm.nets.arguments import count, module


class VAE(PyroModule):
    """A latent vector per datum, decoded by a network.

        p(x, z) = p(z) p(x | z)

    Sites:
        z: shape (batch, z_dim), real unless the prior says otherwise; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        z_dim: number of latent dimensions.
        likelihood: conditional distribution p(x | z), a module from z to a Pyro distribution.
        prior: distribution p(z), a module without inputs; ``StandardNormal(z_dim)`` unless told.

    Raises:
        ValueError: the prior's event shape is not (z_dim,), or it has a batch shape; when called, data do not have the
            likelihood's event shape.
        TypeError: the likelihood is no module, or the prior no module that returns a distribution.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014, arXiv:1312.6114.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> VAE(2, Bernoulli(MLP(2, 16, 64)))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, z_dim: int, likelihood: nn.Module, prior: nn.Module | None = None):
        super().__init__("model")
        count(z_dim=z_dim)
        module(likelihood=likelihood)
        prior = StandardNormal(z_dim) if prior is None else prior
        event_shape = distribution_of(prior).event_shape
        if event_shape != (z_dim,):
            raise ValueError(
                f"prior has event shape {tuple(event_shape)} where z_dim={z_dim} needs ({z_dim},); "
                "make both the same, and declare dimensions with to_event(1)"
            )
        self.prior, self.likelihood = prior, likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        with pyro.plate("data", size(x, n)):
            z = pyro.sample("z", self.prior())
            likelihood = self.likelihood(z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))
