"""What a decoder says of each observed number: the Gaussian or Bernoulli at the observed site."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor

from inference.particles import Particles


class Decoded(NamedTuple):
    """Predictions for some data, shapes (num_particles, num_data, x_dim); x has shape (num_data, x_dim).

    Attributes:
        x: the data.
        mean: of p(x_d | z).
        surprise: -log p(x_d | z), nats.
        scale: of a Gaussian; None for a Bernoulli.
        entropy: of p(x_d | z), nats.
    """

    x: Tensor
    mean: Tensor
    surprise: Tensor
    scale: Tensor | None
    entropy: Tensor


def decoded(found: Particles, site: str | None = None) -> Decoded:
    """Reads an observed site's likelihood.

    Args:
        found: draws of some data.
        site: its name; the model's only observed site unless told.

    Raises:
        ValueError: there is no such site, or there are several and none is named.
        TypeError: its likelihood is neither made of Gaussians nor of Bernoullis, or is masked.
    """
    observed = {s["name"]: s for s in found.joint if s["is_observed"]}
    if site is None and len(observed) > 1 or site is not None and site not in observed:
        raise ValueError(f"site must be one of the observed sites {sorted(observed)}, got {site!r}; name one of them")
    name = site or next(iter(observed))
    fn, value = observed[name]["fn"], observed[name]["value"]
    k, count = found.log_likelihood.shape
    shape = torch.Size((*fn.batch_shape, *fn.event_shape))
    while isinstance(fn, (dist.Independent, torch.distributions.Independent)):
        fn = fn.base_dist
    gaussian = isinstance(fn, torch.distributions.Normal)
    if not gaussian and not isinstance(fn, torch.distributions.Bernoulli):
        kind = "masked" if isinstance(fn, MaskedDistribution) else type(fn).__name__
        raise TypeError(
            f"observed site {name!r} has a {kind} likelihood; a decoder is diagnosed where it is made of "
            "independent Normal or Bernoulli variables"
        )
    x = value.expand(shape).reshape(k, count, -1)[0].double()
    found = (fn.mean, -fn.log_prob(value), fn.stddev, fn.entropy())
    mean, surprise, scale, entropy = (t.expand(shape).reshape(k, count, -1).double() for t in found)
    return Decoded(x, mean, surprise, scale if gaussian else None, entropy)
