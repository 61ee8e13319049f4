"""The VAE whose latents are vectors of a learned list."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import CodePrior
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import module


class VQVAE(PyroModule):
    """M codes per datum, each standing for a vector of a codebook, decoded together by a network.

        p(x, z) = p(k_1, ..., k_M) p(x | z),   z_m = vector of code k_m

    Its guide is the point mass of ``Quantiser`` on codes that are a function of x. Codes are discrete, so that a point
    mass has entropy 0 and the bound is one, and exact without draws:

        log p(x) >= log p(x | z(x)) + log p(k(x))

    What is outside of it is how it is trained: the gradient passes straight through the choice of a code, and the
    codebook and the encoder follow losses of their own. Under equally likely codes the second term is -M log K whatever
    the nets do; an autoregressive p(k) makes it better, learned beside the rest, on which it has no influence, or
    afterwards.

    Sites:
        z: shape (batch, M, D), vectors of the codebook; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        prior: p(z) over arrays of vectors of its codebook.
        likelihood: conditional distribution p(x | z), a module from the M D numbers to a Pyro distribution.

    Raises:
        TypeError: ``prior`` is no CodePrior, or the likelihood no module.
        ValueError: when called, data do not have the likelihood's event shape.

    References:
        Neural Discrete Representation Learning, van den Oord, Vinyals, Kavukcuoglu, 2017, arXiv:1711.00937.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.9.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli, Codebook
        >>> from dlvm.nets import MLP
        >>> VQVAE(CodePrior(Codebook(8, 2), 4), Bernoulli(MLP(8, 16, 64)))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, prior: CodePrior, likelihood: nn.Module):
        super().__init__("model")
        if not isinstance(prior, CodePrior):
            got = f"the class {prior.__name__}" if isinstance(prior, type) else type(prior).__name__
            raise TypeError(f"prior must be a CodePrior, got {got}; write CodePrior(Codebook(64, 8), 16)")
        module(likelihood=likelihood)
        self.prior, self.likelihood = prior, likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            z = pyro.sample("z", self.prior())
            likelihood = self.likelihood(z.flatten(-2))
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))
