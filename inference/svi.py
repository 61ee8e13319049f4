"""Stochastic variational inference with one torch optimizer and parameters of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from inference.faults import NonFinite, locate, mentions_non_finite
from inference.ownership import own, trainable
from inference.randomness import generator_state, untouched


class SVI:
    """Steps a model and a guide down an objective.

    It has the ``step`` and ``evaluate_loss`` of ``pyro.infer.SVI``. The parameters of modules are their own: nothing
    is read from or left in Pyro's global store, so two runs never share parameters by name. A model or guide that is a
    plain function keeps what it declares by ``pyro.param`` in that store, as always in Pyro.

    Args:
        model, guide: Pyro programs of the same signature.
        optimizer: parameters -> torch optimizer, ``partial(torch.optim.Adam, lr=1e-3)`` for example.
        objective: any ``pyro.infer.ELBO``.
        clip_norm: largest L2 norm of the whole gradient; None for no limit.

    Raises:
        TypeError: optimizer or objective is of another kind.
        ValueError: at the first step, if neither program has a parameter to train.
        NonFinite: loss or gradient is not finite; parameters are as they were before that step.

    References:
        Stochastic Variational Inference, Hoffman, Blei, Wang, Paisley, 2013, arXiv:1206.7051.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        objective: ELBO,
        clip_norm: float | None = None,
    ):
        if isinstance(optimizer, (PyroOptim, torch.optim.Optimizer)) or not callable(optimizer):
            raise TypeError(
                f"optimizer must make a torch optimizer from parameters, got {type(optimizer).__name__}; "
                "write partial(torch.optim.Adam, lr=1e-3), or use pyro.infer.SVI with Pyro's optimizers"
            )
        if not isinstance(objective, ELBO):
            raise TypeError(
                f"objective must be an instance of pyro.infer.ELBO, got {objective!r}; write Trace_ELBO() or IWAE(5)"
            )
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive or None, got {clip_norm}")
        self.model, self.guide, self.objective, self.clip_norm = model, guide, objective, clip_norm
        self.grad_norm = float("nan")
        self.optimizer: torch.optim.Optimizer | None = None
        self._make_optimizer = optimizer
        self._programs = own(model), own(guide)

    def prepare(self, *args, **kwargs) -> None:
        """Runs both programs once, so that every parameter exists, and makes the optimizer; spends no random number."""
        if self.optimizer is not None:
            return
        with untouched(), torch.no_grad(), poutine.trace(param_only=True) as handler:
            self.objective.loss(*self._programs, *args, **kwargs)
        self.optimizer = self._make_optimizer(trainable((self.model, self.guide, self.objective), [handler.trace]))

    def step(self, *args, **kwargs) -> float | tuple[float, ...]:
        """One gradient step; returns the loss before it, in nats, summed over data (two, where the objective has two)."""
        self.prepare(*args, **kwargs)
        before = generator_state()
        try:
            loss = self.objective.loss_and_grads(*self._programs, *args, **kwargs)
        except ValueError as error:
            if not mentions_non_finite(error):
                raise
            raise NonFinite(
                f"not finite in {locate(self.model, self.guide, args, before)}; no step was taken"
            ) from error
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.grad_norm = norm.item()
        losses = loss if isinstance(loss, tuple) else (loss,)
        if not all(map(math.isfinite, (*losses, self.grad_norm))):
            place = locate(self.model, self.guide, args, before)
            self.optimizer.zero_grad()
            raise NonFinite(f"loss {loss}, gradient norm {self.grad_norm}: not finite in {place}; no step was taken")
        if self.clip_norm is not None and self.grad_norm > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / self.grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def evaluate_loss(self, *args, **kwargs) -> float | tuple[float, ...]:
        """The loss in nats, summed over data, without a step."""
        with torch.no_grad():
            return self.objective.loss(*self._programs, *args, **kwargs)
