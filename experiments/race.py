"""Trainings that are compared at equal cost, each by itself and by the time that it has on the processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pyro
import torch
from torch import nn

from experiments.choices import bernoulli
from experiments.data import Loader, Splits
from experiments.timed import timed_fit
from guides import Diagonal, latents
from inference import ELBO, NonFinite, Objective
from models import VAE
from nets import MLP


@dataclass
class Racer:
    """A trained pair and its looks; ``error`` says why it stopped, if a step was not finite."""

    model: nn.Module
    guide: nn.Module
    looks: list[dict]
    error: str | None = None


def race(config: object, seed: int, pair: Callable, objective: Objective, data: Splits) -> Racer:
    """Trains a fresh pair for the time, or the epochs, that every run of a comparison has.

    The clock is the calling thread's on the processor, so runs may follow one another or share a machine, one thread
    each. What a process does at its first capture only is done before.

    Args:
        config: with lr, seconds, epochs, looks, valid_particles and engine, see ``timed_fit``.
        seed: of the pair's start, the noise and the shuffling.
        pair: makes model and guide.
        objective: what is maximised.
        data: train and valid are used.
    """
    warm_up(config.engine)
    pyro.set_rng_seed(seed)
    model, guide = pair()
    adam = partial(torch.optim.Adam, lr=config.lr, fused=True)
    effort = (config.seconds, config.epochs, config.looks, config.valid_particles)
    racer = Racer(model, guide, [])
    try:
        for look in timed_fit(model, guide, objective, data, adam, *effort, seed, config.engine):
            racer.looks.append(look)
    except NonFinite as error:
        racer.error = str(error)
    return racer


@cache
def warm_up(engine: str) -> None:
    """Trains a tiny pair for a moment, once in a process."""
    x = torch.eye(4)
    model = VAE(1, bernoulli(1, (), 4, nn.Tanh, None))
    guide = Diagonal(latents(model, x), MLP(4, 2))
    data = Splits(*(Loader(x, batch_size=2) for _ in range(3)))
    list(timed_fit(model, guide, ELBO(), data, torch.optim.Adam, 0.01, looks=1, valid_particles=2, engine=engine))


def cost_of(looks: list[dict]) -> dict[str, float]:
    """What a training took in all."""
    return {key: looks[-1][key] for key in ("seconds", "steps", "epochs", "ms_per_step")}


def reached(row: dict) -> str:
    """A finished run in a few words."""
    return f"log p(x) {row['log_px']:.2f}   ELBO {row['elbo']:.2f}   {row['steps']} steps"


def counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
