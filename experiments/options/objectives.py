"""The words that scripts accept for objectives and estimators, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    STL,
    TVO,
    VIMCO,
    DReG,
    MaximumLikelihood,
    MovingAverage,
    Objective,
    Renyi,
    ScoreFunction,
    Separate,
    Total,
    VRMax,
    WakeSleep,
)

ObjectiveWord = Literal[
    "elbo", "analytic_kl", "iwae", "renyi", "vr_max", "miwae", "piwae", "ciwae", "cubo", "tvo", "wake_sleep", "rws",
    "maximum_likelihood",
]  # fmt: skip
EstimatorWord = Literal["total", "stl", "dreg", "score", "vimco"]


@dataclass(frozen=True)
class Numbers:
    """The numbers in the formulas of objectives; each objective takes those that it has."""

    num_particles: int = 8
    """Samples of z per datum in all, also where they are drawn in groups."""
    groups: int = 2
    """For miwae and piwae: in how many groups the particles are drawn."""
    alpha: float = 0.5
    """For renyi: order of the bound."""
    beta: float = 0.5
    """For ciwae: share of the ELBO."""
    order: float = 2.0
    """For cubo: order of the chi bound."""
    intervals: int = 5
    """For tvo: into how many the path from q to p is cut."""
    sleep: float = 0.5
    """For rws: share of the sleep phase in the guide's update."""

    @property
    def each(self) -> int:
        """Particles in a group."""
        if self.groups < 1 or self.num_particles % self.groups:
            raise ValueError(
                f"groups must divide num_particles, the particles in all, got {self.groups} and {self.num_particles}; "
                "change one of them"
            )
        return self.num_particles // self.groups


OBJECTIVES: dict[str, Callable[[Numbers, Callable], Objective]] = {
    "elbo": lambda n, estimator: ELBO(n.num_particles, estimator()),
    "analytic_kl": lambda n, estimator: ELBO(n.num_particles, estimator(), analytic_kl=True),
    "iwae": lambda n, estimator: IWAE(n.num_particles, estimator()),
    "renyi": lambda n, estimator: Renyi(n.alpha, n.num_particles, estimator()),
    "vr_max": lambda n, estimator: VRMax(n.num_particles, estimator()),
    "miwae": lambda n, estimator: MIWAE(n.groups, n.each, estimator()),
    "piwae": lambda n, estimator: PIWAE(n.groups, n.each, estimator()),
    "ciwae": lambda n, estimator: CIWAE(n.beta, n.num_particles, estimator()),
    "cubo": lambda n, estimator: Separate(
        model=IWAE(n.num_particles), guide=CUBO(n.order, n.num_particles, estimator())
    ),
    "tvo": lambda n, estimator: TVO(n.num_particles, n.intervals, estimator=estimator()),
    "wake_sleep": lambda n, estimator: WakeSleep(n.num_particles),
    "rws": lambda n, estimator: RWS(n.num_particles, n.sleep, doubly=estimator is DReG),
    "maximum_likelihood": lambda n, estimator: MaximumLikelihood(),
}
WARMED = ("elbo", "analytic_kl", "iwae", "renyi", "miwae", "piwae", "ciwae")  # guides that follow a bound from below
# The latents of these scripts are continuous: a score function that leaves out what can be reparametrised has no site.
ESTIMATORS: dict[str, Callable] = {
    "total": Total,
    "stl": STL,
    "dreg": DReG,
    "score": lambda: ScoreFunction(MovingAverage(), everywhere=True),
    "vimco": lambda: VIMCO(everywhere=True),
}
ESTIMATORS_OF_ITS_OWN = {"wake_sleep": ("total",), "rws": ("total", "dreg"), "maximum_likelihood": ("total",)}


def objective_of(word: str, numbers: Numbers, estimator: str = "total") -> Objective:
    """The objective that a word stands for, with an estimator of its gradient.

    Args:
        word: one of ``OBJECTIVES``.
        numbers: those in its formula.
        estimator: one of ``ESTIMATORS``; for wake-sleep "total" is its own rule, and for rws "dreg" its doubly
            reparametrised one.

    Raises:
        ValueError: the word is unknown, the estimator is unknown or not defined for this objective, or a number is
            out of range.

    Example:
        >>> objective_of("miwae", Numbers(num_particles=8, groups=4), "dreg")
        MIWAE(groups=4, num_particles=2, estimator=DReG())
    """
    for name, got, known in (("objective", word, OBJECTIVES), ("estimator", estimator, ESTIMATORS)):
        if got not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {got!r}")
    allowed = ESTIMATORS_OF_ITS_OWN.get(word, tuple(ESTIMATORS))
    if estimator not in allowed:
        raise ValueError(
            f"estimator must be {' or '.join(allowed)} for {word}, whose guide does not follow the gradient of a "
            f"bound, got {estimator!r}"
        )
    return OBJECTIVES[word](numbers, ESTIMATORS[estimator])
