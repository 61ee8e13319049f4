"""Models without latents: the data's own distribution."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.models.arguments import distribution_of, fitting, size


class FullyVisible(PyroModule):
    """Data drawn from one distribution, without latents: log p(x) is exact.

        p(x) = prod_d p(x_d | x_{<d})

    for ``likelihood=ChainRule(net, element)``, whose net makes it FVSBN, NADE, MADE, PixelCNN or a Transformer; any
    other distribution of one datum will do.

    Sites:
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        likelihood: distribution p(x), a module without inputs.

    Raises:
        ValueError: the likelihood has a batch shape, or when called, data do not have its event shape.
        TypeError: it is no module that returns a distribution without inputs.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.3, arXiv:1906.02691.
        Connectionist Learning of Belief Networks, Neal, 1992, Artificial Intelligence 56, has the linear one.

    Example:
        >>> from dlvm.distributions import Bits, ChainRule
        >>> from dlvm.nets import NADE
        >>> FullyVisible(ChainRule(NADE(64, 16), Bits()))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, likelihood: nn.Module):
        super().__init__("model")
        distribution_of(likelihood, "likelihood")
        self.likelihood = likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        with pyro.plate("data", size(x, n)):
            likelihood = self.likelihood()
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))
