"""Importance weights by Pyro alone: the guide is traced, the model replayed, one particle after the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from programs.brought import Pair, arguments


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def one_by_one(pair: Pair, args: tuple, particles: int, seed: int = 0) -> Tensor:
    """log p(x, z_k) - log q(z_k | x), (particles, batch), nats; (particles, 1) where data cannot be told apart.

    What the guide observes counts nothing, and latents that it lacks are drawn from the prior. What lies outside the
    data plate, and has no latent, is left out.
    """
    torch.manual_seed(seed)
    with quiet():
        return torch.stack([_weight(pair, args) for _ in range(particles)])


def _weight(pair: Pair, args: tuple) -> Tensor:
    q = poutine.trace(pair.guide).get_trace(*args)
    p = prune_subsample_sites(poutine.trace(poutine.replay(pair.model, trace=q)).get_trace(*args))
    q = prune_subsample_sites(q)
    drawn = {name: site for name, site in q.nodes.items() if site["type"] == "sample" and not site["is_observed"]}
    joint = [s for s in p.nodes.values() if s["type"] == "sample" and (s["is_observed"] or s["name"] in drawn)]
    total = torch.zeros((), dtype=torch.float64)
    for sign, sites in ((1, joint), (-1, drawn.values())):
        for site in sites:
            total = total + sign * _rows(site, pair)
    return total if pair.plate else total.sum().reshape(1)


def _rows(site: dict, pair: Pair) -> Tensor:
    """A site's log-density, masked and scaled beyond what scales all: one number per datum."""
    log_prob = site["fn"].log_prob(site["value"]).double()
    log_prob = scale_and_mask(log_prob, site["scale"], site["mask"]) / pair.scale
    if pair.plate is None:
        return log_prob.sum()
    frame = next((f for f in site["cond_indep_stack"] if f.name == pair.plate), None)
    if frame is None:  # counts once a batch
        return torch.zeros((), dtype=torch.float64)
    dims = [d for d in range(-log_prob.dim(), 0) if d != frame.dim]
    return log_prob.sum(dims) if dims else log_prob


def every_batch(pair: Pair, particles: int) -> Tensor:
    """The weights of all data, (particles, num_data); (particles, batches) where data cannot be told apart."""
    return torch.cat([one_by_one(pair, arguments(batch), particles) for batch in pair.batches], 1)


@contextmanager
def evaluating(pair: Pair) -> Iterator[None]:
    """Inside, the modules that the user holds are in evaluation mode."""
    parts = [part for module in pair.parts for part in module.modules()]
    before = [part.training for part in parts]
    try:
        nn.ModuleList(pair.parts).eval()
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training
