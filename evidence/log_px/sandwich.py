"""log p(x) between bounds from below and from above."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

from torch import Tensor

from dlvm.evidence.annealing.annealed import annealed, reverse_annealed
from dlvm.evidence.estimate import Estimate
from dlvm.evidence.log_px.exact import exact
from dlvm.evidence.log_px.sandwich_record import Sandwich
from dlvm.evidence.simulate import Simulated, simulate
from dlvm.inference.bounds.importance import effective_sample_size, log_mean_exp, pareto_k, relative_variance
from dlvm.inference.evaluation.dataset_weights import Scored, score
from dlvm.inference.programs.batches import arguments, batches_of
from dlvm.inference.programs.modules import bare
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import batch_size
from dlvm.nets.arguments import count

ORDER = ("ELBO", "IWAE", "AIS", "exact", "reverse AIS", "CUBO")


def sandwich(
    model: Callable,
    guide: Callable,
    data: int | Simulated | Tensor | Iterable,
    num_particles: int = 1000,
    num_chains: int = 16,
    temperatures: int = 500,
    leaps: int = 10,
    from_prior: bool = False,
    example: tuple | None = None,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Sandwich:
    """Brackets log p(x): every bound there is, of the same data.

        ELBO <= IWAE_K <= AIS <= log p(x) <= reverse AIS,   log p(x) <= CUBO_2 with endless samples

    Reverse AIS starts at exact draws from p(z | x), which only data simulated from the model have; there, the bracket
    says how far from the truth AIS is. On real data the lower bounds remain, and how far AIS and IWAE disagree.

    Returns:
        a ``Sandwich``; printed, a table and what follows from it. After Ctrl-C it holds what was done.

    Args:
        model: a Pyro program with continuous latent sites, in one plate over data.
        guide: of the same signature.
        data: how many data to simulate, what ``simulate`` gave, or real data: a tensor x or an iterable of batches.
        num_particles: K of IWAE and CUBO.
        num_chains, temperatures, leaps, rows: as for ``annealed``.
        from_prior: whether chains start from the prior, rather than from the guide, which is nearer.
        example: arguments as for a batch of data, where ``data`` is a number; see ``simulate``.
        seed: of data and of all that is drawn.
        progress: show bars with the time left.

    Raises:
        ValueError, TypeError: as ``annealed``, ``simulate`` and ``evaluate``.

    References:
        Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo, Grosse, Ghahramani, Adams, 2015,
        arXiv:1511.02543.
        Variational Inference via chi Upper Bound Minimization, Dieng, Tran, Ranganath, Paisley, Blei, 2017,
        arXiv:1611.00328.

    Example:
        >>> import torch
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
        >>> guide = Diagonal(latents(model, torch.zeros(5, 3)), MLP(3, 8))
        >>> found = sandwich(model, guide, 5, num_particles=50, num_chains=4, temperatures=20, leaps=4)
        >>> list(found.rows)
        ['ELBO', 'IWAE', 'AIS', 'exact', 'reverse AIS', 'CUBO']
    """
    count(num_particles=num_particles, num_chains=num_chains, temperatures=temperatures, leaps=leaps)
    count(rows=1 if rows is None else rows)
    given = _simulated(model, data, seed, example) if isinstance(data, int | Integral) else data
    simulated = given if isinstance(given, Simulated) else None
    batches = [given.args] if isinstance(given, Simulated) else list(batches_of(given))
    chains: dict[str, Any] = dict(num_chains=num_chains, temperatures=temperatures, leaps=leaps, rows=rows, seed=seed)
    start = None if from_prior else guide
    stages: list[Callable[[], dict[str, Estimate]]] = [
        lambda: weighed(model, guide, batches, num_particles, seed, progress),
        lambda: {"AIS": annealed(model, batches, start, progress=progress, **chains)},
    ]
    if callable(getattr(bare(model), "log_px", None)):
        stages.insert(1, lambda: {"exact": exact(model, batches)})
    if simulated is not None:
        stages.append(lambda: {"reverse AIS": reverse_annealed(model, simulated, start, progress=progress, **chains)})
    found = _until_interrupted(stages)
    last = "AIS" if simulated is None else "reverse AIS"
    complete = all(row.complete for row in found.values()) and last in found
    return Sandwich({name: found[name] for name in ORDER if name in found}, simulated is not None, complete)


def _simulated(model: Callable, data: Any, seed: int, example: tuple | None) -> Simulated:
    count(data=data)
    return simulate(model, data, seed, example)


def weighed(
    model: Callable, guide: Callable, batches: list, num_particles: int, seed: int = 0, progress: bool = False
) -> dict[str, Estimate]:
    """ELBO, IWAE and CUBO from the same importance weights, {name: estimate}; of what was done after Ctrl-C.

    Args, Raises: as ``evaluate``.
    """
    parts: dict[str, list[Estimate]] = {"ELBO": [], "IWAE": [], "CUBO": []}
    pair = Pair(model, guide)
    started, asked = time.perf_counter(), sum(batch_size(pair, arguments(batch)) for batch in batches)

    def take(scored: Scored) -> None:
        log_w = scored.likelihood.double() - scored.ratio
        parts["IWAE"].append(Estimate.of_weights(f"{len(log_w)} particles of the guide", log_w))
        parts["ELBO"].append(_elbo(log_w))
        parts["CUBO"].append(_cubo(log_w))

    try:
        score(pair, batches, num_particles, take, seed=seed, progress=progress)
    except KeyboardInterrupt:
        if not parts["IWAE"]:
            raise
    seconds = time.perf_counter() - started
    return {name: Estimate.joined(found, seconds, asked=asked) for name, found in parts.items()}


def _elbo(log_w: Tensor) -> Estimate:
    """Mean of log w, shape (num_particles, num_data); every particle counts alike, so no weights can fail."""
    count, unknown = len(log_w), log_w[0].new_full((), float("nan"))
    se = log_w.std(0) / count**0.5 if count > 1 else unknown.expand(log_w.shape[1])
    ess = log_w.new_full(log_w.shape[1:], count)
    return Estimate("mean of log w", "lower", log_w.mean(0), se, ess, unknown.expand(log_w.shape[1]), count)


def _cubo(log_w: Tensor) -> Estimate:
    """1/2 log mean w^2; ESS and k-hat are those of w^2."""
    squares = 2 * log_w
    se = relative_variance(squares).sqrt() / 2
    ess, khat = effective_sample_size(squares), pareto_k(squares)
    return Estimate("order 2, biased low", "upper", log_mean_exp(squares) / 2, se, ess, khat, len(log_w))


def _until_interrupted(stages: list[Callable[[], dict[str, Estimate]]]) -> dict[str, Estimate]:
    """What the stages found, up to the first that Ctrl-C cut short."""
    found: dict[str, Estimate] = {}
    for stage in stages:
        try:
            new = stage()
        except KeyboardInterrupt:
            if not found:
                raise
            break
        found |= new
        if not all(row.complete for row in new.values()):
            break
    return found
