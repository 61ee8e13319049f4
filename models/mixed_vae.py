"""The VAE with bits and real numbers among its latents."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import BernoulliPrior, StandardNormal
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count, module


class MixedVAE(PyroModule):
    """Bits and a real vector per datum, decoded together by a network.

        p(x, b, z) = prod_j Bernoulli(b_j; pi_j) N(z; 0, I) p(x | b, z),   pi learned, 1/2 at the start

    With a likelihood that is a Gaussian about a linear map of both, log p(x) is that of a mixture of 2^J Gaussians.
    ``VIMCO`` and ``ScoreFunction`` give the bits the score, and z the derivative through its draws.

    Sites:
        b: shape (batch, bits), 0 or 1; latent.
        z: shape (batch, z_dim), real; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        bits: number of binary latent variables, J.
        z_dim: number of real ones.
        likelihood: conditional distribution p(x | b, z), a module from (b, z), shapes (batch, bits) and (batch,
            z_dim), to a Pyro distribution, as of an ``MLP`` of bits + z_dim inputs.

    Raises:
        ValueError: ``bits`` or ``z_dim`` is below 1; when called, data do not have the likelihood's event shape.
        TypeError: the likelihood is no module.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.9.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> MixedVAE(4, 2, Bernoulli(MLP(6, 16, 64)))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, bits: int, z_dim: int, likelihood: nn.Module):
        super().__init__("model")
        count(bits=bits, z_dim=z_dim)
        module(likelihood=likelihood)
        self.bits, self.prior, self.likelihood = BernoulliPrior(bits, learned=True), StandardNormal(z_dim), likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            b = pyro.sample("b", self.bits())
            z = pyro.sample("z", self.prior())
            likelihood = self.likelihood(b, z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))
