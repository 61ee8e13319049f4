"""The exact posterior of weights, where the mean of a Gaussian is linear in them: Bayesian linear regression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from dlvm.distributions.supports import inner
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import sample_sites
from dlvm.models.bayesian import Bayesian

TOLERANCE = 1e-4


@dataclass(frozen=True)
class WeightPosterior:
    """p(w | D) of a model that is linear in its weights, and what follows from it; in double precision.

    Attributes:
        model: whose weights they are.
        loc, covariance: of all weights in one vector, in the order of the model's sites; shapes (D,) and (D, D).
        log_evidence: log p(y_1, ..., y_N | x_1, ..., x_N), nats, of all N data together.
        num_data: N.
    """

    model: Bayesian
    loc: Tensor
    covariance: Tensor
    log_evidence: float
    num_data: int

    @torch.no_grad()
    def predictive(self, *args: Any) -> dist.Distribution:
        """p(y' | x', D) of each new datum by itself, of batch shape (batch,)."""
        design, offset, scale, _ = _linear_in_weights(self.model, args)
        mean = offset + design @ self.loc
        variance = scale.square() + ((design @ self.covariance) * design).sum(-1)
        return dist.Normal(mean, variance.sqrt()).to_event(1)

    def log_px(self, *args: Any) -> Tensor:
        """log p(y' | x', D), shape (batch,), nats."""
        return self.predictive(*args).log_prob(_linear_in_weights(self.model, args)[3])

    def weights(self) -> dict[str, Tensor]:
        """{site: posterior mean}."""
        return apart(self.model, self.loc.to(next(iter(self.model.starts.values())).dtype))


@torch.no_grad()
def weight_posterior(model: Bayesian, *args: Any) -> WeightPosterior:
    """The exact posterior of a Bayesian model that is linear in its weights, under Gaussian prior and noise.

        p(w) = N(m, S),  p(y | w) = N(A w + b, R):   p(w | y) = N(m', S'),  S'^-1 = S^-1 + A^T R^-1 A
        S'^-1 m' = S^-1 m + A^T R^-1 (y - b),   p(y) = N(A m + b, A S A^T + R)

    A and b are read off the model, and it is made sure that there is nothing else in it.

    Returns:
        a ``WeightPosterior``.

    Args:
        model: without latents of each datum; the other parameters, as the scale of the noise, as they are.
        *args: all the data, as one batch.

    Raises:
        TypeError: ``model`` is no ``Bayesian``.
        ValueError: prior or likelihood is no Gaussian, there are local latents, or the mean is not linear in the
            weights, or the scale depends on them.

    References:
        Pattern Recognition and Machine Learning, Bishop, 2006, section 3.3.

    Example:
        >>> from dlvm.distributions import LearnedScale, Normal
        >>> from dlvm.models import Conditional
        >>> likelihood = Normal(torch.nn.Linear(2, 2), 1, scale=LearnedScale(dim=1))
        >>> model = Bayesian(Conditional(likelihood), num_data=5, only=("likelihood.head",))
        >>> round(weight_posterior(model, torch.zeros(5, 2), torch.zeros(5, 1)).log_evidence, 2) < 0
        True
    """
    if not isinstance(model, Bayesian):
        raise TypeError(f"model must be Bayesian(model, num_data), got {type(model).__name__}; make it one")
    prior_loc, prior_scale = _prior(model)
    design, offset, scale, y = _linear_in_weights(model, args)
    design, offset, scale, y = (part.reshape(y.numel(), *part.shape[2:]) for part in (design, offset, scale, y))
    white = design / scale[:, None] * prior_scale  # weights in units of their prior, data in units of their noise
    residual = (y - offset - design @ prior_loc) / scale
    precision = torch.eye(len(prior_loc), dtype=white.dtype) + white.T @ white
    tril = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve((white.T @ residual)[:, None], tril)[:, 0]
    spread = torch.cholesky_inverse(tril) * prior_scale * prior_scale[:, None]
    log_det = 2 * tril.diagonal().log().sum() + 2 * scale.log().sum()
    square = residual.square().sum() - (white.T @ residual) @ mean
    log_evidence = -0.5 * (square + log_det + len(y) * math.log(2 * math.pi))
    rows = next(value.shape[0] for value in args if isinstance(value, Tensor))
    return WeightPosterior(model, prior_loc + prior_scale * mean, spread, log_evidence.item(), rows)


def _prior(model: Bayesian) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all weights, shape (D,) each."""
    priors = {site: inner(fn) for site, fn in model.priors().items()}
    for site, fn in priors.items():
        if not isinstance(fn, torch.distributions.Normal):
            raise ValueError(
                f"prior of {site!r} must be Normal, got {type(fn).__name__}; no posterior is known exactly"
            )
    loc, scale = (torch.cat([part(fn).flatten().double() for fn in priors.values()]) for part in (_loc, _scale))
    return loc, scale


def _loc(fn: Any) -> Tensor:
    return fn.mean


def _scale(fn: Any) -> Tensor:
    return fn.stddev


def _linear_in_weights(model: Bayesian, args: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A, b, the noise's scale and y, each with a row for each datum: (rows, event, D), (rows, event) three times."""
    loc, spread = _prior(model)
    zero, *others = [torch.zeros_like(loc), *torch.eye(len(loc), dtype=loc.dtype)]
    offset, scale, y = _observed(model, zero, args)
    design = torch.stack([_observed(model, unit, args)[0] - offset for unit in others], -1)
    somewhere = loc + spread * torch.linspace(-1.3, 0.9, len(loc), dtype=loc.dtype)
    there, its_scale, _ = _observed(model, somewhere, args)
    largest = 1 + there.abs().max()
    if (there - offset - design @ somewhere).abs().max() > TOLERANCE * largest:
        raise ValueError("model is not linear in its weights, so that no posterior is known exactly; use predictive()")
    if (its_scale - scale).abs().max() > TOLERANCE * scale.max():
        raise ValueError(
            "model has noise whose scale depends on the weights, so that no posterior is known exactly; give the "
            "likelihood a scale of its own, and leave it out of only="
        )
    return design, offset, scale, y


def _observed(model: Bayesian, weights: Tensor, args: tuple) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, scale and value of the observed site at these weights, in double precision, shape (rows, event) each."""
    held = apart(model, weights.to(next(iter(model.starts.values())).dtype))
    with model.holding(held), poutine.block():
        trace = poutine.trace(own(model.model)).get_trace(*args)
    sites = sample_sites(trace)
    fn = inner(sites[0]["fn"]) if len(sites) == 1 else None
    if not isinstance(fn, torch.distributions.Normal):
        raise ValueError(
            "model must have one site in the plate over data, with a Normal, for a posterior that is known exactly, "
            f"got the sites {[found['name'] for found in sites]}; use predictive()"
        )
    value: Tensor = sites[0]["value"]
    mean, scale, y = (part.expand_as(value).reshape(len(value), -1).double() for part in (fn.mean, fn.stddev, value))
    return mean, scale, y


def apart(model: Bayesian, weights: Tensor) -> dict[str, Tensor]:
    """{site: its part of the vector}."""
    sizes = [value.numel() for value in model.starts.values()]
    parts = zip(model.starts.items(), weights.split(sizes), strict=True)
    return {site: part.reshape(value.shape) for (site, value), part in parts}
