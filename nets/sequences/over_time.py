"""A sequence of any length -> features of each of its steps, by a recurrent net that runs over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, made, module, out_features, within_lengths
from dlvm.nets.recurrences.states import all_states
from dlvm.nets.sequences.recurrent import reversed_times

DIRECTIONS = {"forward": (False,), "backward": (True,), "both": (False, True)}


class Recurrent(nn.Module):
    """Features of each step of a sequence: the states of a recurrent net over what came before it, after it, or both.

        forward:  h_t = cell(x_t, h_t-1), which sees x_1..x_t, as a filter does
        backward: h_t = cell(x_t, h_t+1), which sees x_t..x_T, all that p(z_t | z_t-1, x) depends on
        both:     [h_t forward, h_t backward], which sees x_1..x_T

    The state before the first step that is read is learned. Sequences of several lengths stand in one tensor, and each
    is read from its own ends: what lies behind, NaN included, is not seen, and has the features 0. Each direction is
    one call over the whole sequence.

    Args:
        in_features: width of a step.
        width: of the states; ``out_features`` is twice that for both directions.
        direction: "forward", "backward" or "both".
        cell: (in_features, width, layers, batch_first=True) -> a net as ``nn.GRU``, or
            ``partial(nn.RNN, nonlinearity="relu")``.
        layers: how many nets, each reading the states of the one before.
        inputs: net of a step of ``in_features`` numbers before it is read, with ``out_features``; ``Filled`` where
            numbers are missing. None for the numbers themselves.

    Raises:
        ValueError: a number is below 1, or the direction is another; when called, steps have another width or are
            missing, or lengths do not fit.
        TypeError: a number is no integer, ``cell`` makes no recurrent net, or ``inputs`` is no module with
            ``out_features``; when called, the sequence is no tensor.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869.

    Example:
        >>> Recurrent(2, 8, "both")(torch.zeros(3, 5, 2), torch.tensor([5, 1, 3])).shape
        torch.Size([3, 5, 16])
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        direction: str = "backward",
        cell: Callable[..., nn.Module] = nn.GRU,
        layers: int = 1,
        inputs: nn.Module | None = None,
    ):
        super().__init__()
        count(in_features=in_features, width=width, layers=layers)
        if direction not in tuple(DIRECTIONS):
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
        if inputs is not None:
            module(inputs=inputs)
        reads = in_features if inputs is None else out_features(inputs)
        self.in_features, self.direction, self.inputs = in_features, direction, inputs
        self.nets = nn.ModuleList(made("cell", _batch_first(cell), reads, width, layers) for _ in DIRECTIONS[direction])
        if isinstance(self.nets[0], nn.LSTM) or not isinstance(self.nets[0], nn.RNNBase):
            got = type(self.nets[0]).__name__
            raise TypeError(f"cell must make an nn.GRU or nn.RNN, whose state is one tensor, got {got}; pass nn.GRU")
        self.starts = nn.ParameterList(nn.Parameter(torch.zeros(layers, 1, width)) for _ in self.nets)
        self.out_features = width * len(self.nets)

    @property
    def directions(self) -> int:
        """How many vectors of states stand side by side in the features: 1, or 2."""
        return len(self.nets)

    def extra_repr(self) -> str:
        return f"direction={self.direction}"

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """
        Args:
            x: shape (*batch, T, in_features).
            lengths: shape (*batch,), integers from 0 to T; T for each unless told.

        Returns:
            shape (*batch, T, out_features).
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor, got {type(x).__name__}; pass shape (*batch, T, {self.in_features})")
        if x.dim() < 2 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"x must have shape (*batch, T, {self.in_features}), got {tuple(x.shape)}; make the net for this width"
            )
        *batch, steps, _ = x.shape
        within = None if lengths is None else within_lengths(lengths, batch, steps).unsqueeze(-1)
        values = x if within is None else torch.where(within, x, 0)
        if self.inputs is None and values.isnan().any():
            raise ValueError(
                "x has NaN at steps that count, which no state can be told from; pass inputs=Filled(net), "
                "which sees zeros there and a mask beside"
            )
        values = values if self.inputs is None else self.inputs(values)
        rows = math.prod(batch)
        if not rows * steps:
            return values.new_zeros(*batch, steps, self.out_features)
        values = values.reshape(rows, steps, values.shape[-1])
        order = None if lengths is None else reversed_times(lengths.reshape(rows, 1), steps).unsqueeze(-1)
        nets = cast(Iterable[nn.RNNBase], self.nets)
        found = [
            self._read(net, start, values, order) if back else all_states(net, values, _for(start, rows))
            for net, start, back in zip(nets, self.starts, DIRECTIONS[self.direction], strict=True)
        ]
        read = (found[0] if len(found) == 1 else torch.cat(found, -1)).reshape(*batch, steps, self.out_features)
        return read if within is None else torch.where(within, read, 0)

    def _read(self, net: nn.RNNBase, start: Tensor, values: Tensor, order: Tensor | None) -> Tensor:
        """The states of a net that reads each sequence from its own end."""
        if order is None:
            return all_states(net, values.flip(1), _for(start, len(values))).flip(1)
        read = all_states(net, values.gather(1, order.expand(-1, -1, values.shape[-1])), _for(start, len(values)))
        return read.gather(1, order.expand(-1, -1, read.shape[-1]))


def _batch_first(cell: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """What makes the net; what is no maker is left to be refused by name."""
    if isinstance(cell, nn.Module) or not callable(cell):
        return cell
    return lambda *sizes: cell(*sizes, batch_first=True)


def _for(start: Tensor, rows: int) -> Tensor:
    """The state before the first step, of each sequence."""
    return start.expand(-1, rows, -1).contiguous()
