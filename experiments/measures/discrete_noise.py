"""Noise and bias of every estimator for discrete sites, at equal cost, before training and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyro

from dlvm.experiments.data import Loader, load
from dlvm.experiments.measures.gradient_moments import Group, Setting, measure_against
from dlvm.experiments.options.common import adam
from dlvm.experiments.options.guides import GUIDES, own
from dlvm.experiments.setups.discrete_vae import DiscreteVAESetup
from dlvm.experiments.setups.sbn import SBNSetup
from dlvm.experiments.setups.setup import Setup, fresh_pair
from dlvm.inference import (
    ELBO,
    NVIL,
    VIMCO,
    DisARM,
    GumbelRao,
    GumbelSoftmax,
    MovingAverage,
    Objective,
    ScoreFunction,
    StraightThrough,
    fit,
)
from dlvm.nets import MLP

RUNS = 12  # of both programs for a gradient: one a particle, and more where an estimator asks for more
SETUPS: dict[str, tuple[Setup, str, int]] = {  # with the family of the guide, and the layers
    "one layer": (DiscreteVAESetup(16), "diagonal", 1),
    "two layers": (SBNSetup((16, 8)), "own", 2),
}


def arms(x_dim: int, layers: int) -> dict[str, Callable[[], Objective]]:
    """The gradient of the ELBO, by ``RUNS`` runs of both programs each."""
    return {
        "VIMCO": lambda: ELBO(RUNS, VIMCO()),
        "ScoreFunction": lambda: ELBO(RUNS, ScoreFunction()),
        "ScoreFunction(MovingAverage)": lambda: ELBO(RUNS, ScoreFunction(MovingAverage())),
        "ScoreFunction(NVIL)": lambda: ELBO(RUNS, ScoreFunction(NVIL(MLP(x_dim, 50, 1)))),
        "DisARM": lambda: ELBO(RUNS // (1 + layers), DisARM()),
        "GumbelSoftmax": lambda: ELBO(RUNS // 2, GumbelSoftmax()),
        "StraightThrough": lambda: ELBO(RUNS, StraightThrough()),
        "GumbelRao": lambda: ELBO(RUNS, GumbelRao()),
    }


def settings(data: Loader, setup: Setup, family: str, epochs: int, seed: int) -> Iterator[tuple[str, Setting]]:
    """A pair with a minibatch of its data: as it starts, then trained by VIMCO."""
    pyro.set_rng_seed(seed)
    model, guide = fresh_pair(setup, data, GUIDES.get(family, own))
    groups = [
        Group("model", "model", list(model.parameters())),
        Group("guide", "guide", list(guide.parameters())),
    ]
    for stage in ("start", "trained"):
        if stage == "trained":
            run = partial(fit, epochs=epochs, optimizer=adam(3e-3), seed=seed, progress=False)
            *_, _ = run(model, guide, ELBO(RUNS // 2, VIMCO()), data)
        again = data.seeded(seed)
        yield stage, Setting(model, guide, next(iter(again))[0], groups, again)


def noise_of_estimators(repeats: int = 60, times: int = 5, epochs: int = 10, seed: int = 0) -> Iterator[dict]:
    """One for each pair, stage, estimator and program: its variance as a share of VIMCO's, and its bias.

    Args:
        repeats: gradients drawn for each.
        times: so many more of VIMCO's stand for the truth.
        epochs: of training between the stages.
        seed: of everything.
    """
    data = load("digits", batch_size=50).train
    for name, (setup, family, layers) in SETUPS.items():
        for stage, setting in settings(data, setup, family, epochs, seed):
            found = measure_against(setting, arms(data.x_dim, layers), "VIMCO", times, repeats, 3, seed)
            vimco = {row["group"]: row["variance"] for row in found if row["estimator"] == "VIMCO"}
            for row in found:
                yield {"pair": name, "stage": stage, **row, "share": row["variance"] / vimco[row["group"]]}
