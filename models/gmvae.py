"""The VAE whose latent vectors form clusters."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions.categorical import OneHotDraws
from dlvm.models.arguments import fitting, size
from dlvm.models.gaussian_mixture import GaussianMixture
from dlvm.models.mixture import Component
from dlvm.nets.arguments import module


class GMVAE(PyroModule):
    """A cluster per datum, a latent vector from its Gaussian, decoded by a network.

        p(x, y, z) = p(y) N(z; loc_y, covariance_y) p(x | z),   y one-hot

    Where a guide leaves y out, it is summed out, exactly: the bound is that of a VAE whose prior is the mixture, and
    q(y | x, z) = p(y | z) is exact. A guide that draws y is amortised in it as well, as q(y | x) q(z | x, y).

    Sites:
        y: shape (batch, components), one-hot; latent, marked to be summed out.
        z: shape (batch, z_dim), real; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        clusters: p(y) p(z | y), of which the ``x_dim`` is the number of latent dimensions.
        likelihood: conditional distribution p(x | z), a module from z to a Pyro distribution.

    Raises:
        TypeError: ``clusters`` is no GaussianMixture, or the likelihood no module.

    References:
        Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders, Dilokthanakul, Mediano, Garnelo,
            Lee, Salimbeni, Arulkumaran, Shanahan, 2016, arXiv:1611.02648.
        Variational Deep Embedding: An Unsupervised and Generative Approach to Clustering, Jiang, Zheng, Tan, Tang,
            Zhou, 2017, arXiv:1611.05148.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> GMVAE(GaussianMixture(3, 2, "diagonal"), Bernoulli(MLP(2, 16, 64)))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, clusters: GaussianMixture, likelihood: nn.Module):
        super().__init__("model")
        if not isinstance(clusters, GaussianMixture):
            got = f"the class {clusters.__name__}" if isinstance(clusters, type) else type(clusters).__name__
            raise TypeError(
                f"clusters must be a GaussianMixture, got {got}; write GaussianMixture(10, z_dim, 'diagonal')"
            )
        module(likelihood=likelihood)
        self.clusters, self.likelihood = clusters, likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            prior = OneHotDraws(logits=self.clusters.logits)
            y = pyro.sample("y", prior, infer={"enumerate": "parallel"})
            z = pyro.sample("z", Component(self.clusters, y))
            likelihood = self.likelihood(z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def cluster(self, z: Tensor) -> OneHotDraws:
        """Exact p(y | z), which is p(y | x, z), batch shape (batch,), for z of shape (batch, z_dim)."""
        return self.clusters.posterior(z)
