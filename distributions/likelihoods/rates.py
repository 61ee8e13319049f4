"""From features to positive rates, in the units of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count
from dlvm.nets.mlp import last_layer


class Rates(nn.Module):
    """Positive numbers around a mean, one a column.

        rate_d = mean_d exp(w_d . net(context) + b_d), or with a total: total mean_d / sum_d mean_d exp(...)

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        mean: shape (dim,), positive; 1 unless told.

    Raises:
        ValueError: ``dim`` is below 1, ``mean`` has another shape, or an element that is not positive and finite.
        TypeError: the net has no ``out_features``, or ``mean`` is no tensor.

    Example:
        >>> Rates(nn.Linear(2, 8), 3)(torch.zeros(5, 2), total=torch.ones(5)).shape
        torch.Size([5, 3])
    """

    mean: Tensor

    def __init__(self, net: nn.Module, dim: int, mean: Tensor | None = None):
        super().__init__()
        count(dim=dim)
        self.net, self.head = net, last_layer(net, dim)
        nn.init.zeros_(self.head.bias)
        mean = torch.ones(dim) if mean is None else mean
        self.register_buffer("mean", positive_columns("mean", mean, dim).to(self.head.bias).clone())

    def forward(self, *context: Tensor, total: Tensor | None = None) -> Tensor:
        """Rates, shape (*batch, dim); ``total`` has shape (*batch,)."""
        return self.of(self.net(*context), total)

    def of(self, features: Tensor, total: Tensor | None = None) -> Tensor:
        """The same from what the net gives."""
        mean = self.mean
        if total is not None:
            mean = mean / mean.sum() * checked_total(total).unsqueeze(-1)
        return mean * positive(self.head(features))


def positive_columns(name: str, values: Tensor, dim: int) -> Tensor:
    """``values``, if it holds a positive and finite number for each column.

    Raises:
        TypeError: it is no tensor.
        ValueError: it has another shape than (dim,), or an element that is 0, negative or not finite.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor of shape ({dim},), got {type(values).__name__}; pass train.{name}")
    if values.shape != (dim,) or not bool(((values > 0) & values.isfinite()).all()):
        got = f"shape {tuple(values.shape)}" if values.shape != (dim,) else f"values down to {values.min()}"
        raise ValueError(
            f"{name} must hold a positive, finite number for each of dim={dim} columns, got {got}; take a small number "
            "for a column of zeros"
        )
    return values.detach()


def checked_total(total: Tensor) -> Tensor:
    """``total``, if it is a tensor of positive numbers; validation of distributions off, it is let pass as it is."""
    if not isinstance(total, Tensor):
        raise TypeError(f"total must be a tensor of shape (*batch,), got {type(total).__name__}; pass x.sum(-1)")
    if torch.distributions.Distribution._validate_args and not bool((total > 0).all()):
        raise ValueError(f"total must be positive, got {total.min()}; leave out data without any count")
    return total
