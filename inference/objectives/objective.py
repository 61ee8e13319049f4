"""What is maximised, and how it is differentiated, in the form that Pyro's SVI and ours both accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro import infer
from pyro.infer.elbo import ELBOModule
from pyro.util import warn_if_nan
from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound, called
from dlvm.inference.estimators.estimator import Coefficients, Estimator, Explicit, assemble, shown
from dlvm.inference.estimators.pathwise import Total
from dlvm.inference.particles.latent_densities import refuse_points
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import is_count

_NAMES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # no copy shares its original's name in Pyro's store
_SERIALS = count()


class Fixed:
    """An attribute that is set once, by the constructor, since the bound is made of it.

    The engine watches what lies on an objective, and would not see that its bound is another one.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        try:
            return vars(instance)[self.name]
        except KeyError:
            raise AttributeError(f"{type(instance).__name__} has no {self.name} yet") from None

    def __set__(self, instance: object, value: object) -> None:
        if self.name in vars(instance):
            raise AttributeError(
                f"{self.name} of {instance!r} is read-only, since its bound is made of it; make a new objective"
            )
        vars(instance)[self.name] = value


class Objective(nn.Module, infer.ELBO):
    """A bound that is trained on by an estimator of its gradient; particles are drawn in parallel where that is right.

        loss = -sum_i scale_i bound(log_w[:, i]) - shared

    Reduction to one weight per datum comes first, the bound second, plate and ``poutine.scale`` factors last, so that a
    subsampled plate gives an unbiased estimate of the full-data bound. What is observed beside the data, as by
    ``pyro.factor`` outside their plates, is ``shared``: it counts once for a batch. The estimator is a separate choice:
    it decides how the bound is differentiated, and never what is reported. An upper bound is lowered by the guide, and
    gives parameters of the model no gradient.

    Args:
        bound: a function of log-weights, (num_particles, batch) -> (batch,), as a ``Bound``.
        num_particles: K.
        estimator: of the gradient, ``Total()`` unless told: ``STL()``, ``DReG()``, ``VIMCO()``, ...

    Raises:
        ValueError: ``num_particles`` is not a positive integer, or the estimator is not defined for the bound.
        TypeError: ``bound`` is no bound, or ``estimator`` no estimator.

    Example:
        >>> least = Objective(Bound(lambda log_w: log_w.amin(0), smooth=False), num_particles=2)
        >>> least.bound(torch.tensor([[0.0], [1.0]]))
        tensor([0.])
    """

    bound = Fixed()
    apart = True  # whether its weights are sums over latent sites, which aids count otherwise

    def __init__(self, bound: Bound, num_particles: int = 1, estimator: Estimator | None = None):
        if not isinstance(bound, Bound):
            raise TypeError(f"bound must be a Bound, as Bound(lambda log_w: log_w.mean(0)), got {bound!r}")
        if not is_count(num_particles):
            raise ValueError(f"num_particles must be a positive integer, got {num_particles!r}")
        if not isinstance(estimator, Estimator | None):
            raise TypeError(f"estimator must be one of inference's, as Total() or DReG(), got {estimator!r}")
        nn.Module.__init__(self)
        infer.ELBO.__init__(self, num_particles=int(num_particles), vectorize_particles=True)
        own = type(self).__name__ if type(self) is not Objective else called(bound.value)
        self.bound = bound if bound.name else replace(bound, name=own)
        self.estimator = Total() if estimator is None else estimator
        if self.bound.side == "upper" and not isinstance(self.estimator, Explicit):
            raise ValueError(
                f"{self.estimator!r} is not defined for {self.bound.name}; use Total(), DReG() or ScoreFunction()"
            )
        self.estimator.accept(self.bound, self.num_particles)

    def __call__(self, model: nn.Module, guide: nn.Module) -> ELBOModule:
        """A module whose value on a batch is ``differentiable_loss``."""
        return ELBOModule(model, guide, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([*self._settings(), *self._suffix()])})"

    def _settings(self) -> list[str]:
        return [*([repr(self.bound)] if type(self) is Objective else []), f"num_particles={self.num_particles}"]

    def _suffix(self) -> list[str]:
        return [] if isinstance(self.estimator, Total) else [f"estimator={self.estimator!r}"]

    def draw(self, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        """The particles that the bound is computed from."""
        return self.estimator.draw(self.bound, self.num_particles, pair, args, kwargs)

    def value(self, particles: Particles) -> Tensor:
        """What is reported, shape (batch,), in nats."""
        return self.bound(particles.log_w)

    def require(self, particles: Particles) -> None:
        """Raises ValueError where this objective cannot treat what was drawn."""
        refuse_points(particles.drawn, self.bound.name)
        self.estimator.require(self.bound, particles)

    def coefficients(self, particles: Particles) -> Coefficients | None:
        """What the particles' derivatives are multiplied by in the gradient; None where it is made otherwise."""
        if not isinstance(self.estimator, Explicit):
            return None
        found = self.estimator.coefficients(self.bound, particles)
        if self.bound.side != "upper":
            return found
        path, score, jump = (None if part is None else -part for part in (found.path, found.score, found.jump))
        return Coefficients(None, path, score, jump, found.extra)

    def surrogate(self, particles: Particles, value: Tensor | None = None) -> Tensor:
        """A 0-d tensor whose gradient is the estimate of the bound's; ``value`` is the bound itself, if it is known."""
        if self.bound.side == "upper" and (downhill := self.coefficients(particles)) is not None:
            return assemble(downhill, particles)
        return self.estimator.surrogate(self.bound, particles, value)

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> NoReturn:
        raise NotImplementedError("bounds over log-weights work on whole sets of particles, not on single traces")

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over data and scaled; a 0-d tensor in nats whose gradient is the estimator's."""
        if next(self.parameters(), None) is not None:  # where stock SVI looks for what is to be trained
            pyro.module(_NAMES.setdefault(self, f"objective_{next(_SERIALS)}"), self)
        particles = self.draw(Pair.as_they_are(model, guide), args, kwargs)
        self.require(particles)
        value = particles.total(self.value(particles))
        if torch.is_grad_enabled():
            trained = self.surrogate(particles, value)
            if trained is not value:
                value = shown(value, trained)
        if particles.shared is not None:
            value = value + (particles.shared.detach() if self.bound.side == "upper" else particles.shared)
        return -value

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """``differentiable_loss`` as a number, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """``differentiable_loss`` as a number; adds its gradients to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        warn_if_nan(loss, "loss")
        return loss.item()
