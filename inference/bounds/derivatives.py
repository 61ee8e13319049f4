"""What a function of log-weights answers to each of them, by autograd: slopes, curvatures, itself without one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlvm.inference.bounds.power_means import means_of_others

OfWeights = Callable[[Tensor], Tensor]
NUMBERS_AT_ONCE = 2**20


def slopes(bound: OfWeights, log_w: Tensor) -> Tensor:
    """d bound / d log w_k, shape (num_particles, batch), without gradient: 1 / K for the ELBO, w~_k for IWAE.

    Args:
        bound: (num_particles, batch) -> (batch,).
        log_w: shape (num_particles, batch).
    """
    with torch.enable_grad():
        point = log_w.detach().requires_grad_()
        return torch.autograd.grad(bound(point).sum(), point)[0]


def curvatures(bound: OfWeights, log_w: Tensor) -> Tensor:
    """d^2 bound / d (log w_k)^2, shape (num_particles, batch), without gradient: 0 for the ELBO, w~ - w~^2 for IWAE.

    The bound is taken at K copies of the weights, a few at a time, and each particle's second derivative is found in
    its own copy: K^2 numbers per datum. A bound with a formula for it has it as its ``curvature``.
    """
    found = []
    for own in _few(log_w):
        with torch.enable_grad():
            point = log_w.detach().repeat(1, len(own)).requires_grad_()
            (slope,) = torch.autograd.grad(bound(point).sum(), point, create_graph=True)
            if not slope.requires_grad:
                return torch.zeros_like(log_w)
            (curvature,) = torch.autograd.grad(_own(slope, own).sum(), point)
        found.append(_own(curvature, own))
    return torch.cat(found)


def left_out(bound: OfWeights, log_w: Tensor) -> Tensor:
    """The bound with log w_k replaced by the mean of the others, for each k: shape (num_particles, batch).

    It takes K copies of the weights, as ``curvatures`` does; a bound with a formula has it as its ``without``.

    References:
        Variational Inference for Monte Carlo Objectives, Mnih, Rezende, 2016, arXiv:1602.06725.
    """
    return replaced(bound, log_w.detach(), means_of_others(log_w.detach()))


def replaced(bound: OfWeights, log_w: Tensor, others: Tensor) -> Tensor:
    """The bound with log w_k replaced by the k-th of others, for each k: all (num_particles, batch)."""
    found = []
    for own in _few(log_w):
        here = torch.zeros(len(log_w), len(own), 1, dtype=torch.bool, device=log_w.device)
        here[own, torch.arange(len(own), device=own.device)] = True
        copies = torch.where(here, others[own], log_w.unsqueeze(1)).flatten(1)
        found.append(bound(copies).view(len(own), -1))
    return torch.cat(found)


def _few(log_w: Tensor) -> tuple[Tensor, ...]:
    """The particles' numbers, so many at a time that as many copies of the weights stay in the processor's cache."""
    return torch.arange(len(log_w), device=log_w.device).split(max(1, NUMBERS_AT_ONCE // max(1, log_w.numel())))


def _own(values: Tensor, own: Tensor) -> Tensor:
    """Of copies (num_particles, copies * batch), each copy's own particle: (copies, batch)."""
    return values.unflatten(1, (len(own), -1))[own, torch.arange(len(own), device=own.device)]
