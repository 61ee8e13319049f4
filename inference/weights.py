"""Importance weights log p(x, z) - log q(z | x), one per particle and datum: what every bound here is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from inference.ownership import own
from inference.plates import PARTICLES, common_plates, depth, nesting_of, outer_scale, sample_sites


class Weights(NamedTuple):
    """Terms of the log-weights of a batch, each of shape (num_particles, batch), in nats.

    ``log_w = log_likelihood - log_ratio``, with log p(x | z) over the observed sites and log q(z | x) / p(z) over the
    latent ones. ``scale`` is what each datum's bound is multiplied by: a number, or shape (batch,). ``latents`` are the
    drawn values by site, and ``x_dim`` counts the observed numbers of one datum.
    """

    log_likelihood: Tensor
    log_ratio: Tensor
    scale: Tensor | float
    latents: dict[str, Tensor]
    x_dim: int

    @property
    def log_w(self) -> Tensor:
        return self.log_likelihood - self.log_ratio


def log_weights(model: Callable, guide: Callable, *args, num_particles: int = 1, **kwargs) -> Tensor:
    """Log importance weights of particles drawn from the guide.

        log w = log p(x, z) - log q(z | x),   z ~ q(z | x)

    Plates around every site index independent data, one weight each; what lies in further plates is summed. A scale
    that all sites share (a subsampled plate, ``poutine.scale`` around both programs) multiplies bounds, never weights,
    and is left out here.

    Returns:
        shape (num_particles, batch), nats; differentiable. A model without a plate around every site has batch = 1.

    Args:
        model, guide: Pyro programs of the same signature.
        *args, **kwargs: what both are called with.
        num_particles: K, drawn in parallel by a plate on the left of all others.

    Raises:
        ValueError: ``num_particles`` is below 1, or a plate around some sites only is subsampled.

    Example:
        >>> from guides import Diagonal, latents
        >>> from models import PPCA
        >>> from nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> log_weights(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=4).shape
        torch.Size([4, 5])
    """
    return weigh(own(model), own(guide), args, kwargs, num_particles).log_w


def weigh(model: Callable, guide: Callable, args: tuple, kwargs: dict, num_particles: int = 1) -> Weights:
    """The terms of ``log_weights``, see there; programs run as they are, with parameters where Pyro keeps them."""
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    nesting = nesting_of(model, guide, args, kwargs) if num_particles > 1 else float("inf")
    if num_particles > 1:
        nesting += 1
        model, guide = (pyro.plate(PARTICLES, num_particles, dim=-nesting)(program) for program in (model, guide))
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    if is_validation_enabled():
        check_model_guide_match(model_trace, guide_trace, nesting)
    return reduce(prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace), num_particles)


def reduce(model_trace: poutine.Trace, guide_trace: poutine.Trace, num_particles: int) -> Weights:
    """Sums the log-densities of two traces to one number per particle and datum."""
    model_trace.compute_log_prob()
    guide_trace.compute_log_prob()
    joint, drawn = sample_sites(model_trace), sample_sites(guide_trace)
    sites = joint + drawn
    if is_validation_enabled():
        nesting = depth(sites) + (num_particles > 1)
        for site in sites:
            check_site_shape(site, nesting)
    plates = common_plates(sites)
    scale = outer_scale(sites, plates)
    _check_inner_plates(sites, plates)
    _check_all_drawn(joint, drawn)

    def per_datum(selected: list[dict]) -> Tensor:
        return sum(_reduce_site(site, plates, scale, num_particles) for site in selected)

    log_ratio = per_datum(drawn) - per_datum([site for site in joint if not site["is_observed"]])
    log_likelihood = per_datum([site for site in joint if site["is_observed"]])
    shape = torch.Size((num_particles, math.prod(frame.size for frame in plates)))
    log_likelihood, log_ratio = (torch.as_tensor(term).expand(shape) for term in (log_likelihood, log_ratio))
    if isinstance(scale, Tensor) and scale.dim():
        scale = scale.expand([frame.size for frame in plates]).reshape(-1)
    x_dim = sum(site["value"].numel() for site in joint if site["is_observed"]) // max(1, shape[1])
    return Weights(log_likelihood, log_ratio, scale, {site["name"]: site["value"] for site in drawn}, x_dim)


def _check_all_drawn(joint: list[dict], drawn: list[dict]) -> None:
    lacking = {site["name"] for site in joint if not site["is_observed"]} - {site["name"] for site in drawn}
    if lacking:
        raise ValueError(
            f"guide lacks the latent sites {sorted(lacking)}: importance weights need q at every latent site; "
            "add them to the guide (sites that TraceEnum_ELBO sums out cannot be weighed)"
        )


def _check_inner_plates(sites: list[dict], plates: list) -> None:
    outer = {PARTICLES, *(frame.name for frame in plates)}
    for site in sites:
        for frame in site["cond_indep_stack"]:
            if frame.name not in outer and frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"plate {frame.name!r} around site {site['name']!r} is subsampled ({frame.size} of "
                    f"{frame.full_size}) but is not around every site: a bound with its logarithm outside a plate has "
                    "no unbiased subsample; use Trace_ELBO, or the whole plate"
                )


def _reduce_site(site: dict, plates: list, scale: Tensor | float, num_particles: int) -> Tensor:
    """A site's log-density, (num_particles, batch): masked, tempered by its scale beyond the common one, summed."""
    log_prob = scale_and_mask(site["unscaled_log_prob"], _ratio(site["scale"], scale), site["mask"])
    kept = {frame.dim for frame in plates}
    inner = [dim for dim in range(-depth([site]), 0) if dim not in kept and log_prob.dim() >= -dim]
    if inner:
        log_prob = log_prob.sum(inner, keepdim=True)
    return log_prob.reshape(num_particles, -1)


def _ratio(scale: Tensor | float, outer: Tensor | float) -> Tensor | float:
    """scale / outer, and 1 where both are equal, 0 included."""
    if isinstance(scale, Tensor) or isinstance(outer, Tensor):
        return torch.where(torch.as_tensor(scale == outer), 1.0, scale / outer)
    return scale / outer
