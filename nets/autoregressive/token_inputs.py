"""What a net of tokens sees at each position: the token before it, and what the whole sequence is about."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import check_tokens, count, whole
from dlvm.nets.made import check_width


class TokenInputs(nn.Module):
    """Each position as a vector: that of the token before it, and of the context.

        e_t = E[x_{t-1}] + C h,    x_0 a start of its own

    One number more than there are tokens stands for a token that is not known, as word dropout makes them.

    Args:
        tokens: how many different ones there are.
        width: numbers of a position.
        context: width of the context h; 0 for none.

    Raises:
        ValueError: a number is too small; when called, a token is none of 0, ..., tokens, or a context is missing,
            superfluous or of another width.
        TypeError: a number is no integer; when called, tokens are no whole numbers.

    Example:
        >>> TokenInputs(5, width=8, context=2)(torch.tensor([[3, 1, 0]]), torch.zeros(4, 1, 2)).shape
        torch.Size([4, 1, 3, 8])
    """

    def __init__(self, tokens: int, width: int, context: int = 0):
        super().__init__()
        count(tokens=tokens, width=width)
        whole(context=context)
        if context < 0:
            raise ValueError(f"context must be at least 0, the width of what a sequence is about, got {context}")
        self.unknown, self.start, self.out_features = tokens, tokens + 1, width
        self.tokens = nn.Embedding(tokens + 2, width)
        self.context = nn.Linear(context, width, bias=False) if context else None

    def forward(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """
        Args:
            value: shape (*batch, positions), whole numbers 0, ..., tokens.
            context: shape (*batch', H), broadcast against value's batch.

        Returns:
            shape (*batch, positions, width); the last token is not looked at.
        """
        check_tokens(value, self.unknown)
        before = torch.cat([torch.full_like(value[..., :1], self.start), value[..., :-1]], -1)
        about = self.about(context)
        return self.tokens(before) + (0.0 if about is None else about.unsqueeze(-2))

    def about(self, context: Tensor | None) -> Tensor | None:
        """C h, shape (*batch', width); None without a context."""
        if (context is None) != (self.context is None):
            raise ValueError("context must be given exactly where the net was made with context > 0; give or omit both")
        if self.context is None:
            return None
        check_width("context", context, self.context.in_features)
        return self.context(context)

    def after(self, value: Tensor | None, rows: int, about: Tensor | None) -> Tensor:
        """e of the position behind a token of each of so many rows, or of the first, shape (rows, width)."""
        start = self.tokens.weight[self.start].expand(rows, -1)
        e = start if value is None else self.tokens(value)
        return e if about is None else e + about
