"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import is_count, made, out_features


class MLP(nn.Module):
    """Fully connected layers with a nonlinearity between them.

        h_0 = [inputs],  h_i = activation(W_i h_{i-1} + b_i),  output(W_n h_{n-1} + b_n)

    ``MLP(784, 200, 200)`` maps 784 numbers to 200 by way of 200. A single size, ``MLP(784)``, only concatenates its
    inputs. As an encoder, its last layer is linear: a guide applies ``activation`` to it before its own heads, so
    that ``MLP(784, 200, 200)`` counts as two hidden layers there.

    Args:
        *sizes: width of the (concatenated) input, of every hidden layer, and of the output.
        activation: makes the nonlinearity, ``nn.ReLU`` unless told; ``nn.Identity`` makes the map linear.
        output: makes the map applied to the last layer, ``nn.Identity`` unless told.
        layer: (width, width of the output) -> a layer, ``nn.Linear`` unless told, as ``NormedLinear``.
        norm: width -> what stands before each nonlinearity, as ``BatchNorm``; nothing unless told.

    Raises:
        ValueError: a size is missing or below 1, or the inputs' widths do not add up to ``in_features``.
        TypeError: ``activation``, ``output``, ``layer`` or ``norm`` does not make a module; an input is no tensor.

    Example:
        >>> net = MLP(3, 8, 2)
        >>> net(torch.zeros(5, 4, 1), torch.zeros(4, 2)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        *sizes: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        output: Callable[[], nn.Module] = nn.Identity,
        layer: Callable[[int, int], nn.Module] = nn.Linear,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        if not sizes or not all(map(is_count, sizes)):
            raise ValueError(f"sizes must be one or more positive integers, got {sizes}; write MLP(784, 200, 50)")
        self.in_features, self.out_features = sizes[0], sizes[-1]
        self.layers = nn.ModuleList(made("layer", layer, a, b) for a, b in pairwise(sizes))
        self.activation, self.output = made("activation", activation), made("output", output)
        self.norms = (
            nn.ModuleList() if norm is None else nn.ModuleList(made("norm", norm, width) for width in sizes[1:-1])
        )

    @property
    def bias(self) -> Tensor:
        """Bias of the last layer, shape (out_features,)."""
        if not len(self.layers):
            raise ValueError("an MLP of one size has no layer and so no bias; give it an output size")
        return cast(nn.Linear, self.layers[-1]).bias

    def forward(self, *inputs: Tensor) -> Tensor:
        """
        Args:
            *inputs: shapes (*batch_i, width_i); batches are broadcast, widths add up to ``in_features``; integers
                become floats.

        Returns:
            shape (*batch, out_features).
        """
        h = as_floats(concatenate(inputs, self.in_features), self.bias if len(self.layers) else None)
        for i, layer in enumerate(self.layers[:-1]):
            h = layer(h)
            h = self.activation(self.norms[i](h) if len(self.norms) else h)
        if len(self.layers):
            h = self.layers[-1](h)
        return self.output(h)


def concatenate(inputs: tuple[Tensor, ...], width: int) -> Tensor:
    """Joins inputs along their last dimension after broadcasting the others; refuses a wrong total width."""
    for i, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"input {i} must be a tensor, got {type(value).__name__}; pass every input the net was made for"
            )
    widths = [value.shape[-1] if value.dim() else 0 for value in inputs]
    if sum(widths) != width:
        shapes = [tuple(value.shape) for value in inputs]
        raise ValueError(
            f"inputs of shapes {shapes} have {sum(widths)} features where in_features={width}; "
            "flatten each datum to one dimension, or make the net for this width"
        )
    if len(inputs) == 1:
        return inputs[0]
    try:
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in inputs))
    except RuntimeError as error:
        shapes = [tuple(value.shape) for value in inputs]
        raise ValueError(f"inputs of shapes {shapes} must agree in all but the last dimension; expand one") from error
    return torch.cat([value.expand(*batch, -1) for value in inputs], dim=-1)


def as_floats(value: Tensor, weights: Tensor | None) -> Tensor:
    """Integers and truth values as floats of the weights' type; refuses floats of another, and another device."""
    dtype = torch.get_default_dtype() if weights is None else weights.dtype
    if weights is not None and value.device != weights.device:
        raise ValueError(
            f"inputs are on {value.device} and the net's weights on {weights.device}; move one of them, as "
            f"x.to('{weights.device}') or model.to('{value.device}')"
        )
    if value.dtype == dtype:
        return value
    if value.is_complex():
        raise TypeError(f"inputs must be real numbers, got {value.dtype}; pass torch.view_as_real(x).flatten(-2)")
    if not value.is_floating_point():
        return value.to(dtype)
    if weights is not None and not torch.is_autocast_enabled(value.device.type):
        raise ValueError(
            f"inputs are {value.dtype} and the net's weights {dtype}; convert one of them, as x.to({dtype}) or "
            f"model.to({value.dtype})"
        )
    return value


def last_layer(net: nn.Module, dim: int, per: int = 1, last: bool = False) -> nn.Linear:
    """A layer from a net's features to ``per`` numbers for each of ``dim``; it has a ``bias`` of as many.

    A net of maps, where each number has a place, makes one of its own: by ``net.readout(dim, per, last)``.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: numbers of a datum.
        per: what is wanted for each.
        last: whether what belongs to one number stands together, (dim, per), or apart, (per, dim).

    Example:
        >>> last_layer(nn.Linear(2, 8), 3, 2)(torch.zeros(5, 8)).shape
        torch.Size([5, 6])
    """
    width = out_features(net)
    own = getattr(net, "readout", None)
    return nn.Linear(width, dim * per) if own is None else cast(nn.Linear, own(dim, per, last))
