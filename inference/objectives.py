"""Bounds on log p(x) as functions of the log-weights, in the form that Pyro's SVI and ours both accept."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.infer import ELBO
from pyro.util import warn_if_nan
from torch import Tensor

from inference.importance import log_mean_exp
from inference.weights import weigh


class Objective(ELBO):
    """A bound that is a function of the log-weights of one datum; particles are always drawn in parallel.

        loss = -sum_i scale_i bound(log_w[:, i])

    Subclasses say ``bound(log_w)``: shape (num_particles, batch) -> (batch,), in nats. Reduction to one weight per
    datum comes first, the bound second, plate and ``poutine.scale`` factors last, so that a subsampled plate gives
    an unbiased estimate of the full-data bound.

    Args:
        num_particles: K.

    Raises:
        ValueError: ``num_particles`` is not a positive integer.
    """

    def __init__(self, num_particles: int):
        if not isinstance(num_particles, int) or isinstance(num_particles, bool) or num_particles < 1:
            raise ValueError(f"num_particles must be a positive integer, got {num_particles!r}")
        super().__init__(num_particles=num_particles, vectorize_particles=True)

    def bound(self, log_w: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define bound(log_w), (num_particles, batch) -> (batch,)")

    def _get_trace(self, model, guide, args, kwargs):
        raise NotImplementedError("bounds over log-weights work on whole sets of particles, not on single traces")

    def differentiable_loss(self, model: Callable, guide: Callable, *args, **kwargs) -> Tensor:
        """Minus the bound, summed over data and scaled; a 0-d tensor in nats. Gradients need reparametrised sites."""
        weights = weigh(model, guide, args, kwargs, self.num_particles)
        return -(self.bound(weights.log_w) * weights.scale).sum()

    def loss(self, model: Callable, guide: Callable, *args, **kwargs) -> float:
        """``differentiable_loss`` as a number, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args, **kwargs) -> float:
        """``differentiable_loss`` as a number; adds its gradients to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        warn_if_nan(loss, "loss")
        return loss.item()


class IWAE(Objective):
    """The importance-weighted bound.

        L_K = E log 1/K sum_k w_k,   ELBO = L_1 <= L_K <= L_{K+1} <= log p(x)

    A lower bound on log p(x), differentiated through the particles and the weights (the total derivative).

    Args:
        num_particles: K.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> IWAE(2).bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """

    def __init__(self, num_particles: int = 5):
        super().__init__(num_particles)

    def __repr__(self) -> str:
        return f"IWAE(num_particles={self.num_particles})"

    def bound(self, log_w: Tensor) -> Tensor:
        return log_mean_exp(log_w)


class Renyi(Objective):
    """The variational Renyi bound, estimated by K particles.

        L_alpha = 1 / (1 - alpha) log E_q w^(1 - alpha) = log p(x) - D_alpha(q(z | x) || p(z | x))

    For 0 < alpha <= 1 a lower bound on log p(x) and, at alpha = 1, the ELBO; log p(x) itself at alpha = 0; an upper
    bound for alpha < 0. The K-particle estimate is biased downwards for alpha < 1; at alpha = 0 it is IWAE.

    Args:
        alpha: order, at most 1. Above 1, E_q w^(1 - alpha) need not be finite, and no estimate of it can be trusted.
        num_particles: K.

    Raises:
        ValueError: ``alpha`` is above 1 or not finite.

    References:
        Renyi Divergence Variational Inference, Li, Turner, 2016, arXiv:1602.02311.

    Example:
        >>> Renyi(0.5, 2).bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """

    def __init__(self, alpha: float = 0.5, num_particles: int = 5):
        if not (math.isfinite(alpha) and alpha <= 1):
            raise ValueError(
                f"alpha must be finite and at most 1, got {alpha}: above 1 the bound needs E_q w^(1 - alpha), which is "
                "infinite wherever the guide has heavier tails than the posterior by enough; use 0 <= alpha <= 1"
            )
        super().__init__(num_particles)
        self.alpha = alpha

    def __repr__(self) -> str:
        return f"Renyi(alpha={self.alpha}, num_particles={self.num_particles})"

    def bound(self, log_w: Tensor) -> Tensor:
        if self.alpha == 1:
            return log_w.mean(0)
        return log_mean_exp((1 - self.alpha) * log_w) / (1 - self.alpha)
