"""Stochastic variational inference with one torch optimizer and parameters of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from dlvm.distributions.pyro_lock import TURN
from dlvm.inference.distributed.data_parallel import JointLosses, JointSteps, engine_of
from dlvm.inference.distributed.job import current
from dlvm.inference.engine.engine import Engine
from dlvm.inference.engine.optimizer import QuickStep, made
from dlvm.inference.engine.reported import engine_for
from dlvm.inference.engine.step import Step
from dlvm.inference.objectives.schedules import check_warm_up
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import count, real


class SVI:
    """Steps a model and a guide down an objective.

    It has the ``step`` and ``evaluate_loss`` of ``pyro.infer.SVI``. The parameters of modules are their own: nothing
    is read from or left in Pyro's global store, so two runs never share parameters by name. What a method declares by
    ``pyro.param`` or ``pyro.module`` belongs to its object, and Pyro's global store shows it. A model or guide that is
    a plain function keeps what it declares by ``pyro.param`` in that store, as always in Pyro; a module that it
    registers by ``pyro.module`` is trained itself, also where the store holds another one's parameters by that name.

    A parameter that a batch leaves without a gradient stays as it is at that step, as does its state in the optimizer;
    pyro.infer.SVI does so with parameters that it does not meet, and steps those that it meets by momentum alone.
    Gradients that others have left on parameters are cleared. Objectives that have gradients alone, as Pyro's
    ``TraceTailAdaptive_ELBO``, take the same steps as there; what is reported for them is the ELBO.

    From the second step on, a step need not go through Pyro: its operations are recorded once as a flat graph, checked
    against the ordinary step, and replayed ("captured") or compiled to fused kernels ("compiled"). Every 200 steps, and
    more often at first, one is made both ways and compared. What a program does besides computing, a print or an entry
    in a list, happens only when it runs by Pyro.

    On a rank of a job (see ``joined``) every rank calls with the same whole batch: each computes its part of the rows,
    and loss, gradient and step are those of the batch.

    Args:
        model, guide: Pyro programs of the same signature.
        optimizer: parameters -> torch optimizer, ``partial(torch.optim.Adam, lr=1e-3)`` for example.
        objective: any ``pyro.infer.ELBO``.
        clip_norm: largest L2 norm of the whole gradient of model and guide; None for no limit.
        engine: "eager" by Pyro at every step; "captured"; "compiled"; "auto" takes what repays its cost, and falls
            back wherever a step cannot be captured or compiled.
        precision: "fp32", or "bf16" to train linear and convolutional layers in bfloat16.
        steps: how many steps are planned, which lets "auto" tell what repays; None if nobody knows.
        skip_norm: no step is made where the L2 norm of the whole gradient is above it; None makes every step.

    Attributes:
        grad_norm: that norm, of the latest step.
        skipped: whether the latest step was not made, its gradient being above ``skip_norm``.

    Raises:
        TypeError: optimizer or objective is of another kind.
        ValueError: an unknown engine or precision; a warm-up longer than ``steps``; at the first step, if neither
            program has a parameter to train, or none gets a gradient.
        Refused, NoCompiler: the engine asked for by name cannot run this pair.
        Baked: a captured step holds a Python value that has changed since.
        NonFinite: loss or gradient is not finite; parameters are as they were before that step.

    References:
        Stochastic Variational Inference, Hoffman, Blei, Wang, Paisley, 2013, arXiv:1206.7051.
        Very Deep VAEs Generalize Autoregressive Models, Child, 2021, arXiv:2011.10650 (skipping).
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        objective: ELBO,
        clip_norm: float | None = None,
        engine: str = "auto",
        precision: str = "fp32",
        steps: int | None = None,
        skip_norm: float | None = None,
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
        check_norms(clip_norm=clip_norm, skip_norm=skip_norm)
        if steps is not None:
            count(steps=steps)
        check_warm_up(objective, steps)
        self.model, self.guide, self.objective, self.clip_norm = model, guide, objective, clip_norm
        self.pair, self.skip_norm = Pair(model, guide), skip_norm
        self.grad_norm, self.skipped, self._begun = float("nan"), False, False
        self.optimizer: torch.optim.Optimizer | None = None
        self._make_optimizer = optimizer
        self._step, job = Step(self.pair, objective, precision), current()
        engine = engine_for(engine, objective)
        step, engine = self._step, engine if job is None else engine_of(engine, objective)
        parts, stores = step.parts, step.stores
        self._steps = Engine(step.gradients, parts, engine, steps, stores, step.checked_gradients, name="engine")
        self._losses = Engine(step.loss, parts, engine, None, stores, step.checked_loss, prompt=False)
        self._joint = None if job is None else JointSteps(job, step, self._steps)
        self._gradients = self._joint or self._steps
        self._loss = self._losses if job is None else JointLosses(job, step, self._losses)

    def prepare(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Runs both programs once, so that every parameter exists, and makes the optimizer; spends no random number.

        Returns:
            the optimizer.
        """
        if self.optimizer is not None:
            return self.optimizer
        with TURN:
            self._step.find_parameters(args, kwargs)
            if self._joint is not None:
                self._joint.align()
            self.optimizer = made(self._make_optimizer, self._step.parameters)
            self._optimize = QuickStep(self.optimizer)
        return self.optimizer

    def require_gradient(self, *args: Any, **kwargs: Any) -> None:
        """Makes one gradient and leaves no trace of it; raises ValueError where no parameter gets one."""
        with TURN:
            self._step.require_gradient(args, kwargs)

    def step(self, *args: Any, **kwargs: Any) -> float | tuple[float, ...]:
        """One gradient step; returns the loss before it, in nats, summed over data (two if the objective has two).

        inf, as in pyro.infer.SVI, where the objective has gradients alone: ``evaluate_loss`` gives the ELBO then.
        """
        with TURN:
            self.prepare(*args, **kwargs)
            losses = self._descend(args, kwargs) or [math.inf]
        return losses[0] if len(losses) == 1 else tuple(losses)

    def _descend(self, args: tuple, kwargs: dict) -> list[float]:
        (*losses, self.grad_norm), gradients = self._gradients(*args, **kwargs)
        if not self._begun and all(gradient is None for gradient in gradients):
            self._step.refuse_none(gradients)
        self._begun = True
        self.skipped = self.skip_norm is not None and self.grad_norm > self.skip_norm
        if self.skipped:
            self._step.clear()
            return losses
        if self.clip_norm is not None and self.grad_norm > self.clip_norm:
            factor = self.clip_norm / self.grad_norm
            apart, pairs = self._step.beside, zip(self._step.parameters, gradients, strict=True)
            gradients = [g if g is None or id(p) in apart else g * factor for p, g in pairs]
        for parameter, gradient in zip(self._step.parameters, gradients, strict=True):
            parameter.grad = gradient
        try:
            self._optimize()
        finally:
            self._step.clear()
        return losses

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float | tuple[float, ...]:
        """The loss in nats, summed over data, without a step; minus the ELBO where there are gradients alone."""
        with TURN, torch.no_grad():
            losses, _ = self._loss(*args, **kwargs)
        return losses[0] if len(losses) == 1 else tuple(losses)

    def stores(self) -> list[dict]:
        """The dictionaries that hold what was declared by ``pyro.param``."""
        return self._step.stores()

    def store(self) -> AbstractContextManager:
        """Inside, Pyro's store is the one where this pair's ``pyro.param`` are."""
        return self._step.store()

    def stay_exact(self) -> None:
        """Makes "auto" compile nothing, so that every step is bitwise the one that Pyro makes."""
        self._steps.policy.compiles = False

    @property
    def has_loss(self) -> bool:
        """Whether a step tells a loss: once ``prepare`` has run, see ``reporting``."""
        return self._step.reported is self.objective

    @property
    def running(self) -> str:
        """What the latest step ran on: "eager", "captured" or "compiled"."""
        return self._steps.running


def check_norms(**norms: object) -> None:
    """Refuses, by its name, what is neither a positive number nor None."""
    for name, norm in norms.items():
        real(**{name: 1 if norm is None else norm})
        if norm is not None and not cast(float, norm) > 0:
            raise ValueError(f"{name} must be positive or None, got {norm}")
