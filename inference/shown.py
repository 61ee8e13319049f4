"""One tensor's value with another's gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def shown(value: Tensor, trained: Tensor) -> Tensor:
    """``value``, differentiated as if it were ``trained``; both of one shape.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> y = shown(torch.tensor(1.0), x.square())
        >>> y.item(), torch.autograd.grad(y, x)[0].item()
        (1.0, 6.0)
    """
    return _Shown.apply(trained, value.detach())


class _Shown(torch.autograd.Function):
    @staticmethod
    def forward(ctx, trained: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
