"""Log-potentials of classes: what chains weigh paths by, one or several of them side by side."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def check_potentials(**given: tuple[Tensor, int]) -> None:
    """Refuses, by its name, what is no tensor of log-potentials with so many dimensions, or more.

    Raises:
        ValueError: one is none.

    Example:
        >>> check_potentials(moves=(3, 2))
        Traceback (most recent call last):
        ValueError: moves must be a tensor of log-potentials with 2 dimensions or more, got int
    """
    for name, (value, least) in given.items():
        if not isinstance(value, Tensor) or value.dim() < least or not value.is_floating_point() or not value.numel():
            got = f"shape {tuple(value.shape)} and {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} must be a tensor of log-potentials with {least} dimensions or more, got {got}")


def times(weight: Tensor, log_potential: Tensor) -> Tensor:
    """weight * log_potential, where nothing times -inf is nothing."""
    return torch.where(weight == 0, torch.zeros((), dtype=weight.dtype, device=weight.device), weight * log_potential)


def pick(logits: Tensor) -> Tensor:
    """The number of a class, drawn by logits over the last dimension.

    Example:
        >>> pick(torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]]))
        tensor([0, 1])
    """
    uniform = torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).tiny)
    return (logits - (-uniform.log()).log()).argmax(-1)


def spread(each: Tensor) -> list[Tensor]:
    """What each of C chains says, (*shape, C, K), on dimensions of their own: (*shape, 1, ..., K, ..., 1).

    Example:
        >>> [each.shape for each in spread(torch.zeros(5, 2, 3))]
        [torch.Size([5, 3, 1]), torch.Size([5, 1, 3])]
    """
    chains = each.shape[-2]
    return [
        chain.reshape(*chain.shape[:-1], *[1] * c, chain.shape[-1], *[1] * (chains - 1 - c))
        for c, chain in enumerate(each.unbind(-2))
    ]


def outer(logs: Tensor) -> Tensor:
    """Log of the product over chains for each joint class, (*shape, K, ..., K), of what each says, (*shape, C, K).

    Example:
        >>> outer(torch.tensor([[0.0, 1.0], [10.0, 20.0]]))
        tensor([[10., 20.],
                [11., 21.]])
    """
    return reduce(torch.add, spread(logs))
