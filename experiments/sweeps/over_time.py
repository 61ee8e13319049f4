"""What is measured of models of sequences: bounds of growing length, a deep Markov model under a guide, and bands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from dlvm.evidence import particle_filter
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.common import adam
from dlvm.guides import Sequential, latents
from dlvm.inference import ELBO, fit, fit_em, impute, log_weights
from dlvm.inference.bounds.importance import log_mean_exp
from dlvm.models import LinearGaussianSSM
from dlvm.nets import Recurrent

STATE, WIDTH = 2, 3  # dimensions of the linear-Gaussian truth, and of what is seen of it
LEVELS = (0.5, 0.8, 0.9)  # of central bands


@dataclass(frozen=True)
class Growing:
    """How bounds are held against log p(x) of linear-Gaussian sequences."""

    steps: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Lengths of the sequences whose log p(x) is bounded."""
    trained_steps: int = 32
    """Length of the sequences that the guide, a filter with diagonal Gaussians, is trained on."""
    guide_epochs: int = 30
    """Its passes over 500 such sequences; the model is the true one, and stays."""
    num_particles: int = 32
    """Of IWAE and of FIVO."""
    num_sequences: int = 200
    """Of each length."""


def truth_of(seed: int) -> LinearGaussianSSM:
    """A linear-Gaussian state space with parameters of the seed, which nothing trains."""
    pyro.set_rng_seed(seed)
    return LinearGaussianSSM(STATE, WIDTH).requires_grad_(False)


def filtering_guide(truth: LinearGaussianSSM, how: Growing, seed: int) -> nn.Module:
    """q(z_t | z_t-1, x_1..x_t), trained by the ELBO on sequences of the truth."""
    x = truth(n=500, steps=how.trained_steps).detach()
    guide = Sequential(latents(truth, x[:2]), Recurrent(WIDTH, 32, "forward"))
    batches = [(rows,) for rows in x.split(50)]
    settings: dict[str, Any] = {"seed": seed, "progress": False, "optimizer": adam(1e-2)}
    for _ in fit(truth, guide, ELBO(), batches, None, how.guide_epochs, **settings):
        pass
    return guide


@torch.no_grad()
def gaps_of(truth: LinearGaussianSSM, guide: nn.Module, steps: int, how: Growing, seed: int) -> dict[str, float]:
    """How far bounds lie below log p(x), in nats of a sequence of so many steps, with standard errors."""
    pyro.set_rng_seed(seed)
    x = truth(n=how.num_sequences, steps=steps)
    exact, k = truth.log_px(x), how.num_particles
    log_w = log_weights(truth, guide, x, num_particles=k)
    found = {
        "elbo": log_w.mean(0),
        "iwae": log_mean_exp(log_w),
        "fivo": particle_filter(truth, guide, x, k, num_filters=1, seed=seed).log_px,
        "bootstrap": particle_filter(truth, None, x, k, num_filters=1, seed=seed).log_px,
    }
    row = {"steps": steps, "log_px": exact.mean().item()}
    for bound, values in found.items():
        gap = exact - values
        row |= {bound: gap.mean().item(), f"{bound}_se": (gap.std() / math.sqrt(len(gap))).item()}
    return row


def growing(how: Growing, seed: int) -> list[dict]:
    """The gaps of each length, by one guide."""
    truth = truth_of(seed)
    guide = filtering_guide(truth, how, seed)
    return [gaps_of(truth, guide, steps, how, seed) for steps in how.steps]


def windows(loader: Loader, steps: int) -> Tensor:
    """Rows that follow one another, cut into sequences of so many: shape (sequences, steps, x_dim)."""
    whole = loader.num_data // steps * steps
    return loader.x[:whole].unflatten(0, (-1, steps))


def hidden_steps(x: Tensor, share: float, ahead: int, seed: int) -> Tensor:
    """Which steps are hidden whole, shape (sequences, steps): some at random, and the last few of each sequence."""
    hidden = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(seed)) < share
    hidden[:, -ahead:] = True
    hidden[:, 0] = False
    return hidden


def held(truth: Tensor, draws: Tensor, asked: Tensor) -> dict[str, float]:
    """How many of the numbers that are asked for lie in central bands of draws, and how far off these are.

    Returns:
        ``within_50`` and so on, shares; ``rmse``; ``spread``, the mean standard deviation.

    Args:
        truth: shape (sequences, steps, x_dim).
        draws: shape (S, sequences, steps, x_dim).
        asked: which numbers, shape as truth, truth values.
    """
    t, d = truth[asked], draws[:, asked]
    row = {"rmse": (t - d.mean(0)).square().mean().sqrt().item(), "spread": d.std(0).mean().item()}
    for level in LEVELS:
        low, high = d.quantile((1 - level) / 2, 0), d.quantile((1 + level) / 2, 0)
        row[f"within_{100 * level:.0f}"] = ((low <= t) & (t <= high)).double().mean().item()
    return row


@dataclass(frozen=True)
class Bands:
    """How forecasts and interpolations are judged, on the hours of air_quality."""

    hours: int = 48
    """Steps of a sequence."""
    state: int = 8
    """Dimensions of the linear-Gaussian state."""
    iterations: int = 40
    """Of EM."""
    hidden_share: float = 0.2
    """Of steps that are hidden whole, at random."""
    ahead: int = 6
    """Last steps of a sequence that are hidden: to be forecast."""
    num_draws: int = 400
    """Joint draws of what is hidden."""


def standard(data: Splits) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of the training rows, of what is there."""
    mean = data.train.x.nanmean(0)
    return mean, (data.train.x - mean).square().nanmean(0).sqrt()


def in_bands(how: Bands, data: Splits, seed: int) -> tuple[list[dict], dict[str, Tensor]]:
    """What a linear-Gaussian state space, learned by EM from hours with holes, expects where hours are hidden.

    Returns:
        a row for interpolation and one for forecasts, beside those of the last value seen; and the sequence with the
        most hidden numbers, with draws.
    """
    mean, sd = standard(data)
    train, test = (((windows(part, how.hours) - mean) / sd) for part in (data.train, data.test))
    pyro.set_rng_seed(seed)
    model = LinearGaussianSSM(how.state, train.shape[-1])
    for _ in fit_em(model, [train], None, iterations=how.iterations):
        pass
    hidden = hidden_steps(test, how.hidden_share, how.ahead, seed)
    shown = torch.where(hidden.unsqueeze(-1), torch.nan, test)
    draws = impute(model, model.guide, shown, num_particles=how.num_draws, num_draws=how.num_draws, seed=seed).draws
    late = torch.arange(how.hours) >= how.hours - how.ahead
    rows = []
    for name, where in (("between", ~late), ("ahead", late)):
        asked = (hidden & where).unsqueeze(-1) & ~test.isnan()
        last = (last_seen(shown) - test)[asked].square().mean().sqrt().item()
        rows.append({"where": name, "numbers": int(asked.sum()), **held(test, draws, asked), "rmse_last": last})
    most = (hidden.unsqueeze(-1) & ~test.isnan()).sum((1, 2)).argmax()
    return rows, {"truth": test[most], "hidden": hidden[most], "draws": draws[:, most]}


def last_seen(x: Tensor) -> Tensor:
    """The last number that was there, of each column; 0, the mean, before there is any."""
    found = [x[:, 0].nan_to_num(0.0)]
    for t in range(1, x.shape[1]):
        found.append(torch.where(x[:, t].isnan(), found[-1], x[:, t]))
    return torch.stack(found, 1)
