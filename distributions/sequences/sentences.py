"""A module of sentences: from a context, or none, to a distribution of tokens up to the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlvm.distributions.sequences.sentence_distribution import SentenceDistribution
from dlvm.nets.arguments import count, module, real, whole


class Sentences(nn.Module):
    """A distribution of sentences whose tokens are drawn one after the other, given a context or none.

        p(x | z) = prod_t p(x_t | x_{<t}, decoder(z))

    Without a decoder it is a language model, and with one a likelihood. A net as strong as that language model needs
    no z, and learns to leave it out. Word dropout, in training mode alone, hides tokens from the net, which has to ask
    z for them: the bound is then that of a net which sees less, and what is reported is without it.

    Args:
        net: (tokens, context) -> logits, shape (*batch, T, tokens), those of x_t from x_{<t} and the context alone:
            ``CausalGRU``, ``CausalTCN``, or one of your own with ``outputs`` and an endless ``walk``.
        decoder: z -> the net's context, shape (*batch, H); None for a net that takes no context.
        end: the token that ends a sentence; None where none does.
        drop: share of tokens that are hidden, from 0 to below 1.
        start: shape (tokens,), where the net's ``bias`` starts.

    Raises:
        ValueError: ``end`` is no token, ``drop`` is out of range, or ``start`` has another shape than the bias; when
            called, z is given without a decoder, or missing with one.
        TypeError: ``net`` or ``decoder`` is no module, or the net has no ``walk``.

    References:
        Generating Sentences from a Continuous Space, Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio, 2016,
            arXiv:1511.06349.

    Example:
        >>> from dlvm.nets import CausalGRU
        >>> Sentences(CausalGRU(28, context=4), nn.Linear(2, 4))(torch.zeros(5, 2), steps=7).sample().shape
        torch.Size([5, 7])
    """

    def __init__(
        self,
        net: Any,
        decoder: nn.Module | None = None,
        end: int | None = 0,
        drop: float = 0.0,
        start: Tensor | None = None,
    ):
        super().__init__()
        module(net=net)
        if decoder is not None:
            module(decoder=decoder)
        if not callable(getattr(net, "walk", None)) or hasattr(net, "dim"):
            raise TypeError(
                f"net {type(net).__name__} needs a method walk(rows, context) for sentences of any length; take a "
                "CausalGRU or CausalTCN"
            )
        if end is not None:
            whole(end=end)
            if not 0 <= end < net.outputs:
                raise ValueError(f"end must be one of the net's tokens 0 to {net.outputs - 1}, or None, got {end}")
        real(drop=drop)
        if not 0 <= drop < 1:
            raise ValueError(f"drop must be from 0 to below 1, the share of tokens that are hidden, got {drop}")
        self.net, self.decoder, self.end, self.drop = net, decoder, end, float(drop)
        if start is not None:
            if not isinstance(start, Tensor) or start.shape != net.bias.shape:
                shape = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
                raise ValueError(f"start must be a tensor of shape {tuple(net.bias.shape)}, got {shape}")
            with torch.no_grad():
                net.bias.copy_(start)

    def extra_repr(self) -> str:
        return f"end={self.end}, drop={self.drop}"

    def forward(self, *context: Tensor, steps: int, lengths: Tensor | None = None) -> SentenceDistribution:
        """
        Args:
            *context: z, for the decoder.
            steps: room for so many tokens.
            lengths: how many of them count, shape (*batch,).

        Returns:
            p(x | z), batch shape (*batch), event shape (steps,).
        """
        if bool(context) != (self.decoder is not None):
            raise ValueError(
                "context must be given exactly where there is a decoder to take it; make the Sentences with "
                "decoder=MLP(z_dim, H) and the net with context=H, or leave both out"
            )
        count(steps=steps)
        h = None if self.decoder is None else self.decoder(*context)
        drop = self.drop if self.training else 0.0
        return SentenceDistribution(self.net, steps, h, lengths, self.end, drop)
