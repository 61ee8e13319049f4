"""Chorales by deep Markov models under several guides, and by the hidden Markov model whose log p(x) is exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pyro
from torch import nn

from dlvm.distributions import Bernoulli, GatedTransition
from dlvm.evidence import particle_filter
from dlvm.experiments.data import Loader, Splits, load
from dlvm.experiments.sweeps.equal_steps import Course, StepsOptions
from dlvm.guides import IAF, Diagonal, MeanFieldOverTime, Sequential, latents
from dlvm.inference import evaluate, fit_em
from dlvm.models import BernoulliMixture, DeepMarkov, HiddenMarkov
from dlvm.nets import MLP, Recurrent

Way = Literal["hmm", "mean_field", "filter", "smoother", "both", "iaf", "at_once"]
LABELS: dict[str, str] = {
    "hmm": "hidden Markov model, 16 states",
    "mean_field": "deep Markov, mean field over time",
    "filter": "deep Markov, filter (forward)",
    "smoother": "deep Markov, smoother (backward)",
    "both": "deep Markov, smoother (both ways)",
    "iaf": "deep Markov, smoother with an IAF",
    "at_once": "deep Markov, smoother, KL in full at once",
}
PUBLISHED: dict[str, float] = {  # nats per step: Obermeyer et al. 2019 (exact), Pyro's example after 5000 epochs (ELBO)
    "hmm": 8.28,
    "smoother": 6.87,
    "iaf": 6.82,
}
STATES = 16


@dataclass(frozen=True)
class Chorales(StepsOptions):
    """How the models of chorales learn; sizes are a fifth to a half of those of the published 6.87."""

    z_dim: int = 32
    """Dimensions of a state."""
    width: int = 128
    """Of the guide's recurrent net."""
    hidden: int = 64
    """Of the nets of transition and emission."""
    batch_size: int = 20
    """Sequences per step."""
    epochs: int = 60
    warm_up: int = 30
    lr: float = 2e-3
    eval_particles: int = 50
    """Importance samples, and particles of a filter, per test sequence."""


def chorales(how: Chorales, data_dir: Path | None = None) -> Splits:
    """The data, in batches (x, lengths)."""
    parts = load("jsb", batch_size=how.batch_size, data_dir=data_dir)
    return Splits(*(part.giving("x", "lengths") for part in parts))


def pair_of(how: Chorales, way: str, train: Loader) -> tuple[DeepMarkov, nn.Module]:
    """A fresh deep Markov model and a guide of that way."""
    width = train.x.shape[-1]
    emission = Bernoulli(MLP(how.z_dim, how.hidden, how.hidden, width))
    model = DeepMarkov(how.z_dim, emission, GatedTransition(how.z_dim, how.hidden))
    direction = {"filter": "forward", "mean_field": "both", "both": "both"}.get(way, "backward")
    sites = latents(model, train.x[:2], train["lengths"][:2])
    encoder = Recurrent(width, how.width, direction)
    if way == "mean_field":
        return model, MeanFieldOverTime(sites, encoder)
    return model, Sequential(sites, encoder, partial(IAF, depth=1) if way == "iaf" else Diagonal)


def steps_per_sequence(data: Loader) -> float:
    """The mean length."""
    return data["lengths"].double().mean().item()


def exact_row(data: Splits, seed: int) -> dict:
    """Nats per step of the hidden Markov model, by EM from data."""
    pyro.set_rng_seed(seed)
    parts = [[(part.x, part["lengths"])] for part in data]
    model = HiddenMarkov(BernoulliMixture(STATES, data.train.x.shape[-1])).start_at(*parts[0][0])
    for _ in fit_em(model, parts[0], parts[1], iterations=60, tolerance=1e-3):
        pass
    nats = -model.log_px(*parts[2][0]).mean().item() / steps_per_sequence(data.test)
    return {"elbo": nats, "log_px": nats, "filtered": nats}


def deep_row(how: Chorales, data: Splits, way: str, seed: int) -> dict:
    """Nats per step of a deep Markov model after its epochs: by the ELBO, by importance sampling and by a filter."""
    pyro.set_rng_seed(seed)
    model, guide = pair_of(how, way, data.train)
    how = replace(how, warm_up=0) if way == "at_once" else how
    course = Course(how, model, guide, data.train, data.valid, seed)
    if course.error:
        return {"error": course.error, "history": course.history}
    found, steps = evaluate(model, guide, data.test, how.eval_particles), steps_per_sequence(data.test)
    row = {"elbo": -found.elbo / steps, "log_px": -found.log_px / steps, "ms_per_step": course.ms_per_step}
    if way not in ("mean_field", "iaf"):
        filtered = particle_filter(model, guide, data.test, how.eval_particles, num_filters=1, seed=seed)
        row["filtered"] = -filtered.log_px.mean().item() / steps
    return row | {"history": course.history}
