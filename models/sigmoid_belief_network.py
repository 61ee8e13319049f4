"""Layers of bits, each generated from the one above it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dlvm.distributions import Bernoulli, BernoulliPrior
from dlvm.models.hvae import HVAE
from dlvm.nets import MLP
from dlvm.nets.arguments import count, widths


class SigmoidBeliefNetwork(HVAE):
    """L layers of bits per datum, the top one of independent bits with learned probabilities.

        p(x, z1, ..., zL) = p(zL) prod_{l=1..L-1} p(zl | z(l+1)) p(x | z1),   each a product of Bernoulli variables
        logits of zl = W z(l+1) + b, or with two layers of tanh between, as wide as z(l+1)

    Draws of bits carry no gradient: train it by ``VIMCO``, ``ScoreFunction(NVIL(net))``, ``RWS``, or through relaxed
    bits, which is biased, ``GumbelSoftmax``.

    Sites:
        zL, ..., z1: shape (batch, sizes[l - 1]), 0 or 1; latent.
        x: shape (batch, x_dim), 0 or 1; observed, or drawn where ``x=None``.

    Args:
        x_dim: number of observed bits.
        sizes: bits of z1, z2, ..., z1 nearest x.
        nonlinear: whether two layers of tanh stand between a layer and the next.
        mean: shape (x_dim,), mean of the data, at which p(x | z1) starts; see ``Bernoulli``.

    Raises:
        ValueError: ``sizes`` is empty, or a size below 1; ``mean`` as for ``Bernoulli``; when called, data are of
            another width.

    References:
        Connectionist Learning of Belief Networks, Neal, 1992, Artificial Intelligence 56.
        Neural Variational Inference and Learning in Belief Networks, Mnih, Gregor, 2014, arXiv:1402.0030.
        The Concrete Distribution, Maddison, Mnih, Teh, 2017, arXiv:1611.00712, has the nonlinear one.

    Example:
        >>> SigmoidBeliefNetwork(64, (10, 5))(n=3).shape
        torch.Size([3, 64])
    """

    def __init__(
        self, x_dim: int, sizes: Sequence[int] = (200, 200, 200), nonlinear: bool = False, mean: Tensor | None = None
    ):
        count(x_dim=x_dim)
        widths(sizes=sizes)
        if not sizes:
            raise ValueError(f"sizes must have one entry a layer of bits, z1 first, got {sizes!r}; as (200, 200)")

        def net(above: int, below: int) -> MLP:
            between = (above, above) if nonlinear else ()
            return MLP(above, *between, below, activation=nn.Tanh)

        pairs = list(zip(sizes[1:], sizes[:-1], strict=True))[::-1]
        conditionals = [Bernoulli(net(above, below)) for above, below in pairs]
        super().__init__(BernoulliPrior(sizes[-1], learned=True), conditionals, Bernoulli(net(sizes[0], x_dim), mean))
