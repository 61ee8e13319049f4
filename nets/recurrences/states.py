"""The states of torch's recurrent nets, with gradients of their weights by one product over all steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.recurrences.operations import operation

FEWEST = 8  # steps that are worth it


def all_states(net: nn.RNNBase, values: Tensor, start: Tensor) -> Tensor:
    """What ``net(values, start)[0]`` returns.

    On a processor torch adds to the gradient of a net's weights at each step, and a recording of it holds every step.
    Where a gradient is wanted there, this does both passes in a few operations a step, and the weights' gradient in one
    product; a recording holds two operations, however many steps there are.

    Args:
        net: an ``nn.GRU`` or ``nn.RNN`` with ``batch_first=True``, in one direction.
        values: shape (batch, T, in_features).
        start: the state before the first step, of each layer, shape (layers, batch, width).

    Returns:
        shape (batch, T, width), of the last layer.

    Example:
        >>> net = nn.GRU(3, 8, batch_first=True)
        >>> x, start = torch.randn(2, 20, 3), torch.zeros(1, 2, 8)
        >>> torch.allclose(all_states(net, x, start), net(x, start)[0], atol=1e-6)
        True
    """
    if not _worth_it(net, values, start):
        return net(values, start)[0]
    kind = "gru" if isinstance(net, nn.GRU) else net.nonlinearity
    reached = values.transpose(0, 1)
    for layer, first in enumerate(start):
        weights = [getattr(net, f"weight_{name}_l{layer}") for name in ("ih", "hh")]
        none = weights[1].new_zeros(len(weights[1]))
        biases = [getattr(net, f"bias_{name}_l{layer}", none) for name in ("ih", "hh")]
        reached = _States.apply(kind, F.linear(reached, weights[0], biases[0]), first, weights[1], biases[1])
    return reached.transpose(0, 1)


def _worth_it(net: nn.RNNBase, values: Tensor, start: Tensor) -> bool:
    """Whether a gradient is wanted, of a net that is no more than its layers, on a processor."""
    usual = type(net) in (nn.GRU, nn.RNN) and not (net.bidirectional or net.dropout and net.training)
    plain = usual and net.batch_first and values.device.type == "cpu" and values.is_floating_point()
    learns = torch.is_grad_enabled() and any(p.requires_grad for p in (values, start, *net.parameters()))
    return plain and learns and values.shape[1] >= FEWEST and not torch._C._functorch.peek_interpreter_stack()


class _States(torch.autograd.Function):
    """What each step reads, the first state, weights and bias of the states -> the states of all steps."""

    @staticmethod
    def forward(ctx: Any, kind: str, read: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        found, *kept = _states_forward(kind, read, start, weight, bias)
        ctx.kind = kind
        ctx.save_for_backward(read, start, weight, bias, found, *kept)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        read, start, weight, bias, found, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: of the plain loop
            again = _loop(ctx.kind, read, start, weight, bias)
            parts = [part for part in (read, start, weight, bias) if part.requires_grad]
            made = iter(torch.autograd.grad(again, parts, gradient, create_graph=True))
            return None, *(next(made) if part.requires_grad else None for part in (read, start, weight, bias))
        previous = torch.cat([start.unsqueeze(0), found[:-1]])
        of_read, of_hidden, first = _states_backward(ctx.kind, gradient, found, kept, previous, weight)
        hidden = of_hidden.flatten(0, 1)
        return None, of_read, first, hidden.T @ previous.flatten(0, 1), hidden.sum(0)


def _loop(kind: str, read: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    state, found = start, []
    for given in read:
        hidden = F.linear(state, weight, bias)
        if kind == "gru":
            (r, u, n), (read_r, read_u, read_n) = hidden.chunk(3, -1), given.chunk(3, -1)
            state = torch.lerp((read_n + (read_r + r).sigmoid() * n).tanh(), state, (read_u + u).sigmoid())
        else:
            state = getattr(torch, kind)(given + hidden)
        found.append(state)
    return torch.stack(found)


def _forward(kind: str, read: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """[states, and for a GRU its gates r and u, n, and U h + d]."""
    width, state = start.shape[-1], start
    found = read.new_empty(*read.shape[:-1], width)
    if kind != "gru":
        act, across = getattr(torch, f"{kind}_"), weight.T
        for given, out in zip((read + bias).unbind(0), found.unbind(0), strict=True):
            state = act(torch.addmm(given, state, across, out=out))
        return [found]
    of_gates, of_new = weight[: 2 * width].T, weight[2 * width :].T
    gates, new, inner = read.new_empty(*read.shape[:-1], 2 * width), torch.empty_like(found), torch.empty_like(found)
    read_gates, read_new = read[..., : 2 * width] + bias[: 2 * width], read[..., 2 * width :]
    r, u = gates[..., :width], gates[..., width:]
    for given, given_n, g, r_t, u_t, n, i, out in zip(
        read_gates, read_new, gates, r, u, new, inner, found, strict=True
    ):
        torch.addmm(given, state, of_gates, out=g).sigmoid_()
        torch.addmm(bias[2 * width :], state, of_new, out=i)
        torch.addcmul(given_n, r_t, i, out=n).tanh_()
        state = torch.lerp(n, state, u_t, out=out)
    return [found, gates, new, inner]


def _backward(
    kind: str, gradient: Tensor, found: Tensor, kept: list[Tensor], previous: Tensor, weight: Tensor
) -> list[Tensor]:
    """Gradients of what each step reads, of W h + b, and of the first state."""
    if kind != "gru":
        slopes = (found > 0).to(found.dtype) if kind == "relu" else 1 - found.square()
        of_hidden, totals = _back(gradient, slopes.unsqueeze(-2), None, weight)
        return [of_hidden.clone(), of_hidden, totals[0]]
    gates, new, inner = kept
    width = new.shape[-1]
    r, u = gates[..., :width], gates[..., width:]
    of_new = (1 - u) * (1 - new.square())
    slopes = torch.stack([inner * r * (1 - r) * of_new, (previous - new) * u * (1 - u), of_new * r], -2)
    of_hidden, totals = _back(gradient, slopes, u, weight)
    of_read = torch.cat([of_hidden[..., : 2 * width], torch.stack(totals[1:]) * of_new], -1)
    return [of_read, of_hidden, totals[0]]


def _back(gradient: Tensor, slopes: Tensor, share: Tensor | None, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Gradients of W h + b at each step, shape (T, batch, G), and those of the states, of the one before the first on.

    Args:
        gradient: of the states from outside, shape (T, batch, width).
        slopes: of a state in W h + b, shape (T, batch, gates, width).
        share: of the last state that is kept, shape (T, batch, width); None for none.
        weight: W, shape (gates * width, width).
    """
    of_hidden = torch.empty_like(slopes)
    total, totals = gradient[-1], [gradient[-1]]
    outside = [torch.zeros_like(total), *gradient[:-1]]
    for t in reversed(range(len(outside))):
        of_step = torch.mul(total.unsqueeze(-2), slopes[t], out=of_hidden[t]).flatten(-2)
        before = outside[t] if share is None else torch.addcmul(outside[t], total, share[t])
        total = torch.addmm(before, of_step, weight)
        totals.append(total)
    return of_hidden.flatten(-2), totals[::-1]


def _shapes_forward(kind: str, read: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    width = start.shape[-1]
    widths = (width, 2 * width, width, width) if kind == "gru" else (width,)
    return [read.new_empty(*read.shape[:-1], w) for w in widths]


def _shapes_backward(
    kind: str, gradient: Tensor, found: Tensor, kept: list[Tensor], previous: Tensor, weight: Tensor
) -> list[Tensor]:
    of_hidden = found.new_empty(*found.shape[:-1], len(weight))
    return [of_hidden, torch.empty_like(of_hidden), found.new_empty(found.shape[1:])]


_states_forward = operation(
    "states_forward", "str kind, Tensor read, Tensor start, Tensor weight, Tensor bias", _forward, _shapes_forward
)
_states_backward = operation(
    "states_backward",
    "str kind, Tensor gradient, Tensor found, Tensor[] kept, Tensor previous, Tensor weight",
    _backward,
    _shapes_backward,
)
