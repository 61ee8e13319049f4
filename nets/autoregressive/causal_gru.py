"""A gated recurrent net that says of each token what it may be, from the tokens before it."""

from __future__ import annotations

import math
from collections.abc import Generator

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count
from dlvm.nets.autoregressive.token_inputs import TokenInputs
from dlvm.nets.recurrences.states import all_states


class CausalGRU(nn.Module):
    """What each token's distribution is, by a state that has read the tokens before it.

        s_t = GRU(s_{t-1}, E[x_{t-1}] + C h),    out_t = W s_t + b,    s_0 = 0

    For sequences of any length: the net has no room of its own.

    Args:
        tokens: how many different ones there are.
        width: numbers of a token's vector and of the state.
        layers: how many states, each reading the one before.
        context: width of the context h, which every step sees; 0 for none.

    Raises:
        ValueError: a number is too small; when called, as for ``TokenInputs``.
        TypeError: a number is no integer.

    References:
        Generating Sentences from a Continuous Space, Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio, 2016,
            arXiv:1511.06349.

    Example:
        >>> CausalGRU(5, width=8)(torch.tensor([[3, 1, 0], [2, 2, 0]])).shape
        torch.Size([2, 3, 5])
    """

    def __init__(self, tokens: int, width: int = 64, layers: int = 1, context: int = 0):
        super().__init__()
        count(tokens=tokens, width=width, layers=layers)
        self.inputs = TokenInputs(tokens, width, context)
        self.outputs = tokens
        self.net = nn.GRU(width, width, layers, batch_first=True)
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
        e = e.reshape(math.prod(batch), steps, width)
        read = all_states(self.net, e, e.new_zeros(self.net.num_layers, len(e), width))
        return self.head(read).reshape(*batch, steps, -1) + self.bias

    def walk(self, rows: int, context: Tensor | None = None) -> Generator[tuple[int, Tensor], Tensor, None]:
        """Token after token, without end: yields its place and its logits, and is sent its value.

        Args:
            rows: number of sequences.
            context: shape (rows, H).

        Returns:
            a generator of (place, logits of shape (rows, tokens)), to be sent values of shape (rows,).
        """
        about, value, state, place = self.inputs.about(context), None, None, 0
        while True:
            out, state = self.net(self.inputs.after(value, rows, about).unsqueeze(1), state)
            value = yield place, self.head(out[:, 0]) + self.bias
            place += 1
