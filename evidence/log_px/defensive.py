"""Importance sampling that keeps a share of its draws for the prior, so that no weight is unbounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from dlvm.evidence.estimate import Estimate, over
from dlvm.evidence.target import Target
from dlvm.inference.bounds.importance import log_mean_bias, log_mean_exp
from dlvm.inference.evaluation.dataset_weights import CHUNK_NUMBERS
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import width_of
from dlvm.nets.arguments import count, real

ROWS = 100


def defensive(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 1000,
    share: float = 0.1,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Estimate:
    """Estimates log p(x) by importance sampling from a guide and the prior together.

        log p(x) ~ log 1/K sum_k w_k,   w = p(x, z) / [(1 - share) q(z | x) + share p(z)] <= p(x | z) / share

    A fixed number of the z_k comes from either, and all are weighed by the mixture (the balance heuristic). Where the
    guide misses a mode that the prior reaches, the estimate finds it, or its k-hat says that something is there.

    Returns:
        an ``Estimate``, side "lower"; its standard error is that of the two sets of draws, each by itself.

    Args:
        model, guide: Pyro programs of the same signature with continuous latents in one plate over data; the guide's
            density can be had at any z.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        num_particles: K per datum, at least 2.
        share: of the prior, strictly between 0 and 1; rounded to a number of draws, at least one from either.
        chunk: particles times data weighed at once; picked from the width of x unless told, for bounded memory.
        seed, progress: see ``evaluate``.

    Raises:
        ValueError: ``share`` or a size is out of range, a latent is discrete, the guide draws more or less than the
            model's latent sites, or a flow in it cannot be inverted.

    References:
        Weighted average importance sampling and defensive mixture distributions, Hesterberg, 1995.
        Optimally combining sampling techniques for Monte Carlo rendering, Veach, Guibas, 1995.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> defensive(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=20).num_samples
        20
    """
    count(num_particles=num_particles, chunk=1 if chunk is None else chunk)
    real(share=share)
    if num_particles < 2:
        raise ValueError("num_particles must be at least 2 (one from the guide, one from the prior), got 1")
    if not 0 < share < 1:
        raise ValueError(f"share must be strictly between 0 and 1, got {share}; for 0 use importance(...)")
    from_prior = min(max(1, round(share * num_particles)), num_particles - 1)

    pair = Pair(model, guide)

    def method(args: tuple, tick: Tick) -> Estimate:
        target = Target(model, args)
        _check_sites(target, guide)
        at_once = max(1, (chunk or CHUNK_NUMBERS // width_of(args, pair)) // target.num_data)
        strata = []
        for program, number in ((guide, num_particles - from_prior), (model, from_prior)):
            parts = []
            for start in range(0, number, at_once):
                size = min(at_once, number - start)
                parts.append(_weights(target, guide, target.draw(program, size), from_prior / num_particles))
                tick(size / num_particles)
            strata.append(torch.cat(parts))
        found = Estimate.of_weights("defensive importance sampling", torch.cat(strata))
        se = _standard_error(strata)
        return replace(found, log_px_se=se, log_px_bias=log_mean_bias(se.square(), found.khat))

    return over(data, method, pair, min(ROWS, chunk or ROWS), seed, progress)


def _weights(target: Target, guide: Callable, u: Tensor, share: float) -> Tensor:
    """log w at draws from either, shape (particles, data)."""
    prior, likelihood = target(u)
    log_q = target.log_q(guide, u)
    mixture = torch.logaddexp(log_q.double() + math.log1p(-share), prior.double() + math.log(share))
    return likelihood.double() + prior.double() - mixture


def _standard_error(strata: list[Tensor]) -> Tensor:
    """That of log mean w over several sets of draws with fixed sizes; a set of one counts by its own square."""
    log_mean = log_mean_exp(torch.cat(strata))
    total = sum(len(part) for part in strata)
    variance = torch.zeros_like(log_mean)
    for log_w in strata:
        w = (log_w - log_mean).exp()
        variance = variance + len(w) * (w.var(0) if len(w) > 1 else w[0].square())
    return variance.sqrt() / total


def _check_sites(target: Target, guide: Callable) -> None:
    drawn = target.drawn_by(guide)
    if drawn != set(target.sites):
        raise ValueError(
            f"guide draws {sorted(drawn)} where the model's latent sites are {sorted(target.sites)}; its density at "
            "draws of the prior is needed, which a guide with auxiliary sites or fewer sites does not have: use "
            "importance(...), or a guide such as Diagonal, FullRank or IAF"
        )
    target.accept(guide)
