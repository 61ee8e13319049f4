"""A linear layer whose weights may be many at once: one matrix for each particle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ParticleLinear(nn.Linear):
    """A linear layer with one weight, or with one for each of several particles.

        y = W x + b,   y_k = W_k x_k + b_k

    With weights that are drawn, particles in parallel bring a dimension of their own on the left of all others, which
    ``nn.Linear`` cannot multiply by. With one weight it is ``nn.Linear``, bit for bit. K weights side by side cost one
    batched product of matrices, and the memory of K layers.

    ``Bayesian`` makes one of each linear layer whose weights it draws. It takes what stands in the place of its
    parameters, which may be parameters, or tensors that were drawn:

        weight: shape (*particles, 1, out_features, in_features), or (out_features, in_features);
        bias: shape (*particles, 1, out_features), (out_features,), or None.

    Args:
        in_features, out_features, bias, device, dtype: those of ``nn.Linear``.

    References:
        Weight Uncertainty in Neural Networks, Blundell, Cornebise, Kavukcuoglu, Wierstra, 2015, arXiv:1505.05424.

    Example:
        >>> layer = ParticleLinear(3, 2)
        >>> del layer.weight, layer.bias
        >>> layer.weight, layer.bias = torch.ones(4, 1, 2, 3), torch.zeros(4, 1, 2)
        >>> layer(torch.ones(4, 5, 3)).shape, layer(torch.ones(5, 3)).shape
        (torch.Size([4, 5, 2]), torch.Size([4, 5, 2]))
    """

    def forward(self, input: Tensor) -> Tensor:
        """
        Args:
            input: shape (*batch, in_features), which broadcasts with the weight's dimensions before its last two.

        Returns:
            shape (*batch, out_features).
        """
        if self.weight.dim() == 2 and (self.bias is None or self.bias.dim() == 1):
            return functional.linear(input, self.weight, self.bias)
        y = times(self.weight, input)
        return y if self.bias is None else y + self.bias


def times(weight: Tensor, input: Tensor) -> Tensor:
    """W x, for one matrix or one of each particle.

    Args:
        weight: shape (out, in), or (*particles, 1, out, in).
        input: shape (*batch, in).

    Returns:
        shape (*batch, out).

    Example:
        >>> times(torch.ones(4, 1, 2, 3), torch.ones(5, 3)).shape
        torch.Size([4, 5, 2])
    """
    if weight.dim() == 2:
        return functional.linear(input, weight)
    return torch.einsum("...oi,...i->...o", weight, input)


def for_particles(layer: nn.Module) -> None:
    """Makes a linear layer of torch a ``ParticleLinear``, in its place; any other is left as it is.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
        >>> for part in net:
        ...     for_particles(part)
        >>> [type(part).__name__ for part in net]
        ['ParticleLinear', 'Tanh']
    """
    if type(layer) is nn.Linear:
        layer.__class__ = ParticleLinear
