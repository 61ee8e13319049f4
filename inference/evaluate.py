"""What a trained pair is worth on data: log p(x) with its error, the ELBO and its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from pyro import poutine
from torch import Tensor

from inference.check import check_particles
from inference.evaluation import Evaluation, Totals
from inference.modes import evaluation_mode
from inference.observed import check_observed
from inference.ownership import own
from inference.progress import track
from inference.randomness import untouched
from inference.streams import arguments, to_device_of
from inference.weights import Weights, weigh

CHUNK_NUMBERS = 2_000_000
MOST_ROWS = 20_000
PARTICLES_AT_ONCE = 100


@torch.no_grad()
def evaluate(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 1000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Estimates log p(x) by importance sampling from the guide, the ELBO and its parts.

        log p(x) ~ log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    Modules are in evaluation mode meanwhile; the process's random state stays as it was. Ctrl-C ends it.

    Returns:
        an ``Evaluation``.

    Args:
        model, guide: Pyro programs of the same signature.
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        num_particles: K per datum; at least 25 for ``khat``, at least 2 for standard errors.
        chunk: particles times data scored at once; picked from the width of x unless told, for bounded memory.
        seed: of the particles.
        progress: show a bar with the time left.

    Raises:
        ValueError: ``num_particles`` or ``chunk`` is below 1, there are no data, data lie outside the likelihood's
            support, the pair cannot run particles in parallel, or gives more or less than one weight per datum, or NaN.

    Example:
        >>> from guides import Diagonal, latents
        >>> from models import PPCA
        >>> from nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> evaluate(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=10).num_data
        5
    """
    if num_particles < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"num_particles and chunk must be at least 1, got {num_particles} and {chunk}")
    batches = [data] if isinstance(data, Tensor) else data
    move, programs = to_device_of(model, guide), (own(model), own(guide))
    totals = Totals(num_particles)
    with untouched(seed), evaluation_mode(model, guide):
        for batch in track(batches, "evaluating", progress):
            args = move(arguments(batch))
            if not len(args[0]):
                raise ValueError(f"a batch of shape {tuple(args[0].shape)} holds no datum; leave it out")
            rows, at_once = _pick(args, chunk, num_particles)
            if not totals.rows and at_once > 1:
                check_particles(model, guide, *(a[:1] if isinstance(a, Tensor) and a.dim() else a for a in args))
            for part in _split(args, rows):
                totals.add(*_score(*programs, part, at_once, num_particles))
    return totals.result()


def _pick(args: tuple, chunk: int | None, num_particles: int) -> tuple[int, int]:
    """How many data and how many particles to score at once."""
    width = max(value[0].numel() for value in args if isinstance(value, Tensor) and value.dim())
    chunk = chunk or min(MOST_ROWS, max(1, CHUNK_NUMBERS // max(1, width)))
    at_once = min(num_particles, PARTICLES_AT_ONCE, chunk)
    return max(1, chunk // at_once), at_once


def _split(args: tuple, rows: int) -> Iterator[tuple]:
    count = len(args[0])
    for start in range(0, count, rows):
        yield tuple(
            a[start : start + rows] if isinstance(a, Tensor) and a.dim() and len(a) == count else a for a in args
        )


def _score(model: Callable, guide: Callable, args: tuple, at_once: int, num_particles: int) -> tuple:
    """Log-likelihoods and log-ratios, (num_particles, rows) each, and moments of the latents, (rows, units) each."""
    check_observed(poutine.trace(model).get_trace(*args))
    parts: list[Weights] = []
    first = second = 0.0
    for start in range(0, num_particles, at_once):
        weights = weigh(model, guide, args, {}, min(at_once, num_particles - start))
        if weights.log_w.shape[1] != len(args[0]):
            raise ValueError(
                f"the pair gives {weights.log_w.shape[1]} weights for {len(args[0])} data; evaluate needs one "
                "weight per datum: put every site into the data plate"
            )
        units = torch.cat([v.reshape(*weights.log_w.shape, -1) for v in weights.latents.values()], dim=-1)
        first, second = first + units.sum(0), second + units.square().sum(0)
        parts.append(weights)
    likelihood = torch.cat([w.log_likelihood for w in parts])
    ratio = torch.cat([w.log_ratio for w in parts])
    return likelihood, ratio, parts[0].x_dim, first / num_particles, second / num_particles
