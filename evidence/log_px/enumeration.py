"""log p(x) of models with discrete latents, as a sum over all of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from evidence.batches import over
from evidence.estimate import Estimate
from evidence.joint_values import JointValues
from inference.scoring import CHUNK_NUMBERS
from inference.walk import Tick, width_of
from nets.numbers import count

ROWS = 100
PRIOR_MASS_TOLERANCE = 1e-3


def enumerated(
    model: Callable,
    data: Tensor | Iterable,
    most: int = 1_000_000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Estimate:
    """The exact log p(x) of a model whose latents are all discrete.

        log p(x) = log sum_z p(x, z),   z over all joint values of all sites

    Sites may be binary, one-hot, classes or bounded integers, single or in arrays, and may depend on one another; their
    sets of values may not.

    Returns:
        an ``Estimate``, side "exact".

    Args:
        model: a Pyro program with its sites in one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        most: joint values allowed per datum.
        chunk: joint values times data at once; picked from the width of x unless told, for bounded memory.
        seed: of the one run that finds the sites.
        progress: show a bar with the time left.

    Raises:
        ValueError: a latent is continuous or unbounded, lies in no plate or in several, there are more than ``most``
            joint values, or their prior probabilities do not sum to one.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
        >>> enumerated(model, torch.ones(2)).log_px.exp()
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    count(most=most, chunk=1 if chunk is None else chunk)

    def method(args: tuple, tick: Tick) -> Estimate:
        values = JointValues(model, args, most)
        at_once = max(1, (chunk or CHUNK_NUMBERS // width_of(args)) // len(args[0]))
        joint = prior = torch.full((), -math.inf, dtype=torch.float64)
        for start in range(0, values.count, at_once):
            index = torch.arange(start, min(start + at_once, values.count), device=args[0].device)
            log_joint, log_prior = values.weigh(index)
            joint = torch.logaddexp(log_joint.double().logsumexp(0), joint.to(log_joint.device))
            prior = torch.logaddexp(log_prior.double().logsumexp(0), prior.to(log_prior.device))
            tick(len(index) / values.count)
        _check(joint, prior)
        return replace(Estimate.exactly("enumerated", joint), num_samples=values.count)

    return over(data, method, (model,), min(ROWS, chunk or ROWS), seed, progress, "summing out the latents")


def _check(joint: Tensor, prior: Tensor) -> None:
    """The prior probabilities of all values sum to one, or some value was missed; no result is NaN."""
    if joint.isnan().any():
        raise ValueError(
            f"{int(joint.isnan().sum())} data have log p(x) = NaN: the model's parameters or the data are not finite; "
            "look at the run that produced them"
        )
    if not (prior.abs() < PRIOR_MASS_TOLERANCE).all():
        raise ValueError(
            f"prior probabilities of all joint values sum to {prior.exp().min().item():.4g} .. "
            f"{prior.exp().max().item():.4g}, expected 1: a site's values depend on another site, or sites carry a "
            "scale or a mask; use importance(...) with a guide"
        )
