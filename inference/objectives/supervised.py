"""Labels as a teacher of the guide: the classification loss beside a bound."""

from __future__ import annotations

import math

import torch
from pyro import infer
from torch import Tensor, nn

from dlvm.inference.objectives.aided import Aided
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real


def supervised(objective: infer.ELBO, weight: float = 1.0) -> Aided:
    """Lets labels train the guide's view of the class, which the bound of a labelled datum does not.

        bound + weight sum_i log q(y_i | x_i),   i with a label

    What is reported stays the objective's own bound. In the reference, weight is 0.1 N / N_labelled.

    Returns:
        an objective.

    Args:
        objective: any of ours, aided ones included, as ``supervised(tempered(ELBO(), beta))``.
        weight: alpha, for each label.

    Raises:
        TypeError: ``objective`` is none of ours, or ``weight`` no number.
        ValueError: ``weight`` is negative or not finite.

    References:
        Semi-supervised Learning with Deep Generative Models, Kingma, Rezende, Mohamed, Welling, 2014, arXiv:1406.5298.

    Example:
        >>> from dlvm.inference import ELBO
        >>> supervised(ELBO(), weight=50.0)
        supervised(ELBO(num_particles=1), weight=50)
    """
    return Aided(objective, Supervision(weight))


class Supervision(nn.Module):
    """The aid of ``supervised``."""

    name = "supervised"

    def __init__(self, weight: float):
        super().__init__()
        real(weight=weight)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}; it is what each label counts")
        self.weight = weight

    def __repr__(self) -> str:
        return f"weight={self.weight:g}"

    def accept(self, objective: Objective) -> None:
        """Any objective can be supervised."""

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        bound = objective.surrogate(particles, value)
        found = [log_q for site in particles.drawn if (log_q := (site["infer"] or {}).get("log_q_label")) is not None]
        return bound + self.weight * sum(map(particles.total, map(_per_datum, found)), torch.zeros(()).to(bound))


def _per_datum(log_q: Tensor) -> Tensor:
    """(*particles, batch) -> (batch,)."""
    return log_q.reshape(-1, log_q.shape[-1]).mean(0)
