"""Dilated convolutions that see earlier tokens alone, as far back as their layers reach."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import count
from dlvm.nets.autoregressive.token_inputs import TokenInputs


class CausalLayer(nn.Module):
    """A convolution over a position and those before it, added to what comes in.

        u_t = v_t + W_1 relu(sum_{k = 0..size-1} V_k v_{t - k dilation} + b) + c

    Args:
        width: numbers of a position.
        size: how many positions a sum has.
        dilation: how far these lie apart.
    """

    def __init__(self, width: int, size: int, dilation: int):
        super().__init__()
        self.reach = (size - 1) * dilation
        self.conv = nn.Conv1d(width, width, size, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, value: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            value: shape (rows, width, positions).
            kept: what came before, shape (rows, width, reach).

        Returns:
            of the same shape, and what is to be kept for the positions that follow.
        """
        seen = torch.cat([kept, value], -1)
        return value + self.out(F.relu(self.conv(seen))), seen[..., seen.shape[-1] - self.reach :]


class CausalTCN(nn.Module):
    """What each token's distribution is, by convolutions over the tokens before it.

        e_t = E[x_{t-1}] + C h,    out_t = W layers(e)_t + b,    dilations 1, 2, 4, ...

    For sequences of any length. It sees ``reach`` positions back and no further: the fewer, the more is left to what
    the context says.

    Args:
        tokens: how many different ones there are.
        width: numbers of a position.
        layers: of convolutions, each reaching twice as far as the one before.
        size: positions in a sum, at least 2.
        context: width of the context h, which every position sees; 0 for none.

    Raises:
        ValueError: a number is too small; when called, as for ``TokenInputs``.
        TypeError: a number is no integer.

    References:
        Improved Variational Autoencoders for Text Modeling using Dilated Convolutions, Yang, Hu, Salakhutdinov,
            Berg-Kirkpatrick, 2017, arXiv:1702.08139.

    Example:
        >>> CausalTCN(5, width=8, layers=2).reach
        6
    """

    def __init__(self, tokens: int, width: int = 64, layers: int = 3, size: int = 3, context: int = 0):
        super().__init__()
        count(tokens=tokens, width=width, layers=layers, size=size)
        if size < 2:
            raise ValueError(f"size must be at least 2, the positions in a sum, got {size}; with 1 no other is seen")
        self.inputs = TokenInputs(tokens, width, context)
        self.outputs = tokens
        self.layers = nn.ModuleList(CausalLayer(width, size, 2**k) for k in range(layers))
        self.reach = sum(cast(CausalLayer, layer).reach for layer in self.layers)
        self.head, self.bias = nn.Linear(width, tokens, bias=False), nn.Parameter(torch.zeros(tokens))

    def forward(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """
        Args:
            value: shape (*batch, positions), whole numbers 0, ..., tokens, the last one for a token that is not known.
            context: shape (*batch', H), broadcast against value's batch.

        Returns:
            shape (*batch, positions, tokens), logits.
        """
        e = self.inputs(value, context)
        *batch, steps, width = e.shape
        h = e.reshape(math.prod(batch), steps, width).mT
        for layer, nothing in zip(self.layers, self._nothing(len(h)), strict=True):
            h = layer(h, nothing)[0]
        return self.head(h.mT).reshape(*batch, steps, -1) + self.bias

    def walk(self, rows: int, context: Tensor | None = None) -> Generator[tuple[int, Tensor], Tensor, None]:
        """Token after token, without end: yields its place and its logits, and is sent its value.

        Args:
            rows: number of sequences.
            context: shape (rows, H).

        Returns:
            a generator of (place, logits of shape (rows, tokens)), to be sent values of shape (rows,).
        """
        about, value, kept, place = self.inputs.about(context), None, self._nothing(rows), 0
        while True:
            h = self.inputs.after(value, rows, about).unsqueeze(-1)
            for number, layer in enumerate(self.layers):
                h, kept[number] = layer(h, kept[number])
            value = yield place, self.head(h[..., 0]) + self.bias
            place += 1

    def _nothing(self, rows: int) -> list[Tensor]:
        """What came before the first position, for each layer."""
        return [
            self.bias.new_zeros(rows, self.inputs.out_features, cast(CausalLayer, layer).reach) for layer in self.layers
        ]
