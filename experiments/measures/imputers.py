"""Holes punched into data of which the truth is known, and what fills them without a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Holes = Literal["random", "not_at_random"]
RIDGE = 1e-6  # of a column's regression on the latents, in units of its spread
SETTLED = 1e-5  # nats per datum between two steps of EM


def hidden(x: Tensor, holes: Holes, share: float, slope: float, seed: int) -> Tensor:
    """Which of the numbers that are there to hide.

    At random each number alike; not at random those of every other column, the first among them, by what they are:
    with the probability sigmoid(logit(share) + slope (x_d - mean_d) / sd_d).

    Returns:
        bools of the shape of x.

    Args:
        x: shape (n, x_dim), NaN where there is nothing to hide.
        holes: how.
        share: of numbers that are hidden at random, and otherwise of those at their column's mean.
        slope: of the logit, per standard deviation.
        seed: of the draws.

    Example:
        >>> hidden(torch.tensor([[-9.0, 1.0], [9.0, 2.0]]), "not_at_random", 0.5, 50.0, 0)
        tensor([[False, False],
                [ True, False]])
    """
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    if holes == "random":
        return (draws < share) & ~x.isnan()
    mean = x.nanmean(0)
    sd = (x - mean).square().nanmean(0).sqrt().clamp_min(1e-12)
    chance = torch.sigmoid(math.log(share / (1 - share)) + slope * (x - mean) / sd)
    chance[:, 1::2] = 0
    return (draws < chance.nan_to_num(0.0)) & ~x.isnan()


class Standard(NamedTuple):
    """The mean and the standard deviation of each column, of what is there."""

    mean: Tensor
    sd: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Standard:
        mean = x.nanmean(0).nan_to_num(0.0)
        sd = (x - mean).square().nanmean(0).sqrt()
        return cls(mean, torch.where(sd > 0, sd, 1.0))


def by_means(train: Tensor, x: Tensor) -> Tensor:
    """What is missing by the mean of its column in the training data."""
    return torch.where(x.isnan(), Standard.of(train).mean, x)


def by_regressions(train: Tensor, x: Tensor, seed: int) -> Tensor:
    """What is missing by scikit-learn's IterativeImputer: each column regressed on all others, in turn."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the next import possible
    from sklearn.impute import IterativeImputer

    mean, sd = Standard.of(train)
    imputer = IterativeImputer(random_state=seed, keep_empty_features=True)
    imputer.fit(((train - mean) / sd).numpy())
    found = torch.from_numpy(imputer.transform(((x - mean) / sd).numpy())).to(x) * sd + mean
    return torch.where(x.isnan(), found, x)


class Linear(NamedTuple):
    """Probabilistic principal components of data with holes, x_d = weight_d z + loc_d + scale noise.

    Attributes: of shapes (x_dim, z_dim), (x_dim,) and ().
    """

    weight: Tensor
    loc: Tensor
    variance: Tensor

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and covariance of z given what is there of each datum, and its exact log p, nats."""
        there = (~x.isnan()).to(x.dtype)
        away = (x - self.loc).nan_to_num(0.0)
        precision = torch.einsum("nd,dk,dl->nkl", there, self.weight, self.weight) / self.variance
        precision = precision + torch.eye(self.weight.shape[1]).to(x)
        covariance = torch.linalg.inv(precision)
        mean = torch.einsum("nkl,nd,dl->nk", covariance, away, self.weight) / self.variance
        fit = away.square().sum(1) / self.variance - torch.einsum("nk,nkl,nl->n", mean, precision, mean)
        log_det = torch.logdet(precision) + there.sum(1) * (self.variance.log() + math.log(2 * math.pi))
        return mean, covariance, -0.5 * (fit + log_det)

    def filled(self, x: Tensor) -> Tensor:
        """What is missing by its exact conditional mean given what is there."""
        return torch.where(x.isnan(), self.posterior(x)[0] @ self.weight.T + self.loc, x)


def em(x: Tensor, z_dim: int, steps: int = 500, seed: int = 0) -> Iterator[tuple[Linear, float]]:
    """Fits probabilistic principal components to data with holes, by EM; log p of what is there never falls.

    Yields:
        the parameters that a step began with, and their mean log p of what is there, nats per datum.

    Args:
        x: shape (n, x_dim), in double precision.
        z_dim: latent dimensions.
        steps: at most; fewer where log p has settled.
        seed: of the start.
    """
    weight = torch.randn(x.shape[1], z_dim, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    found = Linear(0.1 * weight, x.nanmean(0).nan_to_num(0.0), torch.ones((), dtype=x.dtype))
    there, known, before = (~x.isnan()).to(x.dtype), x.nan_to_num(0.0), -math.inf
    for _ in range(steps):
        mean, covariance, log_p = found.posterior(x)
        now = log_p.mean().item()
        yield found, now
        if now - before < SETTLED:
            return
        before = now
        ones = torch.ones(len(x), 1, dtype=x.dtype)
        first = torch.cat([mean, ones], 1)
        second = torch.nn.functional.pad(covariance, (0, 1, 0, 1)) + first[:, :, None] * first[:, None]
        each = torch.einsum("nd,nkl->dkl", there, second) + RIDGE * torch.eye(z_dim + 1).to(x)
        rows = torch.linalg.solve(each, torch.einsum("nd,nk->dk", known, first))
        rest = known.square() - 2 * known * (first @ rows.T) + torch.einsum("nkl,dk,dl->nd", second, rows, rows)
        found = Linear(rows[:, :-1], rows[:, -1], (there * rest).sum() / there.sum())


def by_components(train: Tensor, x: Tensor, z_dim: int, seed: int) -> Tensor:
    """What is missing by probabilistic principal components: fitted by EM, then the exact conditional mean."""
    mean, sd = (part.double() for part in Standard.of(train))
    for model, _ in em((train.double() - mean) / sd, z_dim, seed=seed):
        best = model
    return (best.filled((x.double() - mean) / sd) * sd + mean).to(x)
