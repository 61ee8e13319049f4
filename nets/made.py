"""The masked autoregressive network, conditioned on a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import made, whole, widths


class MaskedLinear(nn.Linear):
    """A linear layer whose weight, shape (out, in), is multiplied by a fixed 0/1 mask."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, value: Tensor) -> Tensor:
        return F.linear(value, self.mask * self.weight, self.bias)


class MADE(nn.Module):
    """Masked network: output j depends on the context and on the inputs before j alone.

        out_j = f_j(z_{<j}, h)      (z_{>j} with reverse=True)

    The context enters the first layer, as C h that is added, and with ``film`` as a factor besides:

        layer_1(z, h) = (1 + G h) * (W z + b) + C h,   G = 0 at the start

    Hidden units of degree 0 see the context only, so the first output depends on it too. With ``hidden=()`` the map is
    linear in z: a strictly triangular matrix times z, plus a linear map of h; with ``film`` the matrix depends on h.

    Args:
        dim: number of inputs D.
        context: width of the context H; 0 for none.
        hidden: widths of the hidden layers.
        outputs: how many numbers per input, 2 for a location and a gate.
        reverse: read the inputs from last to first.
        activation: makes the nonlinearity.
        film: whether the context scales the first layer's units, too.

    References:
        MADE: Masked Autoencoder for Distribution Estimation, Germain, Gregor, Murray, Larochelle, 2015,
            arXiv:1502.03509.
        FiLM: Visual Reasoning with a General Conditioning Layer, Perez, Strub, de Vries, Dumoulin, Courville, 2018,
            arXiv:1709.07871.

    Example:
        >>> MADE(3, context=4, hidden=(16,))(torch.zeros(5, 3), torch.zeros(5, 4))[0].shape
        torch.Size([5, 3])
    """

    order: Tensor

    def __init__(
        self,
        dim: int,
        context: int = 0,
        hidden: Sequence[int] = (),
        outputs: int = 2,
        reverse: bool = False,
        activation: Callable[[], nn.Module] = nn.ELU,
        film: bool = False,
    ):
        super().__init__()
        whole(dim=dim, context=context, outputs=outputs)
        widths(hidden=hidden)
        if dim < 1 or outputs < 1 or context < 0:
            raise ValueError(f"MADE needs dim >= 1, outputs >= 1 and context >= 0, got {dim}, {outputs}, {context}")
        if film and not context:
            raise ValueError("film=True scales by the context, but context is 0; give a width, or leave film out")
        if any(width < dim for width in hidden):
            raise ValueError(
                f"hidden widths {tuple(hidden)} must be at least dim={dim}: narrower layers cut outputs off from inputs"
            )
        self.dim, self.outputs = dim, outputs
        self.in_features, self.out_features = dim, dim * outputs
        order = torch.arange(1, dim + 1)
        self.register_buffer("order", order.flip(0) if reverse else order)
        degrees = [self.order, *(torch.linspace(0, dim - 1, width).round().long() for width in hidden)]
        masks = [b[:, None] >= a[None, :] for a, b in zip(degrees[:-1], degrees[1:], strict=True)]
        masks.append((self.order[:, None] > degrees[-1][None, :]).repeat(outputs, 1))
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.context = nn.Linear(context, len(masks[0]), bias=False) if context else None
        self.film = zeros(context, len(masks[0])) if film else None
        self.activation = made("activation", activation)

    def forward(self, value: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """
        Args:
            value: shape (*batch, dim).
            context: shape (*batch', H), broadcast against value.

        Returns:
            ``outputs`` tensors of shape (*batch, dim).

        Raises:
            ValueError: a context is missing or superfluous, or one of both has another width.
        """
        _width("value", value, self.dim)
        if (context is None) != (self.context is None):
            raise ValueError("context must be given exactly where MADE was made with context > 0; give or omit both")
        out = self.layers[0](value)
        if self.context is not None:
            _width("context", context, self.context.in_features)
            out = out if self.film is None else out * (1 + self.film(context))
            out = out + self.context(context)
        for layer in self.layers[1:]:
            out = layer(self.activation(out))
        return out.chunk(self.outputs, dim=-1)


def zeros(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without bias whose weight is 0; making it draws nothing from the generator."""
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def _width(name: str, value: Tensor | None, width: int) -> None:
    if not isinstance(value, Tensor) or value.shape[-1:] != (width,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a tensor of shape (*batch, {width}), got {got}; make the MADE for this width")
