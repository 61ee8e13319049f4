"""A program as somebody brings it, with the number that is right for it, whoever computes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn


@dataclass(frozen=True)
class Pair:
    """One fresh instance of a program and its guide, with data and the exact answer.

    Attributes:
        model, guide: as they were written, in training mode.
        batches: what ``fit`` and ``evaluate`` are given.
        log_px: the exact log p(x), nats: shape (num_data,) in the order of the batches, or 0-d where latents that all
            data share leave one number for all of them together.
        count: how many data there are; unless told, the length of ``log_px``.
        exact: whether the guide is the posterior, so that each particle's weight is p(x) and every bound is log p(x).
        once: what counts once per batch, and for no datum (``pyro.factor`` outside the plate), nats.
        plate: the name of the plate over data; None where a sum over the batch is all that a trace can tell.
        scale: of the bound of every datum, a subsampled plate's.
        objective: of Pyro, with which stock SVI trains the pair.
        discrete: whether a latent cannot be reparametrised, so that our objectives need an estimator for it.
        encoder: makes the features for guides built from ``latents(model, ...)``; None where none could be.
        spec: the arguments of ``latents``; those of the first batch unless told.
        parts: the modules that the user holds, and looks at after training.
        samples: particles for an estimate of log p(x).
        tolerance: of a mean over data, nats, beside what sampling explains.
        x_dim: observed numbers per datum; None where that is not one number.
        ours_alike: whether ELBO(1) is the loss of Pyro's Trace_ELBO, in which what a guide observes counts.
        steps_alike: whether stock trains what it computes with, so that later steps can be held against its own.
        optimizer: of torch and of Pyro; SGD where some batches leave a parameter without a gradient, since stock's Adam
            then moves it on by its momentum, and ours leaves it where it is, as ``SVI`` says.
        rows: data of the first batch that one run weighs, where that is not all of them.
    """

    model: Callable
    guide: Callable
    batches: Iterable
    log_px: Tensor
    count: int | None = None
    exact: bool = True
    once: float = 0.0
    plate: str | None = "data"
    scale: float = 1.0
    objective: ELBO = field(default_factory=Trace_ELBO)
    discrete: bool = False
    encoder: Callable[[], nn.Module] | None = None
    spec: tuple | None = None
    parts: tuple[nn.Module, ...] = ()
    samples: int = 20
    tolerance: float = 2e-3
    x_dim: int | None = None
    ours_alike: bool = True
    steps_alike: bool = True
    optimizer: str = "Adam"
    rows: int | None = None

    @property
    def num_data(self) -> int:
        return self.count or len(self.log_px)

    @property
    def per_datum(self) -> bool:
        return self.log_px.dim() > 0

    @property
    def first(self) -> tuple:
        return arguments(next(iter(self.batches)))

    @property
    def right(self) -> float:
        """The mean of log p(x) over data, nats."""
        return self.log_px.double().sum().item() / self.num_data

    @property
    def reported(self) -> float:
        """What a bound without a gap comes to, per datum: what counts once a batch is in it."""
        return self.right + self.once * sum(1 for _ in self.batches) / self.num_data


@dataclass(frozen=True, eq=False)
class Brought:
    """A kind of program, and what may be said of it besides the right number.

    Attributes:
        name: of the function that makes it.
        kind: of the file that it stands in.
        make: a fresh ``Pair``; everything in it is new and seeded.
        why: what about it has made trouble.
        refused: {ways, a regular expression: words that a refusal must have}: who may refuse it instead.
        must: ways, a regular expression, that have to refuse it, since no number is right.
        reference: as ``make``, the pair that stock SVI is run on.
    """

    name: str
    kind: str
    make: Callable[[], Pair]
    why: str
    refused: Mapping[str, str] = field(default_factory=dict)
    must: str = ""
    reference: Callable[[], Pair] | None = None

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    def pair(self, stock: bool = False) -> Pair:
        """A fresh pair in a session in which nothing else was done."""
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        return (self.reference if stock and self.reference else self.make)()

    def words(self, way: str) -> str | None:
        """What a refusal of this way must say; None where it has to give the right number."""
        return next((words for ways, words in self.refused.items() if re.fullmatch(ways, way)), None)


def brought(
    why: str, refused: Mapping[str, str] | None = None, must: str = "", reference: Callable[[], Pair] | None = None
) -> Callable[[Callable[[], Pair]], Brought]:
    """Makes a ``Brought`` of the function that makes its pair."""

    def named(make: Callable[[], Pair]) -> Brought:
        return Brought(make.__name__, make.__module__.rpartition(".")[2], make, why, refused or {}, must, reference)

    return named


def arguments(batch: object) -> tuple:
    """A batch as the arguments of a call."""
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers of their own seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
