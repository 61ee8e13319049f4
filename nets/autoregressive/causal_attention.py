"""Attention that sees earlier positions alone, and a Transformer of it over tokens."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import count, real, whole
from dlvm.nets.made import check_width


class CausalAttention(nn.Module):
    """Each position takes from itself and the positions before it, by how much its query fits their keys.

        out_t = W_o sum_{s <= t} softmax_s(q_t . k_s / sqrt(width / heads)) v_s,    for each head

    Args:
        width: numbers at each position.
        heads: how many sums there are, each of width / heads numbers.

    Raises:
        ValueError: ``width`` is no multiple of ``heads``.

    References:
        Attention Is All You Need, Vaswani et al., 2017, arXiv:1706.03762.

    Example:
        >>> CausalAttention(8, heads=2)(torch.zeros(5, 3, 8)).shape
        torch.Size([5, 3, 8])
    """

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        count(width=width, heads=heads)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}; change one of them")
        self.heads, self.in_features, self.out_features = heads, width, width
        self.inputs, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, value: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """
        Args:
            value: shape (*batch, positions, width).
            kept: keys and values of the positions before these, to which those of these are added; they are all that
                is seen then, so that ``value`` must be of one position.

        Returns:
            shape (*batch, positions, width).
        """
        batch, positions = value.shape[:-2], value.shape[-2]
        parts = self.inputs(value).view(math.prod(batch), positions, 3, self.heads, -1)
        query, key, held = parts.permute(2, 0, 3, 1, 4)
        if kept is not None:
            key, held = (torch.cat([old, new], -2) for old, new in zip(kept, (key, held), strict=True))
            kept[:] = key, held
        out = F.scaled_dot_product_attention(query, key, held, is_causal=kept is None)
        return self.out(out.transpose(1, 2).reshape(*batch, positions, self.out_features))

    def nothing_kept(self, rows: int) -> list[Tensor]:
        """Keys and values of no position, of so many data."""
        empty = self.out.weight.new_zeros(rows, self.heads, 0, self.out_features // self.heads)
        return [empty, empty]


class TransformerLayer(nn.Module):
    """Attention, then two linear layers at each position, each added to what comes in.

        u = v + attention(norm(v)),    out = u + W_2 gelu(W_1 norm(u) + b_1) + b_2,    W_1 of 4 times the width

    Args:
        width, heads: as for ``CausalAttention``.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = CausalAttention(width, heads)
        self.each = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, value: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """As ``CausalAttention``."""
        value = value + self.attention(self.norms[0](value), kept)
        return value + self.each(self.norms[1](value))


class CausalTransformer(nn.Module):
    """What each token's distribution is, by attention over the tokens before it.

        e_t = E[x_{t-1}] + p_t + C h,    out_t = W norm(layers(e)_t) + b_t,    E[x_0] = 0

    Args:
        dim: number of tokens D.
        tokens: how many different ones there are.
        outputs: how many numbers per token; as many as tokens unless told.
        width: numbers at each position.
        layers: number of layers of attention.
        heads: of each of them.
        context: width of the context h; 0 for none.
        step: how far the values of neighbouring tokens lie apart: 1 for whole numbers, 1/255 for 8-bit greys.

    Raises:
        ValueError: a number is too small; when called, an input has another width, or a context is missing or
            superfluous.

    References:
        Generating Long Sequences with Sparse Transformers, Child, Gray, Radford, Sutskever, 2019, arXiv:1904.10509.

    Example:
        >>> CausalTransformer(5, tokens=3, width=8)(torch.zeros(2, 5)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        dim: int,
        tokens: int,
        outputs: int | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 0,
        step: float = 1.0,
    ):
        super().__init__()
        outputs = tokens if outputs is None else outputs
        count(dim=dim, tokens=tokens, outputs=outputs, width=width, layers=layers, heads=heads)
        whole(context=context)
        real(step=step)
        if context < 0 or not 0 < step < math.inf:
            raise ValueError(f"context must be at least 0, and step positive, got {context} and {step}")
        self.dim, self.outputs, self.step = dim, outputs, step
        self.in_features, self.out_features = dim, dim * outputs
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Parameter(0.02 * torch.randn(dim, width))
        self.context = nn.Linear(context, width, bias=False) if context else None
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim, outputs))

    def forward(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """
        Args:
            value: shape (*batch, dim), of tokens 0, ..., tokens - 1 times ``step``.
            context: shape (*batch', H), broadcast against value.

        Returns:
            shape (*batch, dim, outputs).
        """
        check_width("value", value, self.dim)
        before = F.pad(self._embedded(value[..., :-1]), (0, 0, 1, 0))
        h = before + self._places(context)
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h)) + self.bias

    def _embedded(self, value: Tensor) -> Tensor:
        return self.tokens((value / self.step).round().long())

    def _places(self, context: Tensor | None) -> Tensor:
        """What is known before any token, shape (*batch, dim, width)."""
        if (context is None) != (self.context is None):
            raise ValueError("context must be given exactly where the net was made with context > 0; give or omit both")
        if self.context is None:
            return self.places
        check_width("context", context, self.context.in_features)
        return self.places + self.context(context).unsqueeze(-2)

    def walk(self, rows: int, context: Tensor | None = None) -> Generator[tuple[int, Tensor], Tensor, None]:
        """Token after token: yields its place and its output, and is sent its value.

        Keys and values of the tokens before are kept.

        Args:
            rows: number of data.
            context: shape (rows, H).

        Returns:
            a generator of (place, output of shape (rows, outputs)), to be sent values of shape (rows,).
        """
        places = self._places(context).expand(rows, -1, -1)
        kept = [cast(TransformerLayer, layer).attention.nothing_kept(rows) for layer in self.layers]
        before: Tensor | float = 0.0
        for place in range(self.dim):
            h = before + places[:, place : place + 1]
            for layer, own in zip(self.layers, kept, strict=True):
                h = layer(h, own)
            value = yield place, self.head(self.norm(h))[:, 0] + self.bias[place]
            before = self._embedded(value.unsqueeze(-1))
