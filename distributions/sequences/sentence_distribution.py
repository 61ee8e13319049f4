"""Sentences: tokens of which each depends on those before it, until one of them is the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from dlvm.distributions.sequences.lengths import Ragged, check_lengths

UNSEEN = 0  # any token stands in for what lies behind a sentence, which counts nothing


class OfSentences(constraints.Constraint):
    """Tokens 0, ..., tokens - 1 within the lengths, of which nothing but the end follows the end.

    Args:
        tokens: how many different ones there are.
        end: the token that ends a sentence; None where none does.
        within: which positions count, shape (*batch, T); None where all do.
    """

    is_discrete = True
    event_dim = 1

    def __init__(self, tokens: int, end: int | None, within: Tensor | None):
        self.tokens, self.end, self.within = tokens, end, within

    def check(self, value: Tensor) -> Tensor:
        fits = (value >= 0) & (value < self.tokens) & (value == value.round())
        if self.end is not None:
            fits = fits & ((value == self.end) | ~behind(value, self.end))
        return (fits if self.within is None else fits | ~self.within).all(-1)


class SentenceDistribution(Ragged):
    """Tokens x_1..x_T, each given those before it and a context, up to and with the first that is the end.

        p(x | h) = prod_{t <= L} p(x_t | x_{<t}, h),    L the place of the end, or T

    The end is a token as the others are, and counts: the probabilities of all sentences of at most T tokens, those cut
    at T among them, have the sum 1. Behind its end a sentence consists of ends, which are certain; behind its length
    nothing counts, whatever stands there.

    Args:
        net: (tokens, context) -> logits of each position, as ``CausalGRU``.
        steps: T.
        context: shape (*batch, H); None for none.
        lengths: how many positions count, from 1 to T, shape (*batch,); all up to the end unless told.
        end: the token that ends a sentence; None where none does.
        drop: share of the tokens before a position that the net is not shown, drawn anew with each density.
        validate_args: as in every distribution.

    Example:
        >>> from dlvm.nets import CausalGRU
        >>> p = SentenceDistribution(CausalGRU(3, width=8), steps=2)
        >>> every = torch.tensor([[0, 0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]])
        >>> round(p.log_prob(every).exp().sum().item(), 5)
        1.0
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = False

    def __init__(
        self,
        net: Any,
        steps: int,
        context: Tensor | None = None,
        lengths: Tensor | None = None,
        end: int | None = 0,
        drop: float = 0.0,
        validate_args: bool | None = None,
    ):
        batch = torch.Size() if context is None else context.shape[:-1]
        if lengths is not None:
            check_lengths(lengths, steps)
            batch = torch.broadcast_shapes(batch, lengths.shape)
        self.net, self.context, self.lengths, self.end, self.drop = net, context, lengths, end, drop
        super().__init__(batch, torch.Size((steps,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        return OfSentences(self.net.outputs, self.end, self.within)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError("sentences have no mean: their tokens are no numbers to be added; draw from it")

    def expand(self, batch_shape: Sequence[int], _instance: SentenceDistribution | None = None) -> SentenceDistribution:
        new = self._get_checked_instance(SentenceDistribution, _instance)
        batch = torch.Size(batch_shape)
        new.net, new.end, new.drop = self.net, self.end, self.drop
        new.context = None if self.context is None else self.context.expand(*batch, -1)
        new.lengths = None if self.lengths is None else self.lengths.expand(batch)
        super(SentenceDistribution, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def densities(self, value: Tensor) -> Tensor:
        """log p(x_t | x_<t, h), shape (*batch, T); 0 behind the end, and behind the length."""
        counts = self.counting(value)
        seen = torch.where(counts, value, UNSEEN)
        shown = seen
        if self.drop:
            hidden = torch.rand(seen.shape, device=seen.device) < self.drop
            shown = torch.where(hidden, self.net.outputs, seen)
        logits = self.net(shown, self.context)
        seen, logits = torch.broadcast_tensors(seen.unsqueeze(-1), logits.log_softmax(-1))
        return torch.where(counts, logits.gather(-1, seen[..., :1]).squeeze(-1), 0)

    def counting(self, value: Tensor) -> Tensor:
        """Which tokens are drawn and not certain, shape (*batch, T)."""
        counts = torch.ones_like(value, dtype=torch.bool) if self.end is None else ~behind(value, self.end)
        return counts if self.within is None else counts & self.within

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        each = self.densities(value).sum(-1)
        return each.expand(torch.broadcast_shapes(each.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self._walked(torch.Size(sample_shape) + self.batch_shape, _drawn)

    def likeliest(self) -> Tensor:
        """Token after token that which is the most probable given those before, shape (*batch, T); no mode."""
        return self._walked(self.batch_shape, lambda logits: logits.argmax(-1))

    @torch.no_grad()
    def _walked(self, shape: torch.Size, chosen: Callable[[Tensor], Tensor]) -> Tensor:
        rows = shape.numel()
        context = None if self.context is None else self.context.expand(*shape, -1).reshape(rows, -1)
        drawn: list[Tensor] = []
        walk = self.net.walk(rows, context)
        _, logits = next(walk)
        while True:
            token = chosen(logits)
            drawn.append(
                token if self.end is None or not drawn else torch.where(drawn[-1] == self.end, self.end, token)
            )
            if len(drawn) == self.event_shape[0]:
                break
            _, logits = walk.send(drawn[-1])
        walk.close()
        found = torch.stack(drawn, -1).reshape(*shape, -1)
        return found if self.within is None else torch.where(self.within, found, self.end or 0)


def _drawn(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits, validate_args=False).sample()


def behind(value: Tensor, end: int) -> Tensor:
    """Whether each token lies behind a first one that is the end, shape (*batch, T).

    Example:
        >>> behind(torch.tensor([3, 0, 0, 1]), end=0).int()
        tensor([0, 0, 1, 1], dtype=torch.int32)
    """
    ends = (value == end).long()
    return ends.cumsum(-1) - ends > 0


def lengths_of(value: Tensor, end: int | None) -> Tensor:
    """How many tokens there are up to the end, which counts, shape (*batch,).

    Example:
        >>> lengths_of(torch.tensor([[3, 0, 0, 0], [3, 1, 2, 1]]), end=0)
        tensor([2, 4])
    """
    if end is None:
        return torch.full(value.shape[:-1], value.shape[-1], device=value.device)
    return (~behind(value, end)).sum(-1)
