"""Several trainings side by side, in turns, so that what slows the machine slows all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import pyro
import torch
from torch import nn

from experiments.data import Splits
from experiments.runs import Run
from experiments.timed import timed_fit
from inference import NonFinite, Objective


@dataclass
class Racer:
    """One way to train with one seed: its pair, and the training of it as an iterator of looks.

    Attributes:
        name: the word that stands for it on the command line.
        title: how it is shown.
        facts: what every record of it begins with, ``seed`` among them.
        error: why it stopped, if a step was not finite.
    """

    name: str
    title: str
    facts: Mapping[str, object]
    objective: Objective
    model: nn.Module
    guide: nn.Module
    training: Iterator[dict]
    looks: list[dict] = field(default_factory=list)
    error: str | None = None

    def go_on(self) -> dict | None:
        """Trains until the next look, which is returned; None once the time is used or a step was not finite."""
        try:
            look = next(self.training, None)
        except NonFinite as error:
            self.error, look = str(error), None
        self.looks += [] if look is None else [look]
        return look

    @property
    def head(self) -> str:
        return f"{self.title}, seed {self.facts['seed']}"


def enter(
    config, name: str, title: str, facts: Mapping[str, object], pair: Callable, objective: Objective, data: Splits
) -> Racer:
    """A fresh pair, and the training of it.

    Args:
        config: with lr, seconds, epochs, looks, valid_particles and engine, see ``timed_fit``.
        name, title, facts, objective: see ``Racer``.
        pair: makes model and guide, after the seed is set.
        data: train and valid are used.
    """
    seed = facts["seed"]
    pyro.set_rng_seed(seed)
    model, guide = pair()
    adam = partial(torch.optim.Adam, lr=config.lr, fused=True)
    effort = (config.seconds, config.epochs, config.looks, config.valid_particles)
    training = timed_fit(model, guide, objective, data, adam, *effort, seed, config.engine)
    return Racer(name, title, facts, objective, model, guide, training)


def race(racers: list[Racer], run: Run, by_epochs: bool) -> Iterator[tuple[str, Racer]]:
    """Lets all train in turns of one look each; yields how far they are and who leads after each turn."""
    running = list(racers)
    while running:
        for one in list(running):
            look = one.go_on()
            if look is None:
                running.remove(one)
            else:
                run.log(**one.facts, **look)
        if running:
            first = max(running, key=lambda one: one.looks[-1]["log_px"])
            look = first.looks[-1]
            yield f"{look['epochs']:.0f} epochs" if by_epochs else f"{look['seconds']:.1f} s", first


def rows_of(racers: list[Racer], result_of: Callable[[Racer], dict]) -> Iterator[dict]:
    """The row of each that came to the end; those that stopped are reported and left out."""
    for one in racers:
        if one.error is not None:
            print(f"{one.head}: stopped: {one.error}", flush=True)
            continue
        row = result_of(one)
        reached = f"log p(x) {row['log_px']:.2f}   ELBO {row['elbo']:.2f}   {row['steps']} steps"
        print(f"{one.head}: {reached}", flush=True)
        yield row


def counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
