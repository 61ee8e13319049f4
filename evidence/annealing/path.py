"""The way from a density that can be drawn from to a posterior, and the temperatures along it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlvm.evidence.annealing.hmc import Point
from dlvm.evidence.target import Target
from dlvm.nets.arguments import count

Schedule = Callable[[int], Tensor]
STEEPNESS = 4.0


class Path:
    """Densities between prior or guide and joint, as two terms of which a temperature is a weighting.

        log f_b = log p(u) + b log p(x | u)   or   (1 - b) log q(u | x) + b log p(x, u),   0 <= b <= 1

    Called, it returns the two terms, each of shape (num_chains, num_data), nats.

    Args:
        target: of a batch.
        guide: with the model's latent sites alone; None to start from the prior.

    Raises:
        ValueError: the guide draws other sites.
    """

    def __init__(self, target: Target, guide: Callable | None = None):
        self.target, self.guide = target, guide
        if guide is None:
            return
        drawn = target.drawn_by(guide)
        if drawn != target.sites.keys():
            raise ValueError(
                f"guide draws the sites {sorted(drawn)}, expected the model's latent sites {sorted(target.sites)} and "
                "no others, since its density at any z is needed; choose another guide, or start from the prior"
            )
        target.accept(guide)

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        prior, likelihood = self.target(u)
        return (prior, likelihood) if self.guide is None else (self.target.log_q(self.guide, u), prior + likelihood)

    def weights(self, b: float) -> tuple[float, float]:
        """log f_b = sum_i weights_i terms_i."""
        return (1.0 if self.guide is None else 1.0 - b), b

    def change(self, point: Point) -> Tensor:
        """d log f_b / db, shape (num_chains, num_data), in double precision; it does not depend on b."""
        start, end = point.terms.double()
        return end if self.guide is None else end - start

    def draw(self, num_chains: int) -> Tensor:
        """Exact draws where b = 0, shape (num_chains, num_data, dim)."""
        return self.target.draw(self.target.model if self.guide is None else self.guide, num_chains)


def sigmoid(temperatures: int) -> Tensor:
    """b_0..b_T dense at both ends, a logistic curve over [-4, 4] brought to [0, 1]; double precision.

    Example:
        >>> [round(b, 3) for b in sigmoid(4).tolist()]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    count(temperatures=temperatures)
    curve = torch.sigmoid(STEEPNESS * torch.linspace(-1, 1, temperatures + 1, dtype=torch.float64))
    return ((curve - curve[0]) / (curve[-1] - curve[0])).clamp(0, 1)


def linear(temperatures: int) -> Tensor:
    """b_t = t / T, double precision."""
    count(temperatures=temperatures)
    return torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)


def inverse_temperatures(schedule: Schedule, temperatures: int) -> Tensor:
    """b_0..b_T of a schedule, in double precision.

    Raises:
        TypeError: the schedule is no function.
        ValueError: T is below 1, or the values do not rise from 0 to 1.
    """
    count(temperatures=temperatures)
    if not callable(schedule):
        raise TypeError(f"schedule must be a function T -> b_0..b_T, such as sigmoid or linear, got {schedule!r}")
    given = schedule(temperatures)
    try:
        betas = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"schedule must give a tensor of T + 1 numbers, got {type(given).__name__} ({error}); use sigmoid or linear"
        ) from error
    rises = betas.shape == (temperatures + 1,) and betas[0] == 0 and betas[-1] == 1 and (betas.diff() > 0).all()
    if not rises:
        raise ValueError(
            f"schedule must give {temperatures + 1} values that rise from 0 to 1, got shape {tuple(betas.shape)}: "
            f"{betas.flatten()[:5].tolist()}...; use sigmoid or linear"
        )
    return betas
