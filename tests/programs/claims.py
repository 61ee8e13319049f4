"""A number that somebody has given, and what is right: the references that need Pyro alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple

import pyro
import torch
from pyro.infer import ELBO, SVI
from torch import Tensor

from programs.alone import evaluating, every_batch, quiet
from programs.brought import Brought, Pair, arguments

PARTICLES = 240
SIGMAS = 5.0


class Claim(NamedTuple):
    """``what`` was given as ``got``; it is right between ``low`` and ``high``."""

    what: str
    got: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.got <= self.high

    def __str__(self) -> str:
        middle, within = (self.low + self.high) / 2, (self.high - self.low) / 2
        right = f"{middle:.4g} +- {within:.2g}" if math.isfinite(within) else f"at most {self.high:.4g}"
        return f"{self.what} {self.got:.4g}, right {right}"


def near(what: str, got: float, right: float, within: float) -> Claim:
    """A claim to be held to so many nats."""
    return Claim(what, float(got), right - within, right + within)


def same(what: str, got: float, right: float) -> Claim:
    """A claim to be held to rounding in single precision."""
    return near(what, got, right, 1e-3 * (1 + abs(right)))


@cache
def weights_alone(program: Brought, training: bool = True) -> Tensor:
    """Log-weights by Pyro alone, (particles, data)."""
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        pair = program.pair()
        with nullcontext() if training else evaluating(pair):
            return every_batch(pair, PARTICLES)


def expected(
    program: Brought, pair: Pair, bound: Callable[[Tensor], Tensor], particles: int, training: bool = True
) -> tuple[float, float]:
    """The mean over data of a bound of so many particles, and the standard deviation of one estimate of it, nats."""
    if pair.exact:
        return pair.reported, pair.tolerance / SIGMAS
    log_w = weights_alone(program, training)
    groups = log_w[: len(log_w) // particles * particles].unflatten(0, (-1, particles))
    totals = torch.stack([bound(group).sum() for group in groups]) / pair.num_data
    extra = pair.reported - pair.right
    return totals.mean().item() + extra, totals.std().item() * math.sqrt(1 + 1 / len(totals))


def iwae(log_w: Tensor) -> Tensor:
    """The log of the mean weight."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def mean(log_w: Tensor) -> Tensor:
    """The ELBO."""
    return log_w.mean(0)


def walk(pair: Pair, step: Callable[..., float], steps: int = 4) -> list[float]:
    """Losses of steps over the batches in turn, each on noise of its own seed."""
    batches = list(pair.batches)
    losses = []
    with quiet():
        for i in range(max(steps, len(batches))):
            pyro.set_rng_seed(100 + i)
            losses.append(float(step(*arguments(batches[i % len(batches)]))))
    return losses


class Trained(NamedTuple):
    """What some steps of training have come to.

    Attributes:
        losses: before each step, nats.
        weights: all numbers of the modules that the user holds, afterwards.
        moved: how far these are from what they were.
    """

    losses: list[float]
    weights: Tensor
    moved: float


def numbers(pair: Pair) -> Tensor:
    """All parameters of the modules that the user holds, one after the other."""
    found = [p.detach().double().flatten() for part in pair.parts for p in part.parameters()]
    return torch.cat([torch.zeros(0).double(), *found])


def trained(pair: Pair, svi: object) -> Trained:
    """A few steps of an SVI, stock's or ours."""
    before = numbers(pair)
    losses = walk(pair, svi.step)
    after = numbers(pair)
    return Trained(losses, after, (after - before).abs().sum().item())


@cache
def stock(program: Brought, make: Callable[[], ELBO] | None = None) -> Trained | None:
    """The same steps by pyro.infer.SVI and Pyro's Adam; None where stock fails."""
    pair = program.pair(stock=True)
    objective = pair.objective if make is None else make()
    try:
        pair.guide(*pair.first)  # guides that look at the model at their first call draw for that
        return trained(pair, SVI(pair.model, pair.guide, getattr(pyro.optim, pair.optimizer)({"lr": 0.02}), objective))
    except Exception:  # then there is nothing to be held against
        return None


def stock_bound(program: Brought, make: Callable[[], ELBO] | None = None) -> float:
    """Minus the loss of stock, all batches in a row from seed 0, per datum."""
    pair = program.pair(stock=True)
    objective = pair.objective if make is None else make()
    pyro.set_rng_seed(0)
    with quiet():
        total = sum(objective.loss_and_grads(pair.model, pair.guide, *arguments(batch)) for batch in pair.batches)
    return -total / pair.num_data / pair.scale
