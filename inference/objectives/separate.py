"""One bound for the model and another for the guide, from the same particles."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor

from dlvm.inference.estimators.estimator import Coefficients, Explicit, assemble
from dlvm.inference.estimators.pathwise import Total
from dlvm.inference.objectives.aided import Aided
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.wake_sleep import RWS, WakeSleep
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair


class Separate(Objective):
    """Parameters of the model follow one objective, those of the guide another; what is reported is the model's.

    Args:
        model: objective for theta, whose gradient is that of log p(x, z) with the bound's slopes as weights.
        guide: objective for phi, with as many particles.

    Raises:
        ValueError: particle numbers differ, ``model`` is an upper bound or has an estimator, or an objective has a
            gradient that is not made of coefficients (relaxations, wake-sleep), an aid or an analytic KL.
        TypeError: one of them is no objective of ours.

    Example:
        >>> from dlvm.inference import IWAE, MIWAE
        >>> Separate(model=IWAE(4), guide=MIWAE(2, 2))
        Separate(model=IWAE(num_particles=4), guide=MIWAE(groups=2, num_particles=2))
    """

    def __init__(self, model: Objective, guide: Objective):
        for name, part in (("model", model), ("guide", guide)):
            if not isinstance(part, Objective):
                raise TypeError(f"{name} must be an objective of inference, as IWAE(5), got {part!r}")
            more = isinstance(part, Aided | Separate | WakeSleep | RWS) or not isinstance(part.estimator, Explicit)
            if more or not part.apart or getattr(part, "analytic_kl", False):
                raise ValueError(f"{name}={part!r} is more than sampled weights and coefficients; step it by itself")
        if model.bound.side == "upper" or type(model.estimator) is not Total:
            raise ValueError(
                f"model={model!r} must be a bound to be raised, and with Total(): estimators are for the guide alone"
            )
        if model.num_particles != guide.num_particles:
            raise ValueError(
                f"model and guide must have as many particles, got {model.num_particles} and {guide.num_particles}"
            )
        super().__init__(replace(model.bound, linear=False), model.num_particles)  # what the guide follows need not be
        self.model, self.guide = model, guide

    def __repr__(self) -> str:
        return f"Separate(model={self.model!r}, guide={self.guide!r})"

    def draw(self, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        return self.guide.draw(pair, args, kwargs)

    def require(self, particles: Particles) -> None:
        self.guide.require(particles)  # of the model's objective, only what it gives theta counts

    def coefficients(self, particles: Particles) -> Coefficients:
        """The slopes of the model's bound for theta, and for phi what the guide's objective says."""
        theta, phi = self.model.bound.slopes(particles.log_w), self.guide.coefficients(particles)
        return cast(Coefficients, phi)._replace(model=theta)  # a guide's objective without them was refused

    def surrogate(self, particles: Particles, value: Tensor | None = None) -> Tensor:
        return assemble(self.coefficients(particles), particles)
