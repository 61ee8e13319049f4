"""What is maximised, and how it is differentiated, in the form that Pyro's SVI and ours both accept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro import infer
from pyro.infer.elbo import ELBOModule
from pyro.util import warn_if_nan
from torch import Tensor, nn

from dlvm.inference.bounds.bound import curvatures, left_out
from dlvm.inference.estimators.estimator import Coefficients, Estimator, shown
from dlvm.inference.estimators.pathwise import Total
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import is_count

_NAMES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # no copy shares its original's name in Pyro's store
_SERIALS = count()


class Objective(nn.Module, infer.ELBO):
    """A bound that is a function of the log-weights of one datum; particles are always drawn in parallel.

        loss = -sum_i scale_i bound(log_w[:, i])

    Subclasses say ``bound(log_w)``: shape (num_particles, batch) -> (batch,), in nats, each datum by itself. Reduction
    to one weight per datum comes first, the bound second, plate and ``poutine.scale`` factors last, so that a
    subsampled plate gives an unbiased estimate of the full-data bound. The estimator is a separate choice: it decides
    how the bound is differentiated, and never what is reported.

    Attributes:
        lower: whether the bound stays below log p(x) in expectation, so that higher is better.
        linear: whether the bound is linear in log_w.
        smooth: whether the bound has continuous slopes.
        plain: whether it is ``bound(log_w)`` and nothing else.
        upper: whether it is lowered, by the guide alone.

    Args:
        num_particles: K.
        estimator: of the gradient, ``Total()`` unless told: ``STL()``, ``DReG()``, ``VIMCO()``, ...

    Raises:
        ValueError: ``num_particles`` is not a positive integer, or the estimator is not defined for the bound.
        TypeError: ``estimator`` is no estimator.

    Example:
        >>> class Least(Objective):
        ...     def bound(self, log_w):
        ...         return log_w.amin(0)
        >>> Least(2).bound(torch.tensor([[0.0], [1.0]]))
        tensor([0.])
    """

    lower, linear, smooth, plain, upper = True, False, True, True, False

    def __init__(self, num_particles: int = 1, estimator: Estimator | None = None):
        if not is_count(num_particles):
            raise ValueError(f"num_particles must be a positive integer, got {num_particles!r}")
        if not isinstance(estimator, Estimator | None):
            raise TypeError(f"estimator must be one of inference's, as Total() or DReG(), got {estimator!r}")
        nn.Module.__init__(self)
        infer.ELBO.__init__(self, num_particles=int(num_particles), vectorize_particles=True)
        self.estimator = Total() if estimator is None else estimator
        self.estimator.accept(self)

    def __call__(self, model: nn.Module, guide: nn.Module) -> nn.Module:
        """A module whose value on a batch is ``differentiable_loss``."""
        return ELBOModule(model, guide, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([*self._settings(), *self._suffix()])})"

    def _settings(self) -> list[str]:
        return [f"num_particles={self.num_particles}"]

    def _suffix(self) -> list[str]:
        return [] if isinstance(self.estimator, Total) else [f"estimator={self.estimator!r}"]

    def bound(self, log_w: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define bound(log_w), (num_particles, batch) -> (batch,)")

    def signals(self, log_w: Tensor) -> Tensor:
        """The learning signal of each particle's score: what of the bound depends on it, (num_particles, batch)."""
        return self.bound(log_w).expand_as(log_w)

    def curvatures(self, log_w: Tensor) -> Tensor:
        """d^2 bound / d (log w_k)^2, shape (num_particles, batch): what DReG takes off each particle's share."""
        return curvatures(self.bound, log_w)

    def left_out(self, log_w: Tensor) -> Tensor:
        """The bound with log w_k replaced by the mean of the others, (num_particles, batch): VIMCO's baseline."""
        return left_out(self.bound, log_w)

    def draw(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Particles:
        """The particles that the bound is computed from."""
        return self.estimator.draw(self, model, guide, args, kwargs)

    def value(self, particles: Particles) -> Tensor:
        """What is reported, shape (batch,), in nats."""
        return self.bound(particles.log_w)

    def require(self, particles: Particles) -> None:
        """Raises ValueError where this objective cannot treat what was drawn."""
        self.estimator.require(self, particles)

    def coefficients(self, particles: Particles) -> Coefficients:
        """What the particles' derivatives are multiplied by in the gradient."""
        return self.estimator.coefficients(self, particles)

    def surrogate(self, particles: Particles, bound: Tensor | None = None) -> Tensor:
        """A 0-d tensor whose gradient is the estimate of the bound's; ``bound`` is the bound itself, if it is known."""
        return self.estimator.surrogate(self, particles, bound)

    def _get_trace(self, model, guide, args, kwargs):
        raise NotImplementedError("bounds over log-weights work on whole sets of particles, not on single traces")

    def differentiable_loss(self, model: Callable, guide: Callable, *args, **kwargs) -> Tensor:
        """Minus the bound, summed over data and scaled; a 0-d tensor in nats whose gradient is the estimator's."""
        if next(self.parameters(), None) is not None:  # where stock SVI looks for what is to be trained
            pyro.module(_NAMES.setdefault(self, f"objective_{next(_SERIALS)}"), self)
        particles = self.draw(model, guide, args, kwargs)
        self.require(particles)
        bound = particles.total(self.value(particles))
        if torch.is_grad_enabled():
            trained = self.surrogate(particles, bound)
            if trained is not bound:
                bound = shown(bound, trained)
        return -bound

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
