"""Recurrent nets: a sequence of any length -> the state after its last step, and a single step of a memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count
from dlvm.nets.recurrences.states import all_states
from dlvm.nets.sets import where_present

State = tuple[Tensor, Tensor]  # h, and the memory c


class GRU(nn.Module):
    """A gated recurrent net that reads a sequence, from its first step to its last or the other way.

        r_t, u_t = sigmoid(W [x_t, h_(t-1)] + b),   n_t = tanh(V x_t + c + r_t (U h_(t-1) + d)),
        h_t = (1 - u_t) n_t + u_t h_(t-1),   h_0 = 0,   out = h_T

    Sequences of different lengths stand in one tensor with room for the longest, and with them their lengths: what
    lies behind a sequence's end, NaN included, is not seen. A sequence of length 0 has the state 0.

    Args:
        in_features: width of a step.
        out_features: width of the state.
        layers: how many nets, each reading the states of the one before.
        reverse: read from the last step to the first, so that the state tells most of the first.

    Raises:
        ValueError: a number is below 1; when called, steps have another width, or ``present`` does not fit.
        TypeError: one is no integer; when called, the sequence is no tensor.

    References:
        Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation, Cho, van
            Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio, 2014, arXiv:1406.1078.

    Example:
        >>> GRU(2, 8)(torch.zeros(3, 5, 7, 2), torch.randint(8, (3, 5))).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, in_features: int, out_features: int, layers: int = 1, reverse: bool = False):
        super().__init__()
        count(in_features=in_features, out_features=out_features, layers=layers)
        self.in_features, self.out_features, self.reverse = in_features, out_features, reverse
        self.net = nn.GRU(in_features, out_features, layers, batch_first=True)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """
        Args:
            x: shape (*batch, steps, in_features).
            present: lengths, shape (*batch,), integers; or which steps there are, shape (*batch, steps), truth values
                that are true from the first step to the last. All unless told.

        Returns:
            shape (*batch, out_features).
        """
        there = where_present(x, present)
        if x.shape[-1] != self.in_features:
            raise ValueError(
                f"x must have shape (*batch, steps, {self.in_features}), got {tuple(x.shape)}; make the net for this "
                "width"
            )
        if (there[..., 1:, 0] & ~there[..., :-1, 0]).any():
            raise ValueError(
                "present must be true from the first step to the last, got a hole before a later step; move the steps "
                "that there are together, or use a DeepSet"
            )
        *batch, steps, _ = x.shape
        values = torch.where(there, x, 0).reshape(math.prod(batch), steps, self.in_features)
        lengths = there.sum((-2, -1)).reshape(-1, 1)
        if self.reverse:
            values = values.gather(1, reversed_times(lengths, steps)[..., None].expand_as(values))
        if steps and len(values):
            read = all_states(self.net, values, values.new_zeros(self.net.num_layers, len(values), self.out_features))
        else:
            read = values.new_zeros(len(values), 1, self.out_features)
        last = (lengths - 1).clamp_min(0)[..., None].expand(-1, -1, self.out_features)
        out = torch.where(lengths > 0, read.gather(1, last).squeeze(1), 0)
        return out.reshape(*batch, self.out_features)


class LSTMCell(nn.Module):
    """A recurrent net whose memory is kept by a gate, one step at a time.

        i, f, o = sigmoid(W x + U h + b),   g = tanh(V x + R h + d),   c' = f c + i g,   h' = o tanh(c')

    Its state is the pair (h, c), which starts at a learned value without leading dimensions: both are broadcast
    against the input, so that particles and data may lie before it. The gate f starts near sigmoid(1).

    Args:
        in_features: width of an input.
        out_features: width of h and of c.

    Raises:
        ValueError: a width is below 1; when called, the input has another width.
        TypeError: a width is no integer.

    References:
        Long Short-Term Memory, Hochreiter, Schmidhuber, 1997.
        Learning to Forget: Continual Prediction with LSTM, Gers, Schmidhuber, Cummins, 2000.

    Example:
        >>> cell = LSTMCell(2, 8)
        >>> h, c = cell(torch.zeros(5, 3, 2), cell.start())
        >>> h.shape
        torch.Size([5, 3, 8])
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        count(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.input, self.state = nn.Linear(in_features, 4 * out_features), nn.Linear(out_features, 4 * out_features)
        self.first = nn.Parameter(torch.zeros(2, out_features))
        with torch.no_grad():
            self.state.bias.zero_()[out_features : 2 * out_features] += 1.0

    def start(self) -> State:
        """The state before the first step, shape (out_features,) each."""
        h, c = self.first
        return h, c

    def forward(self, x: Tensor, state: State) -> State:
        """
        Args:
            x: shape (*batch, in_features).
            state: (h, c), each of a shape that is broadcast against (*batch, out_features).

        Returns:
            the next (h, c).
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x must have shape (*batch, {self.in_features}), got {tuple(x.shape)}; make the cell so")
        h, c = state
        i, f, o, g = (self.input(x) + self.state(h)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


def reversed_times(lengths: Tensor, steps: int) -> Tensor:
    """Which step is read at each time: the last of a sequence first, and what lies behind its end where it is."""
    times = torch.arange(steps, device=lengths.device)
    return torch.where(times < lengths, lengths - 1 - times, times)
