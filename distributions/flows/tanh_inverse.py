"""What the inverses of planar and Sylvester steps solve: x + m tanh(x) = d for x, one by one or many that depend."""

from __future__ import annotations

import torch
from torch import Tensor


def unbent(d: Tensor, m: Tensor) -> Tensor:
    """The x with x + m tanh(x) = d, for m > -1: the increasing map that a bent step is along one direction, inverted.

    Two steps of Newton's from the root on carry the graph, so that first and second derivatives are exact. The error of
    x is that of d divided by the slope 1 + m (1 - tanh(x)^2), which no inverse can avoid.

    Returns:
        shape of ``d`` and ``m``, which broadcast.

    Example:
        >>> unbent(torch.tensor([0.0, 1.0 + 2.0 * 0.76159416]), torch.tensor(2.0)).round(decimals=4)
        tensor([0., 1.])
    """
    x = _root(d, m)
    for _ in range(2):
        t = torch.tanh(x)
        x = x - (x + m * t - d) / (1 + m * (1 - t.square()))
    return x


def unbent_triangular(d: Tensor, m: Tensor) -> Tensor:
    """The vector x with x + M tanh(x) = d, for an upper triangular M whose diagonal is above -1; see ``unbent``.

    Returns:
        shape (*batch, M).

    Args:
        d: shape (*batch, M).
        m: shape (*batch, M, M); batches broadcast.

    Example:
        >>> x, m = torch.tensor([1.0, -2.0]), torch.tensor([[3.0, 5.0], [0.0, -0.5]])
        >>> unbent_triangular(x + m @ torch.tanh(x), m).round(decimals=4)
        tensor([ 1., -2.])
    """
    x, eye = _triangular_root(d.detach(), m.detach()), torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
    for _ in range(2):
        t = torch.tanh(x)
        off = x + (m @ t.unsqueeze(-1)).squeeze(-1) - d
        jacobian = eye + m * (1 - t.square()).unsqueeze(-2)
        x = x - torch.linalg.solve_triangular(jacobian, off.unsqueeze(-1), upper=True).squeeze(-1)
    return x


@torch.no_grad()
def _root(d: Tensor, m: Tensor) -> Tensor:
    """The same without a graph: |x| lies between |d| and where Halley's iteration starts; m may be as large as 1e5."""
    size, bends_back = d.abs(), m < 0
    straight, saturated = size / (1 + m), size - m  # where tanh(x) is replaced by x, and by 1
    end = torch.where(bends_back, torch.minimum(straight, saturated), torch.maximum(straight, saturated))
    low, high = torch.minimum(size, end), torch.maximum(size, end)
    x = torch.where(bends_back, torch.minimum(end, (8 * size).pow(1 / 3)), end)  # x - tanh(x) > x^3 / 8 below 2
    for _ in range(6):
        t = torch.tanh(x)
        bend = m * (1 - t.square())
        slope, off = 1 + bend, x + m * t - size
        x = (x - off * slope / (slope.square() + bend * t * off)).clamp(low, high)
    return x * d.sign()


@torch.library.custom_op("distributions::triangular_root", mutates_args=())
def _triangular_root(d: Tensor, m: Tensor) -> Tensor:
    """One scalar root after the other, from the last to the first; a single operation for whoever records it."""
    x = _empty(d, m)
    d, m = d.expand_as(x), m.expand(*x.shape, -1)
    for i in reversed(range(x.shape[-1])):
        known = (m[..., i, i + 1 :] * torch.tanh(x[..., i + 1 :])).sum(-1)
        x[..., i] = _root(d[..., i] - known, m[..., i, i])
    return x


@_triangular_root.register_fake
def _empty(d: Tensor, m: Tensor) -> Tensor:
    return d.new_empty(torch.broadcast_shapes(d.shape, m.shape[:-1]))
