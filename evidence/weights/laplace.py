"""Laplace's approximation of the posterior of weights: a Gaussian at its highest point, of the curvature there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.infer.autoguide.initialization import init_to_value
from torch import Tensor
from torch.distributions import constraints

from dlvm.evidence.weights.linear import apart
from dlvm.evidence.weights.posterior_predictive import draw_weights
from dlvm.guides.with_globals import WithGlobals
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.models.bayesian import Bayesian
from dlvm.nets.arguments import whole

MOST = 4000  # weights whose covariance is computed
ROWS = 256  # of the curvature at a time
CLOSE = 1e-7  # nats per datum that a Newton step must promise
HALVINGS = 20


@dataclass(frozen=True)
class LaplaceFit:
    """A posterior of weights by Laplace's method, and the evidence by it.

    Attributes:
        guide: q(w) = N(w*, H^-1), for ``posterior_predictive`` and whatever takes a trained guide.
        log_evidence: log p(D), nats of all data together: an approximation, and no bound.
        log_joint: log p(D, w*).
        num_data: how many data.
    """

    guide: WithGlobals
    log_evidence: float
    log_joint: float
    num_data: int


def laplace(model: Bayesian, guide: WithGlobals, data: Iterable[tuple], newton_steps: int = 20) -> LaplaceFit:
    """The Gaussian at the maximum of p(w | D), whose precision is the curvature of its logarithm there.

        q(w) = N(w*, H^-1),  w* = argmax log p(D, w),  H = -d^2 log p(D, w*) / dw dw'
        log p(D) ~ log p(D, w*) + D / 2 log 2 pi - 1 / 2 log det H

    Exact where p(w | D) is Gaussian, as in Bayesian linear regression. All other parameters stay as they are. Newton
    steps take w* from the guide's draw, a point's as a rule, to the maximum.

    Returns:
        a ``LaplaceFit``.

    Args:
        model: with at most 4000 random weights, as those of a last layer, and no latents of each datum.
        guide: of the model, trained; by ``AutoDelta``, or any other, of which one draw is the start.
        data: batches of what the model takes, which hold each datum once, as a loader.
        newton_steps: at most so many; 0 takes the draw for the maximum.

    Raises:
        TypeError: ``model`` is no ``Bayesian``, ``guide`` no ``WithGlobals``, or ``newton_steps`` no integer.
        ValueError: ``newton_steps`` is negative, there are too many weights, latents of each datum, a prior on a part
            of the line, or other data than the model was made for; or log p(D, w) is not concave on the way, as of a
            network far from its maximum.

    References:
        A Practical Bayesian Framework for Backpropagation Networks, MacKay, 1992.
        Laplace Redux: Effortless Bayesian Deep Learning, Daxberger and others, 2021, arXiv:2106.14806.

    Example:
        >>> from pyro.infer.autoguide import AutoDelta
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(torch.nn.Linear(4, 3))), num_data=5)
        >>> batch = torch.eye(5)[:, :4], torch.tensor([0, 1, 2, 0, 1])
        >>> found = laplace(model, WithGlobals(None, model, AutoDelta, *batch), [batch])
        >>> round(found.log_evidence, 1)
        -6.3
    """
    batches = _checked(model, guide, data)
    whole(newton_steps=newton_steps)
    if newton_steps < 0:
        raise ValueError(f"newton_steps must be at least 0, got {newton_steps}; 0 takes the point as it is")
    with untouched(0):
        w = torch.cat([value.detach().flatten() for value in draw_weights(model, guide.shared, batches[0]).values()])
    value, gradient, curvature = _derivatives(model, w, batches)
    for _ in range(newton_steps):
        step = torch.cholesky_solve(gradient[:, None], _cholesky(curvature))[:, 0]
        if 0.5 * (gradient @ step) < CLOSE * model.num_data:
            break
        w = _risen(model, w, step.to(w.dtype), value, batches)
        value, gradient, curvature = _derivatives(model, w, batches)
    tril = _cholesky(curvature)
    log_det = 2 * tril.diagonal().log().sum().item()
    log_evidence = value + 0.5 * len(w) * math.log(2 * math.pi) - 0.5 * log_det
    covariance = torch.linalg.cholesky(torch.cholesky_inverse(tril))
    return LaplaceFit(_gaussian(model, w, covariance, batches[0]), log_evidence, value, model.num_data)


def _checked(model: Bayesian, guide: WithGlobals, data: Iterable[tuple]) -> list[tuple]:
    """The batches, once all has been found to be what it must be."""
    if not isinstance(model, Bayesian):
        raise TypeError(f"model must be Bayesian(model, num_data), got {type(model).__name__}; make it one")
    if not isinstance(guide, WithGlobals):
        raise TypeError(
            f"guide must be WithGlobals(None, model, AutoDelta, x), got {type(guide).__name__}; make it one"
        )
    if guide.local is not None:
        raise ValueError("model must have no latents of each datum, whose posteriors change with w; use AutoNormal")
    number = sum(start.numel() for start in model.starts.values())
    if number > MOST:
        raise ValueError(
            f"model must have at most {MOST} random weights, of which the covariance has the square, got {number}; let "
            "fewer be random, by only="
        )
    for site, fn in model.priors().items():
        if getattr(fn.support, "base_constraint", fn.support) is not constraints.real:
            raise ValueError(f"model must have priors of real numbers, got {fn} for {site!r}; give it a Normal")
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise TypeError(f"data must be batches of what the model takes, got {type(data).__name__}; write [(x, y)]")
    batches = [batch if isinstance(batch, tuple) else (batch,) for batch in data]
    rows = sum(next((len(v) for v in batch if isinstance(v, Tensor) and v.dim()), 0) for batch in batches)
    if rows != model.num_data:
        raise ValueError(f"data must hold the {model.num_data} data that the model is of, got {rows}; pass all, once")
    return batches


def _log_joint(model: Bayesian, w: Tensor, batch: tuple) -> Tensor:
    """log p of a batch given the weights, and its share of log p(w)."""
    held = apart(model, w)
    rows = next(len(value) for value in batch if isinstance(value, Tensor))
    log_prior = sum(fn.log_prob(held[site]).sum() for site, fn in model.priors().items())
    with model.holding(held), poutine.block():
        trace = poutine.trace(own(model.model)).get_trace(*batch)
    free = [site["name"] for site in sample_sites(trace) if not site["is_observed"]]
    if free:
        raise ValueError(f"model must observe all but its weights, got the latent sites {free}; use AutoNormal")
    return trace.log_prob_sum() + rows / model.num_data * log_prior


def _derivatives(model: Bayesian, w: Tensor, batches: list[tuple]) -> tuple[float, Tensor, Tensor]:
    """log p(D, w), its gradient, and its curvature with the sign changed; in double precision."""
    value, gradient = 0.0, w.new_zeros(w.shape, dtype=torch.float64)
    curvature = w.new_zeros(len(w), len(w), dtype=torch.float64)
    for batch in batches:
        at = w.detach().requires_grad_()
        with torch.enable_grad():
            joint = _log_joint(model, at, batch)
            (slope,) = torch.autograd.grad(joint, at, create_graph=True)
            for part in torch.eye(len(w), dtype=w.dtype, device=w.device).split(ROWS):
                rows = torch.autograd.grad(slope, at, part, retain_graph=True, is_grads_batched=True)[0]
                start = int(part[0].argmax())
                curvature[start : start + len(part)] -= rows.double()
        value, gradient = value + joint.item(), gradient + slope.detach().double()
    return value, gradient, (curvature + curvature.T) / 2


def _risen(model: Bayesian, w: Tensor, step: Tensor, value: float, batches: list[tuple]) -> Tensor:
    """w after the longest of the halved steps that takes log p(D, w) up; w itself where none does."""
    for halving in range(HALVINGS):
        with torch.no_grad():
            tried = w + step / 2**halving
            if sum(_log_joint(model, tried, batch).item() for batch in batches) > value:
                return tried
    return w


def _cholesky(curvature: Tensor) -> Tensor:
    tril, failed = torch.linalg.cholesky_ex(curvature)
    if int(failed) or not bool(tril.isfinite().all()):
        raise ValueError(
            "model has no maximum of log p(D, w) here: it is not concave in the weights, as of a network with more "
            "random layers than one; let the last layer alone be random, by only=, or train AutoDelta longer"
        )
    return tril


def _gaussian(model: Bayesian, w: Tensor, tril: Tensor, batch: tuple) -> WithGlobals:
    """The guide with this mean and this Cholesky factor of the covariance."""
    start = init_to_value(values=apart(model, w))
    made = WithGlobals(None, model, partial(AutoMultivariateNormal, init_loc_fn=start), *batch)
    shared: Any = made.shared
    scale = tril.diagonal()
    with torch.no_grad():
        shared.loc.copy_(w)
        shared.scale = scale.to(w)
        shared.scale_tril = (tril / scale[:, None]).to(w)
    return made
