"""The masked autoregressive network, conditioned on a context."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import made, whole, widths
from dlvm.nets.staircase import blocks_of, staircase


class MaskedLinear(nn.Linear):
    """A linear layer whose weight, shape (out, in), is multiplied by a 0/1 mask: its own, unless given another."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.blocks = blocks_of(mask)
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return staircase(value, self.weight, self.mask, self.bias, self.blocks)
        return F.linear(value, mask * self.weight, self.bias)


class MADE(nn.Module):
    """Masked network: output j depends on the context and on the inputs before j alone.

        out_j = f_j(z_{<j}, h)      (z_{>j} with reverse=True)

    The context enters the first layer, as C h that is added, and with ``film`` as a factor besides:

        layer_1(z, h) = (1 + G h) * (W z + b) + C h,   G = 0 at the start

    Hidden units of degree 0 see the context only, so the first output depends on it too. With ``hidden=()`` the map is
    linear in z: a strictly triangular matrix times z, plus a linear map of h; with ``film`` the matrix depends on h.
    ``direct`` adds such a matrix to any net, 0 at the start, which narrow layers need in order to cut nothing off.

    Args:
        dim: number of inputs D.
        context: width of the context H; 0 for none.
        hidden: widths of the hidden layers.
        outputs: how many numbers per input, 2 for a location and a gate.
        reverse: read the inputs from last to first.
        activation: makes the nonlinearity.
        film: whether the context scales the first layer's units, too.
        direct: whether outputs see the inputs before them without a hidden layer between, too.

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
    degrees: Tensor
    straight: Tensor

    def __init__(
        self,
        dim: int,
        context: int = 0,
        hidden: Sequence[int] = (),
        outputs: int = 2,
        reverse: bool = False,
        activation: Callable[[], nn.Module] = nn.ELU,
        film: bool = False,
        direct: bool = False,
    ):
        super().__init__()
        whole(dim=dim, context=context, outputs=outputs)
        widths(hidden=hidden)
        if dim < 1 or outputs < 1 or context < 0:
            raise ValueError(f"MADE needs dim >= 1, outputs >= 1 and context >= 0, got {dim}, {outputs}, {context}")
        if film and not context:
            raise ValueError("film=True scales by the context, but context is 0; give a width, or leave film out")
        if not direct and any(width < dim for width in hidden):
            raise ValueError(
                f"hidden widths {tuple(hidden)} must be at least dim={dim}: narrower layers cut outputs off from "
                "inputs; widen them, or take direct=True"
            )
        self.dim, self.outputs = dim, outputs
        self.in_features, self.out_features = dim, dim * outputs
        order = torch.arange(1, dim + 1)
        self.register_buffer("order", order.flip(0) if reverse else order)
        self.register_buffer("degrees", torch.cat([torch.zeros(0).long(), *(degrees(dim, w) for w in hidden)]), False)
        self.hidden = tuple(hidden)
        *masks, straight = self.masks(self.order)
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.context = nn.Linear(context, len(masks[0]), bias=False) if context else None
        self.film = zeros(context, len(masks[0])) if film else None
        self.direct = zeros(dim, dim * outputs) if direct and hidden else None
        if self.direct is not None:
            self.register_buffer("straight", straight.to(self.direct.weight.dtype))
            self.blocks = blocks_of(straight)
        self.activation = made("activation", activation)

    def masks(self, order: Tensor) -> list[Tensor]:
        """Of each layer, and last of the direct connections, for inputs that stand at these places 1..D.

        Args:
            order: shape (dim,), a permutation of 1..D.
        """
        steps = [order, *self.degrees.split(self.hidden)]
        found = [b[:, None] >= a[None, :] for a, b in zip(steps[:-1], steps[1:], strict=True)]
        return found + [(order[:, None] > last[None, :]).repeat(self.outputs, 1) for last in (steps[-1], order)]

    def forward(self, value: Tensor, context: Tensor | None = None, order: Tensor | None = None) -> tuple[Tensor, ...]:
        """
        Args:
            value: shape (*batch, dim).
            context: shape (*batch', H), broadcast against value.
            order: shape (dim,), the inputs' places 1..D if they are not to be the net's own; weights stay with inputs.

        Returns:
            ``outputs`` tensors of shape (*batch, dim).

        Raises:
            ValueError: a context is missing or superfluous, or one of both has another width.
        """
        check_width("value", value, self.dim)
        if (context is None) != (self.context is None):
            raise ValueError("context must be given exactly where MADE was made with context > 0; give or omit both")
        masks: Sequence[Tensor | None] = [None] * (len(self.layers) + 1) if order is None else self.masks(order)
        out = self._with_context(self.layers[0](value, masks[0]), context)
        for layer, mask in zip(self.layers[1:], masks[1:], strict=False):
            out = layer(self.activation(out), mask)
        if self.direct is not None:
            straight = masks[-1]
            mask, blocks = (self.straight, self.blocks) if straight is None else (straight, [])
            out = out + staircase(value, self.direct.weight, mask, None, blocks)
        return out.chunk(self.outputs, dim=-1)

    def _with_context(self, out: Tensor, context: Tensor | None) -> Tensor:
        if self.context is None:
            return out
        check_width("context", context, self.context.in_features)
        out = out if self.film is None else out * (1 + self.film(context))
        return out + self.context(context)

    def walk(
        self, rows: int, context: Tensor | None = None, order: Tensor | None = None
    ) -> Generator[tuple[int, Tensor], Tensor, None]:
        """Input after input: yields its place in the datum and its output, and is sent its value.

        A unit is computed once, when the last input that it sees is there: all steps together cost one pass.

        Args:
            rows: number of data.
            context: shape (rows, H).
            order: as for ``forward``.

        Returns:
            a generator of (place, output of shape (rows, outputs)), to be sent values of shape (rows,).
        """
        order = self.order if order is None else order
        *masks, straight = self.masks(order)
        weights = [mask * cast(MaskedLinear, layer).weight for mask, layer in zip(masks, self.layers, strict=True)]
        if self.direct is not None:
            straight = straight * self.direct.weight
        units = [sorted_by(part, self.dim) for part in self.degrees.split(self.hidden)]
        value = weights[0].new_zeros(rows, self.dim)
        states = [value, *(value.new_zeros(rows, width) for width in self.hidden)]
        for step, place in enumerate(order.argsort().tolist()):
            for i, due in enumerate(found[step] for found in units):
                out = self._units(i, weights[i], states[i], context, due)
                states[i + 1][:, due] = self.activation(out)
            due = [place + j * self.dim for j in range(self.outputs)]
            out = self._units(len(units), weights[-1], states[-1], context, due)
            if self.direct is not None:
                out = out + F.linear(value, straight[due])
            value[:, place] = yield place, out

    def _units(self, layer: int, weight: Tensor, below: Tensor, context: Tensor | None, due: list[int]) -> Tensor:
        """What some units of a layer get from the one below, before the nonlinearity."""
        bias = cast(MaskedLinear, self.layers[layer]).bias
        out = F.linear(below, weight[due], bias[due])
        if layer or self.context is None or context is None:
            return out
        out = out if self.film is None else out * (1 + F.linear(context, self.film.weight[due]))
        return out + F.linear(context, self.context.weight[due])


def degrees(dim: int, width: int) -> Tensor:
    """How many inputs each of so many hidden units sees, spread evenly from 0 to dim - 1."""
    return torch.linspace(0, dim - 1, width).round().long()


def sorted_by(degrees: Tensor, dim: int) -> list[list[int]]:
    """The units of each degree 0..dim - 1."""
    units: list[list[int]] = [[] for _ in range(dim)]
    for unit, degree in enumerate(degrees.tolist()):
        units[degree].append(unit)
    return units


def zeros(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without bias whose weight is 0; making it draws nothing from the generator."""
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def check_width(name: str, value: Tensor | None, width: int) -> None:
    """Refuses, by its name, what is no tensor of so many columns."""
    if not isinstance(value, Tensor) or value.shape[-1:] != (width,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a tensor of shape (*batch, {width}), got {got}; make the net for this width")
