"""Ways of fitting a mixture, each followed pass by pass by exact log p(x)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader, Splits, from_tensor
from dlvm.guides import Diagonal, FullyObserved, latents
from dlvm.inference import (
    ELBO,
    VIMCO,
    Estimator,
    GumbelSoftmax,
    MovingAverage,
    NonFinite,
    ScoreFunction,
    StraightThrough,
    fit,
    fit_em,
    log_weights,
)
from dlvm.models import BernoulliMixture, FactorAnalysers, GaussianMixture
from dlvm.nets import MLP

AnyMixture = GaussianMixture | BernoulliMixture | FactorAnalysers
Way = Literal["em", "summed_out", "score", "score_average", "vimco", "gumbel", "straight_through"]
LABELS: dict[Way, str] = {
    "em": "EM",
    "summed_out": "summed out",
    "score": "score function",
    "score_average": "score, average",
    "vimco": "VIMCO",
    "gumbel": "Gumbel-softmax",
    "straight_through": "straight-through",
}
DRAWN: dict[Way, Callable[[], Estimator]] = {
    "score": ScoreFunction,
    "score_average": lambda: ScoreFunction(MovingAverage()),
    "vimco": VIMCO,
    "gumbel": GumbelSoftmax,
    "straight_through": StraightThrough,
}
MOST = 10_000  # rows to look at
GAP_ROWS, GAP_PARTICLES = 1000, 20
TOY_ROWS = 2000


@dataclass(frozen=True)
class Effort:
    """What a fit may cost, and how its gradients are made."""

    epochs: int = 60
    """Passes over the data, of EM as well, which ends before where it rises no more."""
    num_particles: int = 4
    """Draws of the component per datum and step, of ways that draw it."""
    lr: float = 0.02
    """Learning rate of Adam; it falls to a hundredth of that over the epochs."""
    hidden: tuple[int, ...] = (64,)
    """Hidden layers of a guide that draws the component; tanh."""


def toy(batch_size: int) -> tuple[GaussianMixture, Splits]:
    """Five Gaussians on the plane, and data from them."""
    pyro.set_rng_seed(2026)
    truth = GaussianMixture(5, 2)
    angle = torch.arange(5) * 0.9
    axes = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(5, 2, 2)
    sizes = torch.tensor([[1.4, 0.3], [0.5, 0.9], [1.2, 0.4], [0.7, 0.7], [1.6, 0.25]])
    with torch.no_grad():
        truth.loc.copy_(torch.tensor([[0.0, 0.0], [4.0, 1.0], [1.0, 4.0], [-4.0, 2.0], [0.0, -3.5]]))
        truth.logits.copy_(torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]).log())
        truth.scales.become(axes @ torch.diag_embed(sizes.square()) @ axes.mT)
        x = truth(n=TOY_ROWS)
    return truth, from_tensor(x, batch_size, valid=0.25, test=0.25, name="clusters", kind="real")


@torch.no_grad()
def exact_log_px(model: AnyMixture, x: Tensor) -> float:
    """Exact log p(x), nats per datum."""
    return torch.cat([model.log_px(part).double() for part in x.split(1000)]).mean().item()


def fitted(
    model: AnyMixture, way: Way, data: Splits, effort: Effort, seed: int
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Fits a mixture one way; it ends with the parameters of the pass that validation data prefer.

    Returns:
        log p(x) of the three parts, "gap" (log p(x) minus the ELBO of a guide that draws, at the end), "seconds" and
        "passes"; and at every pass, from the start on, {"pass", "train", "valid", "seconds"}.

    Raises:
        ValueError, NonFinite: what the data, the start and this way come to is no mixture.
    """
    guide, history, seconds, best, kept = _guide(model, way, data.train, effort), [], 0.0, -math.inf, {}
    for number, spent in enumerate(_passes(model, guide, way, data.train, effort, seed)):
        seconds += spent
        train, valid = exact_log_px(model, data.train.x[:MOST]), exact_log_px(model, data.valid.x)
        if not math.isfinite(train):
            raise NonFinite(f"log p(x) is {train} after pass {number}; try a smaller lr")
        history.append({"pass": number, "train": train, "valid": valid, "seconds": seconds})
        if valid > best:
            best, kept = valid, copy.deepcopy(model.state_dict())
    gap = 0.0 if isinstance(guide, FullyObserved) else _gap(model, guide, data.test.x[:GAP_ROWS])
    model.load_state_dict(kept)
    ends = {"train": exact_log_px(model, data.train.x[:MOST]), "valid": best, "test": exact_log_px(model, data.test.x)}
    return ends | {"gap": gap, "seconds": seconds, "passes": len(history) - 1}, history


def _guide(model: AnyMixture, way: Way, train: Loader, effort: Effort) -> Callable:
    """What draws the latents, of components only where the way draws them."""
    found = latents(model, train.example).items()
    drawn = {name: site for name, site in found if way in DRAWN or not site.support.is_discrete}
    if way == "em" or not drawn:
        return FullyObserved()
    return Diagonal(drawn, MLP(train.x_dim, *effort.hidden, activation=nn.Tanh))


def _passes(model: AnyMixture, guide: Callable, way: Way, train: Loader, effort: Effort, seed: int) -> Iterator[float]:
    """Fits; yields the seconds of each pass, from the start on, which takes none or one to look at it."""
    if way == "em":
        yield from (record.seconds for record in fit_em(model, train.x, iterations=effort.epochs, tolerance=1e-7))
        return
    yield 0.0
    objective = ELBO(effort.num_particles, DRAWN[way]()) if way in DRAWN else ELBO()
    for epoch in fit(
        model,
        guide,
        objective,
        train,
        epochs=effort.epochs,
        optimizer=partial(torch.optim.Adam, lr=effort.lr, fused=True),
        scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.01 ** (1 / effort.epochs)),
        seed=seed,
        progress=False,
    ):
        yield epoch.seconds


@torch.no_grad()
def _gap(model: AnyMixture, guide: Callable, x: Tensor) -> float:
    """How far the guide's ELBO is below log p(x): KL(q(z | x) || p(z | x)), nats per datum."""
    return (model.log_px(x) - log_weights(model, guide, x, num_particles=GAP_PARTICLES)).mean().item()
