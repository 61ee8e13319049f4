"""The VAE whose latents are variables of several classes."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import CategoricalPrior
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import module


class CategoricalVAE(PyroModule):
    """Independent variables of K classes per datum, decoded together by a network.

        p(x, z) = prod_n p(z_n) p(x | z_1, ..., z_N),   z_n one of K classes, one-hot

    Sites:
        z: shape (batch, variables, classes), one-hot; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        variables: how many there are, N.
        classes: of each, K, at least 2.
        likelihood: conditional distribution p(x | z), a module from the N K numbers of all variables to a Pyro
            distribution.
        learned: whether p(z_n) is trained, or all classes alike.

    Raises:
        ValueError: ``variables`` is below 1, or ``classes`` below 2; when called, data do not have the likelihood's
            event shape.
        TypeError: the likelihood is no module.

    References:
        Categorical Reparameterization with Gumbel-Softmax, Jang, Gu, Poole, 2017, arXiv:1611.01144.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.9.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> CategoricalVAE(4, 3, Bernoulli(MLP(12, 16, 64)))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, variables: int, classes: int, likelihood: nn.Module, learned: bool = False):
        super().__init__("model")
        module(likelihood=likelihood)
        self.prior, self.likelihood = CategoricalPrior(variables, classes, learned), likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            z = pyro.sample("z", self.prior())
            likelihood = self.likelihood(z.flatten(-2))
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))
