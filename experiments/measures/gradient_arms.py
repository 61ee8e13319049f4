"""Ways to get a gradient, each with what theory says of its signal and noise as the particles become more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from torch import nn

from dlvm.experiments.measures.gradient_moments import Arm, Setting, measure_against
from dlvm.inference import (
    CIWAE,
    ELBO,
    IWAE,
    MIWAE,
    NVIL,
    PIWAE,
    REBAR,
    RELAX,
    RWS,
    STL,
    VIMCO,
    DisARM,
    DReG,
    GumbelRao,
    GumbelSoftmax,
    MovingAverage,
    Objective,
    ScoreFunction,
    StraightThrough,
)
from dlvm.nets import MLP


def square(particles: int) -> tuple[int, int]:
    """Groups and particles in each, as near to equal as the number allows."""
    groups = max(n for n in range(1, math.isqrt(particles) + 1) if particles % n == 0)
    return groups, particles // groups


TOTAL = "total"
ESTIMATORS = (
    Arm(TOTAL, IWAE, "IWAE", (0.5, -0.5)),
    Arm("DReG", lambda k: IWAE(k, DReG()), "IWAE", (0.5, 0.5)),
    Arm("STL", lambda k: IWAE(k, STL()), "IWAE", (0.5, None), biased_guide=True),
    Arm("VIMCO", lambda k: IWAE(k, VIMCO(everywhere=True)), "IWAE", (0.5, None), least=2),
    Arm("score", lambda k: IWAE(k, ScoreFunction(everywhere=True)), "IWAE", (0.5, None)),
    Arm("score, mean", lambda k: IWAE(k, ScoreFunction(MovingAverage(), True)), "IWAE", (0.5, None)),
    Arm("RWS", RWS, "RWS", (0.5, None), least=2),
    Arm("RWS, doubly", lambda k: RWS(k, doubly=True), "RWS", (0.5, None), least=2),
)
OTHER_BOUNDS = (
    Arm("MIWAE", lambda k: MIWAE(*square(k)), "MIWAE", (0.5, 0.0)),
    Arm("PIWAE", lambda k: PIWAE(*square(k)), "PIWAE", (0.5, 0.0)),
    Arm("CIWAE", lambda k: CIWAE(0.5, k), "CIWAE", (0.5, 0.5)),
)


def discrete_arms(num_particles: int, temperature: float, x_dim: int, bits: int) -> dict[str, Callable[[], Objective]]:
    """Every estimator for sites that cannot be reparametrised."""
    bound, hot = partial(IWAE, num_particles), temperature
    return {
        "score function": lambda: bound(ScoreFunction()),
        "score function, moving average": lambda: bound(ScoreFunction(MovingAverage())),
        "score function, NVIL": lambda: bound(ScoreFunction(NVIL(MLP(x_dim, 50, 1)))),
        "VIMCO": lambda: bound(VIMCO()),
        "DisARM": lambda: bound(DisARM()),
        "REBAR": lambda: bound(REBAR()),
        "RELAX": lambda: bound(RELAX(surrogate(bits + x_dim))),
        "Gumbel-softmax": lambda: bound(GumbelSoftmax(hot)),
        "straight-through": lambda: bound(StraightThrough(hot)),
        "Gumbel-Rao": lambda: bound(GumbelRao(hot)),
    }


def surrogate(numbers: int) -> MLP:
    """The net of draws and data that RELAX trains."""
    return MLP(numbers, 50, 1, activation=nn.Tanh)


RUNS = 12  # of both programs for a gradient: one a particle, and more where an estimator asks for more


class Stage(NamedTuple):
    """A pair at some time of its training, whose guide draws so many bits in layers from one another."""

    pair: str
    when: str
    layers: int
    bits: int
    setting: Setting


def arms_of_one_cost(x_dim: int, layers: int, bits: int) -> dict[str, Callable[[], Objective]]:
    """The gradient of the ELBO, by ``RUNS`` runs of both programs each."""
    return {
        "VIMCO": lambda: ELBO(RUNS, VIMCO()),
        "ScoreFunction": lambda: ELBO(RUNS, ScoreFunction()),
        "ScoreFunction(MovingAverage)": lambda: ELBO(RUNS, ScoreFunction(MovingAverage())),
        "ScoreFunction(NVIL)": lambda: ELBO(RUNS, ScoreFunction(NVIL(MLP(x_dim, 50, 1)))),
        "DisARM": lambda: ELBO(RUNS // (1 + layers), DisARM()),
        "REBAR": lambda: ELBO(RUNS // (1 + layers), REBAR()),
        "RELAX": lambda: ELBO(RUNS // (1 + layers), RELAX(surrogate(bits + x_dim))),
        "RELAX(temperature=None)": lambda: ELBO(RUNS, RELAX(surrogate(bits + x_dim), None)),
        "GumbelSoftmax": lambda: ELBO(RUNS // 2, GumbelSoftmax()),
        "StraightThrough": lambda: ELBO(RUNS, StraightThrough()),
        "GumbelRao": lambda: ELBO(RUNS, GumbelRao()),
    }


def noise_of_estimators(
    stages: Iterable[Stage], repeats: int = 60, times: int = 5, passes: int = 3, seed: int = 0
) -> Iterator[dict]:
    """One row for each stage, estimator and program: its variance as a share of VIMCO's, and its bias.

    Args:
        stages: what is measured on, each before the next is asked for.
        repeats: gradients drawn for each.
        times: so many more of VIMCO's stand for the truth.
        passes: over the data, for baselines.
        seed: of the noise.
    """
    for pair, when, layers, bits, setting in stages:
        found = measure_against(
            setting, arms_of_one_cost(setting.x.shape[1], layers, bits), "VIMCO", times, repeats, passes, seed
        )
        vimco = {row["group"]: row["variance"] for row in found if row["estimator"] == "VIMCO"}
        for row in found:
            yield {"pair": pair, "stage": when, **row, "share": row["variance"] / vimco[row["group"]]}
