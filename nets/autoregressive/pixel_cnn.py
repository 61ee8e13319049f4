"""The gated PixelCNN: what each pixel's distribution is, by convolutions over the pixels before it."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, whole, widths
from dlvm.nets.autoregressive.causal_conv import PixelsLeft, RowsAbove
from dlvm.nets.conv import Maps
from dlvm.nets.made import check_width

Step = Generator[tuple[int, Tensor], Tensor, None]


class GatedLayer(nn.Module):
    """One layer of both stacks: v sees the rows above a pixel, u besides what lies to the left.

        a = W_v * v + C_v s,    b = W_u * u + W_l a + C_u s
        v' = gate(a),           u' = u + W_o gate(b),       gate(a_1, a_2) = tanh(a_1) sigmoid(a_2)

    Args:
        inputs, channels: number of maps, in and out.
        reach: how far the convolutions see; at least 1 in a net's first layer.
        context: number of maps of s; 0 for none.
        first: whether the maps are the image itself, of which a pixel must not see its own; u is not added to then.
    """

    def __init__(self, inputs: int, channels: int, reach: int, context: int, first: bool):
        super().__init__()
        self.above = RowsAbove(inputs, 2 * channels, reach, strict=first)
        self.left = PixelsLeft(inputs, 2 * channels, reach, strict=first)
        self.link = one_by_one(2 * channels, 2 * channels)
        self.out = one_by_one(channels, channels)
        self.context = one_by_one(context, 4 * channels, bias=False) if context else None
        self.reach, self.first = reach, first

    def added(self, context: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """What the context adds to a and to b."""
        return (0.0, 0.0) if self.context is None or context is None else self.context(context).chunk(2, -3)

    def forward(self, v: Tensor, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps of shape (*batch, inputs, height, width) each -> (*batch, channels, height, width) each."""
        more_v, more_u = self.added(context)
        a = self.above(v) + more_v
        gated = self.out(gate(self.left(u) + self.link(a) + more_u))
        return gate(a), gated if self.first else u + gated


class PixelCNN(nn.Module):
    """Two stacks of gated convolutions over an image, such that a pixel's output sees the pixels before it alone.

        out_{ijc} = f(x_{i'j'} in the square of side 2 R + 1 around (i, j) that come before, x_{ij, <c}, h)

    Pixels come row by row, and the channels of a pixel one after the other. All the pixels of that square that come
    before are seen, and no others: there is no blind spot. With R = 0 none is, and the context must say all.

    Args:
        shape: (channels, height, width); data are flat, channel after channel.
        outputs: how many numbers per pixel and channel.
        channels: number of maps in each stack.
        layers: number of gated layers, which share the receptive field among them.
        receptive_field: R, in pixels.
        context: width of the context h; a linear map makes ``channels`` maps of it.

    Raises:
        ValueError: a number is too small; when called, an input has another width, or a context is missing or
            superfluous.

    References:
        Conditional Image Generation with PixelCNN Decoders, van den Oord et al., 2016, arXiv:1606.05328.

    Example:
        >>> PixelCNN((1, 5, 5), channels=4, receptive_field=2, layers=2)(torch.zeros(3, 25)).shape
        torch.Size([3, 25, 1])
    """

    earlier: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int = 1,
        channels: int = 32,
        layers: int = 5,
        receptive_field: int = 7,
        context: int = 0,
    ):
        super().__init__()
        widths(shape=shape)
        if len(shape) != 3:
            raise ValueError(f"shape must be (channels, height, width), got {tuple(shape)}; write (1, 28, 28)")
        count(outputs=outputs, channels=channels, layers=layers)
        whole(receptive_field=receptive_field, context=context)
        if min(receptive_field, context) < 0:
            raise ValueError(
                f"receptive_field and context must be at least 0, got {receptive_field} and {context}; 0 is for none"
            )
        colours, self.height, self.width = self.shape = tuple(shape)
        self.dim, self.outputs = math.prod(shape), outputs
        self.in_features, self.out_features = self.dim, self.dim * outputs
        self.context = nn.Linear(context, channels * self.height * self.width) if context else None
        maps = channels if context else 0
        reaches = [receptive_field // layers + (i < receptive_field % layers) for i in range(layers)]
        self.start = None if reaches[0] else nn.Parameter(torch.zeros(channels, 1, 1))
        inputs = [colours if reaches[0] else channels] + [channels] * (layers - 1)
        self.layers = nn.ModuleList(
            GatedLayer(wide, channels, reach, maps, first=not i and reach > 0)
            for i, (wide, reach) in enumerate(zip(inputs, reaches, strict=True))
        )
        self.features = one_by_one(channels, colours * channels)
        self.colours = nn.Parameter(torch.zeros(colours * channels, colours)) if colours > 1 else None
        self.register_buffer("earlier", torch.ones(colours, colours).tril(-1).repeat_interleave(channels, 0), False)
        self.head = Maps(nn.Conv2d(colours * channels, colours * outputs, 1, groups=colours))
        self.bias = nn.Parameter(torch.zeros(self.dim, outputs))

    def forward(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """
        Args:
            value: shape (*batch, dim).
            context: shape (*batch', H), broadcast against value.

        Returns:
            shape (*batch, dim, outputs).
        """
        check_width("value", value, self.dim)
        image, maps = value.unflatten(-1, self.shape), self._maps(context)
        v = u = image if self.start is None else self.start.expand(*value.shape[:-1], -1, self.height, self.width)
        for layer in self.layers:
            v, u = layer(v, u, maps)
        out = self._out(u, image).unflatten(-3, (self.shape[0], self.outputs))
        return out.movedim(-3, -1).flatten(-4, -2) + self.bias

    def _maps(self, context: Tensor | None) -> Tensor | None:
        if (context is None) != (self.context is None):
            raise ValueError("context must be given exactly where the net was made with context > 0; give or omit both")
        if self.context is None:
            return None
        check_width("context", context, self.context.in_features)
        return self.context(context).unflatten(-1, (-1, self.height, self.width))

    def _out(self, u: Tensor, image: Tensor) -> Tensor:
        """Of the last maps, and of the colours of the same pixel that come before."""
        hidden = self.features(u.relu())
        if self.colours is not None:
            hidden = hidden + torch.einsum("...chw,kc->...khw", image, self.earlier * self.colours)
        return self.head(hidden.relu())

    def walk(self, rows: int, context: Tensor | None = None) -> Step:
        """Pixel after pixel, and colour after colour: yields its place and its output, and is sent its value.

        Rows above and pixels to the left are kept layer by layer: all steps together cost about one pass, or one for
        each channel of a colour image.

        Args:
            rows: number of data.
            context: shape (rows, H).

        Returns:
            a generator of (place, output of shape (rows, outputs)), to be sent values of shape (rows,).
        """
        maps = self._maps(context)
        caches = [Cache(cast(GatedLayer, layer), rows, maps, self.height, self.width) for layer in self.layers]
        area, like = self.height * self.width, self.bias
        image = like.new_zeros(rows, self.shape[0], self.height, self.width)
        start = None if self.start is None else self.start.expand(rows, -1, 1, self.width)
        for i in range(self.height):
            row = start
            for cache in caches:
                row = cache.row(i, row)
            for j in range(self.width):
                pixel = None if start is None else start[..., :1]
                for cache in caches:
                    pixel = cache.pixel(j, pixel)
                for k in range(self.shape[0]):
                    place = k * area + i * self.width + j
                    out = self._out(cast(Tensor, pixel), image[..., i : i + 1, j : j + 1])
                    out = out.view(rows, -1, self.outputs)[:, k] + self.bias[place]
                    image[:, k, i, j] = yield place, out
                if start is None:
                    caches[0].see_pixel(j, image[..., i : i + 1, j : j + 1])
            if start is None:
                caches[0].see_row(i, image[..., i : i + 1, :])


class Cache:
    """What a layer has seen: the rows above, and in the row that is being drawn the pixels to the left."""

    def __init__(self, layer: GatedLayer, rows: int, maps: Tensor | None, height: int, width: int):
        self.layer, self.reach, self.width = layer, layer.reach, width
        self.added = [torch.as_tensor(more) for more in layer.added(maps)]
        inputs, like = layer.above.in_features, cast(nn.Conv2d, layer.above[1]).weight
        self.above = like.new_zeros(rows, inputs, height + self.reach, width + 2 * self.reach)
        self.left = like.new_zeros(rows, inputs, 1, width + self.reach)

    def see_row(self, i: int, v: Tensor) -> None:
        self.above[:, :, i + self.reach, self.reach : self.reach + self.width] = v[:, :, 0]

    def see_pixel(self, j: int, u: Tensor) -> None:
        self.left[..., j + self.reach] = u[..., 0]

    def row(self, i: int, v: Tensor | None) -> Tensor:
        """The first stack's row i, from that of the layer below; of the image, the rows above have been seen."""
        if v is not None:
            self.see_row(i, v)
        a = self.layer.above[1](self.above[:, :, i : i + self.seen]) + of_row(self.added[0], i)
        self.linked = self.layer.link(a) + of_row(self.added[1], i)
        return gate(a)

    def pixel(self, j: int, u: Tensor | None) -> Tensor:
        """The second stack's pixel j, from that of the layer below; of the image, those to the left have been seen."""
        if u is not None:
            self.see_pixel(j, u)
        b = self.layer.left[1](self.left[..., j : j + self.seen]) + self.linked[..., j : j + 1]
        gated = self.layer.out(gate(b))
        return gated if u is None else u + gated

    @property
    def seen(self) -> int:
        return self.reach if self.layer.first else self.reach + 1


def of_row(maps: Tensor, i: int) -> Tensor:
    """Row i of maps, or the number that stands for all of them."""
    return maps[..., i : i + 1, :] if maps.dim() else maps


def gate(maps: Tensor) -> Tensor:
    """Half the maps, let through by the other half."""
    value, gates = maps.chunk(2, -3)
    return value.tanh() * gates.sigmoid()


def one_by_one(inputs: int, outputs: int, bias: bool = True) -> Maps:
    """A linear map of each pixel's channels."""
    return Maps(nn.Conv2d(inputs, outputs, 1, bias=bias))
