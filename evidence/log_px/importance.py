"""log p(x) as a mean of independent weights: draws from the prior, or from a guide."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyro import poutine
from torch import Tensor

from dlvm.evidence.estimate import Estimate
from dlvm.inference.evaluation.dataset_weights import Scored, score
from dlvm.inference.programs.pair import Pair


def prior_sampling(
    model: Callable,
    data: Tensor | Iterable,
    num_particles: int = 1000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> Estimate:
    """Estimates log p(x) by naive Monte Carlo from the prior.

        log p(x) ~ log 1/K sum_k p(x | z_k),   z_k ~ p(z)

    Right for any latents, discrete ones included, and hopeless where the posterior is much narrower than the prior: the
    effective sample size says which.

    Returns:
        an ``Estimate``, side "lower".

    Args:
        model: a Pyro program with its sites in one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        num_particles: K per datum.
        chunk, seed, progress, engine: see ``evaluate``.

    Raises:
        ValueError: as ``evaluate``.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.6, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> from dlvm.models import PPCA
        >>> model, x = PPCA(torch.zeros(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> prior_sampling(model, x, num_particles=10).log_px_se
        tensor([0., 0., 0., 0., 0.], dtype=torch.float64)
    """
    alone = Pair(model)
    prior = poutine.block(alone.model, hide_fn=lambda site: site["type"] == "sample" and site["is_observed"])
    return _weighed("prior sampling", Pair(alone.model, prior), data, num_particles, chunk, seed, progress, engine)


def importance(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 1000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> Estimate:
    """Estimates log p(x) by importance sampling from a guide.

        log p(x) ~ log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    Where q misses part of the posterior the estimate is too low, and its own error may not tell: compare it with
    ``defensive``, ``annealed`` or an exact value.

    Returns:
        an ``Estimate``, side "lower".

    Args:
        model, guide: Pyro programs of the same signature; latents may be discrete.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        num_particles: K per datum.
        chunk, seed, progress, engine: see ``evaluate``.

    Raises:
        ValueError: as ``evaluate``.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> import torch
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> importance(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=10).num_data
        5
    """
    return _weighed("importance sampling", Pair(model, guide), data, num_particles, chunk, seed, progress, engine)


def _weighed(
    method: str,
    pair: Pair,
    data: Tensor | Iterable,
    num_particles: int,
    chunk: int | None,
    seed: int,
    progress: bool,
    engine: str,
) -> Estimate:
    found: list[Estimate] = []

    def take(scored: Scored) -> None:
        found.append(Estimate.of_weights(method, scored.likelihood.double() - scored.ratio))

    walked = score(pair, data, num_particles, take, chunk, seed, progress, engine)
    return Estimate.joined(found, walked.seconds, walked.asked)
