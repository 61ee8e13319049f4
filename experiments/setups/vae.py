"""The VAE as scripts train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from dlvm.distributions import Bernoulli, DiagonalNormal
from dlvm.nets import MLP

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "softplus": nn.Softplus}


def bernoulli(z_dim: int, hidden: Sequence[int], x_dim: int, activation: Callable, mean: Tensor | None) -> Bernoulli:
    """p(x | z) for binary data; ``mean`` starts the output bias."""
    return Bernoulli(MLP(z_dim, *hidden, x_dim, activation=activation), mean)


def normal(z_dim: int, hidden: Sequence[int], x_dim: int, activation: Callable, mean: Tensor | None) -> DiagonalNormal:
    """p(x | z) for real numbers, with a variance of its own for every z; ``mean`` is not used."""
    return DiagonalNormal(
        MLP(z_dim, *hidden, activation=activation, output=activation if hidden else nn.Identity), x_dim
    )


LIKELIHOODS = {"bernoulli": bernoulli, "normal": normal}
