"""A pair one step at a time: what steps its programs have, and whether these are what the programs say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.distributions.sequences.steps import Steps, Stepwise, chain_steps
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.modules import bare, unwrapped
from dlvm.inference.programs.pair import Pair, draws_nothing, remembered
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import GUIDE_TOLERANCE, MODEL_TOLERANCE


def steps_of(pair: Pair, args: tuple, kwargs: dict) -> tuple[Steps, Steps | None]:
    """The steps of both programs on a batch; None for a guide that draws nothing.

    Raises:
        ValueError: a program has none, or others than it says itself.
    """
    check_steps(pair, args, kwargs)
    return _steps(pair, args, kwargs)


def _steps(pair: Pair, args: tuple, kwargs: dict) -> tuple[Steps, Steps | None]:
    model = unwrapped(bare(pair.model))
    if not isinstance(model, nn.Module) or not isinstance(model, Stepwise):
        raise ValueError(
            f"model {type(model).__name__} cannot be gone through step by step, as a particle filter does: give it a "
            "method stepwise(x, lengths) that returns its Steps, or use IWAE or importance sampling"
        )
    guide = bare(pair.guide)
    return model.stepwise(*args, **kwargs), None if guide is draws_nothing else _of_guide(pair.guide, args, kwargs)


def _of_guide(guide: Callable, args: tuple, kwargs: dict) -> Steps:
    """What a guide says of its steps, or the steps of the one chain that it draws."""
    module = unwrapped(bare(guide))
    if isinstance(module, nn.Module) and isinstance(module, Stepwise):
        return module.stepwise(*args, **kwargs)
    drawn = sample_sites(poutine.trace(guide).get_trace(*args, **kwargs))
    if len(drawn) == 1:
        try:
            return chain_steps(drawn[0]["fn"])
        except TypeError:
            pass
    kinds = sorted({type(site["fn"]).__name__ for site in drawn})
    raise ValueError(
        f"guide {type(module).__name__} cannot be gone through step by step, as a particle filter does: it draws "
        f"{len(drawn)} sites from {', '.join(kinds)}; take one that draws a chain over time, as Sequential, or give it "
        "a method stepwise(x, lengths) that returns its Steps"
    )


def drawn_steps(particles: Particles) -> Tensor:
    """The latents of particles over time, shape (num_particles, batch, T, z_dim): one site, or z_1..z_T.

    Raises:
        ValueError: they are neither.
    """
    latents = particles.latents
    if len(latents) == 1:
        (value,) = latents.values()
        return value.reshape(-1, *value.shape[-3:])
    numbered = {name.rpartition("_")[2]: value for name, value in latents.items()}
    wanted = [str(t + 1) for t in range(len(latents))]
    if not latents or sorted(numbered, key=lambda n: (len(n), n)) != wanted:
        raise ValueError(
            f"latent sites must be one over all steps, or z_1 to z_T, one a step, got {[*latents]}; a filter needs to "
            "know which step is whose"
        )
    path = torch.stack([numbered[t] for t in wanted], -2)
    return path.reshape(-1, *path.shape[-3:])


@remembered
def check_steps(pair: Pair, args: tuple, kwargs: dict) -> None:
    """Holds the steps of both programs against the programs, at two draws, together and alone; remembered for a pair.

    Raises:
        ValueError: a program has no steps, or they have another density than the program.
    """
    with untouched(), torch.no_grad(), poutine.block(), pair.silent():
        model, guide = _steps(pair, args, kwargs)
        if guide is None:
            prior = poutine.block(pair.model, hide_fn=_is_observed)
            drawn = [weigh(Pair.as_they_are(pair.model, prior), args, kwargs, 1) for _ in range(2)]
        else:
            drawn = [weigh(pair, args, kwargs, 1) for _ in range(2)]
        z = torch.cat([drawn_steps(particles) for particles in drawn])
        log_z, log_x = model.densities(z)
        wanted = torch.cat([particles.log_p for particles in drawn])
        found = log_z.sum(-1) + (0 if log_x is None else log_x.sum(-1))
        _hold("model", found, wanted, MODEL_TOLERANCE)
        if guide is not None:
            wanted = torch.cat([particles.log_q for particles in drawn])
            _hold("guide", guide.densities(z)[0].sum(-1), wanted, GUIDE_TOLERANCE)


def _hold(who: str, found: Tensor, wanted: Tensor, tolerance: float) -> None:
    if found.shape != wanted.shape or not torch.allclose(found, wanted, tolerance, tolerance, equal_nan=True):
        off = f"{(found - wanted).abs().max().item():.3g} nats" if found.shape == wanted.shape else f"{found.shape}"
        raise ValueError(
            f"the steps of the {who} have another density than its program, off by {off}: let stepwise(x, lengths) say "
            "what forward does, over any leading dimensions, with handlers around the program taken away"
        )


def _is_observed(site: Any) -> bool:
    return site["type"] == "sample" and bool(site["is_observed"])
