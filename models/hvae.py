"""The deep latent Gaussian model of several stochastic layers."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.models.arguments import distribution_of, fitting, size
from dlvm.nets import MLP
from dlvm.nets.arguments import count, module, widths


class HVAE(PyroModule):
    """L latent vectors per datum, each generated from the one above it.

        p(x, z1, ..., zL) = p(zL) prod_{l=1..L-1} p(zl | z(l+1)) p(x | z1)

    The modules are given in the order in which they generate: from the top down to the data.

    Sites:
        zL, ..., z1: event shapes and supports of ``prior`` and of ``conditionals``, z1 nearest x; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        prior: distribution p(zL), a module without inputs.
        conditionals: distributions p(z(L-1) | zL), ..., p(z1 | z2), modules from the layer above to a Pyro
            distribution; L - 1 of them.
        likelihood: conditional distribution p(x | z1), a module from z1 to a Pyro distribution.

    Raises:
        ValueError: the prior has a batch shape: dimensions that are not declared with ``to_event``.
        TypeError: the likelihood or a conditional is no module, or the prior no module that returns a distribution.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models, Rezende, Mohamed, Wierstra,
        2014, arXiv:1401.4082.

    Example:
        >>> top = DiagonalNormal(MLP(2, 16), 4)
        >>> HVAE(StandardNormal(2), [top], Bernoulli(MLP(4, 16, 64)))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, prior: nn.Module, conditionals: Sequence[nn.Module] | nn.ModuleList, likelihood: nn.Module):
        super().__init__("model")
        module(likelihood=likelihood)
        if not isinstance(conditionals, (Sequence, nn.ModuleList)):
            got = type(conditionals).__name__
            raise TypeError(f"conditionals must be a list of modules, got {got}; put one into [ ]")
        for j, conditional in enumerate(conditionals):
            if not isinstance(conditional, nn.Module):
                raise TypeError(
                    f"conditionals[{j}] must be a module from the layer above to a distribution, got "
                    f"{type(conditional).__name__}; write DiagonalNormal(MLP(50, 100), 100)"
                )
        distribution_of(prior)
        self.prior, self.conditionals, self.likelihood = prior, nn.ModuleList(conditionals), likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        layer = len(self.conditionals) + 1
        with pyro.plate("data", size(x, n)):
            z = pyro.sample(f"z{layer}", self.prior())
            for conditional in self.conditionals:
                layer -= 1
                z = pyro.sample(f"z{layer}", conditional(z))
            likelihood = self.likelihood(z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))


def burda(
    x_dim: int = 784,
    sizes: Sequence[int] = (100, 50),
    hidden: Sequence[int] = (200, 100),
    mean: Tensor | None = None,
    likelihood: nn.Module | None = None,
) -> HVAE:
    """The hierarchy of the IWAE paper, with two layers unless told.

        p(z2) = N(0, I),  p(z1 | z2) by a net 50-100-100-100,  p(x | z1) by a net 100-200-200-784

    Every conditional has two hidden layers of tanh units; latents are diagonal Gaussians, x is binary.

    Returns:
        the model, with sites z1, ..., zL and x.

    Args:
        x_dim: number of observed variables.
        sizes: dimensions of z1, ..., zL.
        hidden: widths of the hidden layers below z1, ..., zL: between z1 and x, z2 and z1, and so on.
        mean: shape (x_dim,), mean of the data; see ``Bernoulli``.
        likelihood: p(x | z1), a module from z1 to a Pyro distribution, in the place of the Bernoulli.

    Raises:
        ValueError: ``sizes`` is empty, or ``hidden`` has another length.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> sum(p.numel() for p in burda().parameters())
        253384
    """
    count(x_dim=x_dim)
    widths(sizes=sizes, hidden=hidden)
    if not sizes or len(sizes) != len(hidden):
        raise ValueError(
            f"sizes and hidden must have one entry for each latent layer, z1 first, got {tuple(sizes)} and "
            f"{tuple(hidden)}; write sizes=(100, 50), hidden=(200, 100)"
        )
    conditionals = [
        DiagonalNormal(MLP(above, width, width, activation=nn.Tanh, output=nn.Tanh), below)
        for below, above, width in zip(sizes[:-1], sizes[1:], hidden[1:], strict=True)
    ]
    if likelihood is None:
        likelihood = Bernoulli(MLP(sizes[0], hidden[0], hidden[0], x_dim, activation=nn.Tanh), mean)
    return HVAE(StandardNormal(sizes[-1]), conditionals[::-1], likelihood)
