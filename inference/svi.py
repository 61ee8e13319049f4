"""Stochastic variational inference with one torch optimizer and parameters of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from inference.faults import NonFinite, broken_gradient, locate
from inference.modes import evaluation_mode
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
        probing = evaluation_mode(self.model, self.guide)
        with untouched(), torch.no_grad(), probing, poutine.trace(param_only=True) as handler:
            self.objective.loss(*self._programs, *args, **kwargs)
        self.optimizer = self._make_optimizer(trainable((self.model, self.guide, self.objective), [handler.trace]))

    def step(self, *args, **kwargs) -> float | tuple[float, ...]:
        """One gradient step; returns the loss before it, in nats, summed over data (two if the objective has two)."""
        self.prepare(*args, **kwargs)
        try:
            with self._located(args, kwargs):
                loss = self.objective.loss_and_grads(*self._programs, *args, **kwargs)
                gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
                gradients = [gradient for gradient in gradients if gradient is not None]
                self.grad_norm = torch.nn.utils.get_total_norm(gradients).item()
                _require_finite(loss, self.grad_norm)
            if self.clip_norm is not None and self.grad_norm > self.clip_norm:
                torch._foreach_mul_(gradients, self.clip_norm / self.grad_norm)
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad()
        return loss

    def evaluate_loss(self, *args, **kwargs) -> float | tuple[float, ...]:
        """The loss in nats, summed over data, without a step."""
        with torch.no_grad(), self._located(args, kwargs):
            loss = self.objective.loss(*self._programs, *args, **kwargs)
            _require_finite(loss)
        return loss

    @contextmanager
    def _located(self, args: tuple, kwargs: dict) -> Iterator[None]:
        """Turns an error about numbers that are not finite into one that says where they came from."""
        before = generator_state()
        try:
            yield
        except (NonFinite, ValueError) as error:
            place = locate(self.model, self.guide, args, kwargs, before) or broken_gradient(self.model, self.guide)
            if place is None:
                raise
            said = f"{error}: " if isinstance(error, NonFinite) else ""
            raise NonFinite(f"{said}not finite in {place}; no step was taken") from error


def _require_finite(loss: float | tuple[float, ...], grad_norm: float = 0.0) -> None:
    losses = loss if isinstance(loss, tuple) else (loss,)
    if not all(map(math.isfinite, (*losses, grad_norm))):
        raise NonFinite(f"loss {loss}, gradient norm {grad_norm}")
