"""A bound as a value: a function of log-weights, and what estimators ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn

from dlvm.inference.bounds import derivatives
from dlvm.inference.bounds.power_means import means_of_others, power_curvatures, power_left_out, power_mean

Side = Literal["lower", "upper", "exact", "neither"]


@dataclass(frozen=True, repr=False)
class Bound:
    """A bound on log p(x): a function of the log-weights of one datum's particles.

        log_w, shape (num_particles, batch) -> (batch,), in nats, each datum by itself

    Calling it gives its value. Slopes are had by autograd. Curvatures and the bound without a particle have formulas
    for many bounds; where they have none, they are had from K copies of the weights. What a bound is made of stays as
    it is: the engine does not look inside for numbers that change.

    Args:
        value: the bound.
        side: of log p(x) on which it stays in expectation: "lower", "upper", "exact" if it is log p(x), or "neither".
            All are raised but an upper one, which the guide lowers, while the model is left alone.
        linear: whether it, and what is trained by it, is linear in log_w.
        smooth: whether its slopes are continuous.
        curvature: log_w -> d^2 bound / d (log w_k)^2, (num_particles, batch).
        without: log_w, replacements -> the bound with log w_k replaced, for each k, all (num_particles, batch).
        signal: log_w -> what of the bound depends on each particle, (num_particles, batch); None for all of it.
        name: what errors call it; an objective gives it its own.

    Raises:
        TypeError: ``value`` or a formula is no function, or ``name`` no string.
        ValueError: an unknown ``side``.

    Example:
        >>> import torch
        >>> middle = Bound(lambda log_w: log_w.median(0).values, side="neither", smooth=False)
        >>> middle(torch.tensor([[0.0], [5.0], [1.0]]))
        tensor([1.])
    """

    value: Callable[[Tensor], Tensor]
    side: Side = "lower"
    linear: bool = False
    smooth: bool = True
    curvature: Callable[[Tensor], Tensor] | None = None
    without: Callable[[Tensor, Tensor], Tensor] | None = None
    signal: Callable[[Tensor], Tensor] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.value) or isinstance(self.value, nn.Module):  # whose parameters nobody would train
            raise TypeError(f"value must be a function of log_w, as lambda log_w: log_w.mean(0), got {self.value!r}")
        for name in ("curvature", "without", "signal"):
            if not callable(formula := getattr(self, name)) and formula is not None:
                raise TypeError(f"{name} must be a function of log_w, or None if there is no formula, got {formula!r}")
        if self.side not in get_args(Side):
            raise ValueError(f"side must be one of {', '.join(get_args(Side))}, got {self.side!r}")
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, what errors are to call the bound, got {self.name!r}")

    def __repr__(self) -> str:
        """Without addresses of functions, since runs are told apart by what their objective says."""
        said = f"{called(self.value)}, side={self.side!r}"
        return f"Bound({said}{', linear=True' if self.linear else ''}{'' if self.smooth else ', smooth=False'})"

    def __call__(self, log_w: Tensor) -> Tensor:
        """The bound of each datum: (num_particles, batch) -> (batch,), nats."""
        return self.value(log_w)

    def slopes(self, log_w: Tensor) -> Tensor:
        """d bound / d log w_k, shape (num_particles, batch), without gradient: a particle's share in the gradient."""
        return derivatives.slopes(self.value, log_w)

    def curvatures(self, log_w: Tensor) -> Tensor:
        """d^2 bound / d (log w_k)^2, shape (num_particles, batch): what DReG takes off each particle's share."""
        return derivatives.curvatures(self.value, log_w) if self.curvature is None else self.curvature(log_w)

    def left_out(self, log_w: Tensor) -> Tensor:
        """The bound with log w_k replaced by the mean of the others, (num_particles, batch): VIMCO's baseline."""
        return self.replaced(log_w, means_of_others(log_w))

    def replaced(self, log_w: Tensor, others: Tensor) -> Tensor:
        """The bound with log w_k replaced by the k-th of others, for each k: all (num_particles, batch)."""
        if self.without is None:
            return derivatives.replaced(self.value, log_w, others)
        return self.without(log_w, others)

    def signals(self, log_w: Tensor) -> Tensor:
        """The learning signal of each particle's score: what of the bound depends on it, (num_particles, batch)."""
        return self.value(log_w).expand_as(log_w) if self.signal is None else self.signal(log_w)


def called(function: Callable) -> str:
    """How a function is named, with what it has been given already.

    Example:
        >>> called(partial(power_mean, power=0.5))
        'power_mean(power=0.5)'
    """
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{name}={value!r}" for name, value in function.keywords.items())]
        return f"{called(function.func)}({', '.join(given)})"
    return getattr(function, "__name__", type(function).__name__)


def power_bound(power: float, side: Side = "lower") -> Bound:
    """1/a log 1/K sum_k w_k^a: the ELBO for a = 0, IWAE for a = 1, Renyi's bound for 1 - alpha, CUBO for its order.

    Args:
        power: a.
        side: see ``Bound``.
    """
    return Bound(
        partial(power_mean, power=power),
        side,
        linear=power == 0,
        curvature=partial(power_curvatures, power=power),
        without=partial(power_left_out, power=power),
    )


def mean_bound() -> Bound:
    """The mean of the log-weights, of which each particle's score hears its own share alone."""
    return replace(power_bound(0.0), signal=_shares)


def _shares(log_w: Tensor) -> Tensor:
    return log_w / len(log_w)
