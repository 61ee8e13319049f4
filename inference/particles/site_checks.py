"""Whether sites of both programs can be weighed against each other: plates, scales, masks, and none missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from dlvm.distributions.diffusion.random_layer import EstimatedLog
from dlvm.distributions.masks import counting
from dlvm.distributions.supports import inner
from dlvm.inference.programs.beside import beside
from dlvm.inference.programs.data_sites import data_of
from dlvm.inference.programs.plates import PARTICLES, common_loops, common_plates


def check_masks(joint: list[dict], drawn: list[dict]) -> None:
    """Raises ValueError where a latent site counts for other data in the guide than in the model."""
    sites = {site["name"]: site for site in joint}
    for site in (site for site in drawn if site["name"] in sites):
        found = counting(sites[site["name"]]), counting(site)
        p, q = (torch.ones((), dtype=torch.bool) if mask is None else mask.cpu() for mask in found)
        if not torch.equal(*torch.broadcast_tensors(p, q)):
            raise ValueError(
                f"latent site {site['name']!r} has a mask in the model that the guide's lacks, or another one, so that "
                "what counts nothing in p counts in q: put poutine.mask(mask=...) around the guide's site, or let "
                "present= of a guide made of latents(...) return {site: mask}, with one bool per datum"
            )


def check_all_drawn(joint: list[dict], drawn: list[dict]) -> None:
    names = {site["name"] for site in drawn}
    if twice := [site["name"] for site in joint if site["is_observed"] and site["name"] in names]:
        raise ValueError(f"guide draws {twice}, which the model observes; leave them out of the guide")
    lacking = {site["name"] for site in joint if not site["is_observed"]} - names
    if lacking:
        raise ValueError(
            f"guide lacks the latent sites {sorted(lacking)}: importance weights need q at every latent site; "
            "add them to the guide, or have discrete ones summed out by infer={'enumerate': 'parallel'} in the model"
        )
    extra = names - {site["name"] for site in joint} - {s["name"] for s in drawn if s["infer"].get("is_auxiliary")}
    if extra:
        raise ValueError(
            f"guide draws the sites {sorted(extra)}, which the model lacks when called so, and whose density would "
            "count in q alone: draw them only where the model has them, as a guide made of latents(...) does by "
            'present=, or mark them infer={"is_auxiliary": True}'
        )


def check_no_estimates(sites: list[dict]) -> None:
    """Raises ValueError where a factor is right on average alone, so that weights are no importance weights."""
    for site in sites:
        if isinstance(inner(site["fn"]), EstimatedLog):
            raise ValueError(
                f"site {site['name']!r} is an unbiased estimate of a sum of log-densities: means of log-weights are a "
                "bound, and weights no importance weights; train by ELBO(), without aids, and evaluate the program "
                "with every term, for a RandomLayer its .model with ForwardDiffusion; of random weights evaluate the "
                "pair posterior_predictive(model, guide)"
            )


def check_not_linear(sites: list[dict], apart: Collection[str]) -> None:
    """Raises ValueError where sums over sites are right on average alone, and no logarithm of a mean may be taken.

    Args:
        sites: of model and guide.
        apart: names of those that are in no datum's weight; they may be in a plate of their own, but no estimates.
    """
    check_no_estimates(sites)
    sites = [site for site in sites if site["name"] not in apart]
    outer = {PARTICLES, *(frame.name for frame in common_plates(sites)), *common_loops(sites)}
    for site in sites:
        for frame in site["cond_indep_stack"]:
            if frame.name not in outer and frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"plate {frame.name!r} around site {site['name']!r} is subsampled ({frame.size} of "
                    f"{frame.full_size}) but is not around every site: a bound with its logarithm outside a plate has "
                    "no unbiased subsample; use ELBO, or the whole plate; of a trained Bayesian(...) evaluate the pair "
                    "posterior_predictive(model, guide)"
                )


def check_scale(site: Mapping[str, Any], num_particles: int) -> None:
    scale, shape = site["scale"], site["unscaled_log_prob"].shape[num_particles > 1 :]
    if isinstance(scale, Tensor) and (
        scale.shape.numel() != scale.shape[max(0, scale.dim() - len(shape)) :].numel()
        or any(a not in (1, b) for a, b in zip(reversed(scale.shape), reversed(shape), strict=False))
    ):
        raise ValueError(
            f"site {site['name']!r} has a density of shape {tuple(shape)} and a scale of shape {tuple(scale.shape)}, "
            "which is no number for each; give poutine.scale a shape that broadcasts to that of the plates"
        )


def check_one_plate(sites: list[dict]) -> None:
    latent, data = (common_plates(found) for found in ([s for s in sites if not s["is_observed"]], data_of(sites)))
    if latent and data:
        raise ValueError(
            f"latent sites lie in plates {[f.name for f in latent]} and the data in {[f.name for f in data]}, so that "
            "no datum has a weight of its own; put the sites of a datum into one plate"
        )
    if outside := beside(sites):
        raise ValueError(
            f"observed site {outside[0]['name']!r} depends on latent sites in a plate that it does not lie in, so that "
            "no datum has a weight of its own; put the sites of a datum into one plate"
        )
