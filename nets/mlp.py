"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


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

    Raises:
        ValueError: a size is missing or below 1, or the inputs' widths do not add up to ``in_features``.

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
    ):
        super().__init__()
        if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"sizes must be one or more positive integers, got {sizes}; write MLP(784, 200, 50)")
        self.in_features, self.out_features = sizes[0], sizes[-1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.activation, self.output = activation(), output()

    @property
    def bias(self) -> Tensor:
        """Bias of the last layer, shape (out_features,)."""
        if not len(self.layers):
            raise ValueError("an MLP of one size has no layer and so no bias; give it an output size")
        return self.layers[-1].bias

    def forward(self, *inputs: Tensor) -> Tensor:
        """
        Args:
            *inputs: shapes (*batch_i, width_i); batches are broadcast, widths add up to ``in_features``; integers
                become floats.

        Returns:
            shape (*batch, out_features).
        """
        dtype = self.bias.dtype if len(self.layers) else torch.get_default_dtype()
        h = concatenate(inputs, self.in_features)
        h = h if h.is_floating_point() else h.to(dtype)
        if len(self.layers) and h.dtype != dtype and not torch.is_autocast_enabled(h.device.type):
            raise ValueError(
                f"inputs are {h.dtype} and the net's weights {dtype}; convert one of them, as x.to({dtype}) or "
                f"model.to({h.dtype})"
            )
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
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
    batch = torch.broadcast_shapes(*(value.shape[:-1] for value in inputs))
    return torch.cat([value.expand(*batch, -1) for value in inputs], dim=-1)
