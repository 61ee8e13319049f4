"""The words that scripts accept for objectives and estimators, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    FIVO,
    IWAE,
    MIWAE,
    NVIL,
    PIWAE,
    REBAR,
    RELAX,
    RWS,
    STL,
    TVO,
    VIMCO,
    DisARM,
    DReG,
    Enumeration,
    Estimator,
    GumbelRao,
    GumbelSoftmax,
    MaximumLikelihood,
    MovingAverage,
    Objective,
    Renyi,
    Resampling,
    ScoreFunction,
    Separate,
    StraightThrough,
    Total,
    VRMax,
    WakeSleep,
)
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.nets import MLP

ObjectiveWord = Literal[
    "elbo", "analytic_kl", "iwae", "renyi", "vr_max", "miwae", "piwae", "ciwae", "cubo", "tvo", "fivo", "wake_sleep",
    "rws", "maximum_likelihood",
]  # fmt: skip
EstimatorWord = Literal[
    "total", "stl", "dreg", "score", "nvil", "vimco", "disarm", "rebar", "relax", "relax_net", "gumbel",
    "straight_through", "gumbel_rao", "enumeration",
]  # fmt: skip


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
    resample_below: float = 0.5
    """For fivo: share of the particles at which their effective number has them drawn anew."""
    truncate: int | None = None
    """For fivo: after how many steps gradients between states are cut, as truncated back-propagation does; with one
    particle that is the ELBO's. Values stay, the gradient is biased."""
    sleep: float = 0.5
    """For rws: share of the sleep phase in the guide's update."""
    score_all: bool = True
    """For score, nvil and vimco: whether real latents get the score, too; else they are reparametrised, and discrete
    ones alone get it."""
    temperature: float = 0.5
    """For gumbel, straight_through and gumbel_rao: of the relaxed draws; for rebar and relax where theirs starts."""

    @property
    def each(self) -> int:
        """Particles in a group."""
        if self.groups < 1 or self.num_particles % self.groups:
            raise ValueError(
                f"groups must divide num_particles, the particles in all, got {self.groups} and {self.num_particles}; "
                "change one of them"
            )
        return self.num_particles // self.groups


Baseline = Callable[..., nn.Module] | None
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
    "fivo": lambda n, estimator: FIVO(n.num_particles, Resampling(below=n.resample_below), truncate=n.truncate),
    "wake_sleep": lambda n, estimator: WakeSleep(n.num_particles),
    "rws": lambda n, estimator: RWS(n.num_particles, n.sleep, doubly=estimator is DReG),
    "maximum_likelihood": lambda n, estimator: MaximumLikelihood(),
}
WARMED = ("elbo", "analytic_kl", "iwae", "renyi", "miwae", "piwae", "ciwae")  # guides that follow a bound from below
ESTIMATORS: dict[str, Callable[[Numbers, Baseline], Callable[[], Estimator]]] = {
    "total": lambda n, net: Total,
    "stl": lambda n, net: STL,
    "dreg": lambda n, net: DReG,
    "score": lambda n, net: partial(score, n, MovingAverage),
    "nvil": lambda n, net: partial(score, n, partial(learned, net)),
    "vimco": lambda n, net: partial(VIMCO, everywhere=n.score_all),
    "disarm": lambda n, net: DisARM,
    "rebar": lambda n, net: partial(REBAR, n.temperature),
    "relax": lambda n, net: partial(relaxed, n.temperature, net),
    "relax_net": lambda n, net: partial(relaxed, None, net),
    "gumbel": lambda n, net: partial(GumbelSoftmax, n.temperature),
    "straight_through": lambda n, net: partial(StraightThrough, n.temperature),
    "gumbel_rao": lambda n, net: partial(GumbelRao, n.temperature),
    "enumeration": lambda n, net: Enumeration,
}
ESTIMATORS_OF_ITS_OWN = {
    "fivo": ("total",),
    "wake_sleep": ("total",),
    "rws": ("total", "dreg"),
    "maximum_likelihood": ("total",),
}


def objective_of(word: str, numbers: Numbers, estimator: str = "total", baseline: Baseline = None) -> Objective:
    """The objective that a word stands for, with an estimator of its gradient.

    Args:
        word: one of ``OBJECTIVES``.
        numbers: those in its formula.
        estimator: one of ``ESTIMATORS``; for wake-sleep "total" is its own rule, and for rws "dreg" its doubly
            reparametrised one.
        baseline: makes the net of the data that "nvil" trains, or, called with True, the net of draws and data of
            "relax"; see ``baseline_of``.

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
            f"estimator must be {' or '.join(allowed)} for {word}, whose gradient is not made by one, got {estimator!r}"
        )
    return OBJECTIVES[word](numbers, ESTIMATORS[estimator](numbers, baseline))


def numbers_for(defaults: Mapping[str, Any], num_particles: int = 8) -> Numbers:
    """So many particles, and what a model's ``defaults`` say of its gradient beside which estimator."""
    names = ("score_all", "temperature")
    return Numbers(num_particles, **{name: defaults[name] for name in names if name in defaults})


def objective_for(word: str, defaults: Mapping[str, Any], num_particles: int) -> Objective:
    """The objective that a word stands for, with the gradient that a model's ``defaults`` ask for.

    What is summed over classes for the ELBO is VIMCO's for all others.
    """
    estimator = defaults.get("estimator", "total")
    if estimator == "enumeration" and word != "elbo":
        estimator = "vimco"
    return objective_of(word, numbers_for(defaults, num_particles), estimator)


def estimator_for(defaults: Mapping[str, Any]) -> Estimator:
    """The estimator that a model's ``defaults`` name."""
    return ESTIMATORS[defaults.get("estimator", "total")](numbers_for(defaults), None)()


def score(numbers: Numbers, baseline: Callable[[], nn.Module]) -> ScoreFunction:
    """The score function with a baseline."""
    return ScoreFunction(baseline(), numbers.score_all)


def learned(net: Baseline) -> NVIL:
    """The baseline by a net of the data."""
    if net is None:
        raise ValueError("estimator nvil needs a net of the data, which this script does not make; take score or vimco")
    return NVIL(net())


def relaxed(temperature: float | None, net: Baseline) -> RELAX:
    """REBAR with a net of draws and data beside, or without a temperature that alone."""
    if net is None:
        raise ValueError("estimator relax needs a net of draws and data, which this script does not make; take vimco")
    return RELAX(net(True), temperature)


def baseline_of(data: Loader, guide: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    """Makes the net of the data that "nvil" trains, and that of draws and data of "relax".

    Each has one hidden layer of 100 units, and is the same at every call.

    Args:
        data: batches of x.
        guide: makes the guide whose discrete draws "relax" sees.
    """

    def net(of_draws: bool = False) -> nn.Module:
        if data.given != ("x",) or data.has_missing:
            what = "missing entries" if data.has_missing else f"batches of {', '.join(data.given)}"
            word = "relax has a net of draws and x" if of_draws else "nvil has a net of x alone"
            raise ValueError(f"estimator {word}, whole, got {what}; take score or vimco")
        with untouched(0):
            seen = data.x_dim + (numbers_drawn(guide(), *data.examples) if of_draws else 0)
            return MLP(seen, 100, 1, activation=nn.Tanh).to(data.device)

    return net


def numbers_drawn(guide: nn.Module, *args: Tensor) -> int:
    """How many numbers all discrete sites of a guide are, for a datum."""
    with torch.no_grad(), pyro.get_param_store().scope():
        trace = poutine.trace(guide).get_trace(*args)
    sites = (site for site in sample_sites(prune_subsample_sites(trace)) if not site["is_observed"])
    return sum(site["value"].numel() for site in sites if not site["fn"].has_rsample) // len(args[0])
