"""How a bound answers to each particle's log-weight: its slopes, its curvatures, and itself without one of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inference.powers import means_of_others

Bound = Callable[[Tensor], Tensor]


def slopes(bound: Bound, log_w: Tensor) -> Tensor:
    """d bound / d log w_k, shape (num_particles, batch), without gradient: 1 / K for the ELBO, w~_k for IWAE.

    Args:
        bound: (num_particles, batch) -> (batch,).
        log_w: shape (num_particles, batch).
    """
    with torch.enable_grad():
        point = log_w.detach().requires_grad_()
        return torch.autograd.grad(bound(point).sum(), point)[0]


def curvatures(bound: Bound, log_w: Tensor) -> Tensor:
    """d^2 bound / d (log w_k)^2, shape (num_particles, batch), without gradient: 0 for the ELBO, w~ - w~^2 for IWAE.

    The bound is taken at K copies of the weights, so that each particle's second derivative is found in its own copy:
    K^2 numbers per datum. A bound with a formula for it says so by a method ``curvatures``.
    """
    count, batch = log_w.shape
    with torch.enable_grad():
        point = log_w.detach().repeat(1, count).requires_grad_()
        (slope,) = torch.autograd.grad(bound(point).sum(), point, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(log_w)
        own = slope.view(count, count, batch).diagonal().sum()
        (curvature,) = torch.autograd.grad(own, point)
    return curvature.view(count, count, batch).diagonal().T


def left_out(bound: Bound, log_w: Tensor) -> Tensor:
    """The bound with log w_k replaced by the mean of the others, for each k: shape (num_particles, batch).

    It takes K copies of the weights, as ``curvatures`` does; a bound with a formula has a method ``left_out``.

    References:
        Variational Inference for Monte Carlo Objectives, Mnih, Rezende, 2016, arXiv:1602.06725.
    """
    count, batch = log_w.shape
    log_w = log_w.detach()
    own = torch.eye(count, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
    copies = torch.where(own, means_of_others(log_w), log_w.unsqueeze(1)).reshape(count, count * batch)
    return bound(copies).view(count, batch)
