"""What a trained pair is worth on data: log p(x) with its error, the ELBO and its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from inference.evaluation import Evaluation, Totals
from inference.scoring import score


def evaluate(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 1000,
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> Evaluation:
    """Estimates log p(x) by importance sampling from the guide, the ELBO and its parts.

        log p(x) ~ log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    Modules are in evaluation mode meanwhile; the process's random state stays as it was. After Ctrl-C the record is of
    the data that were done, and says so.

    Returns:
        an ``Evaluation``.

    Args:
        model, guide: Pyro programs of the same signature.
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        num_particles: K per datum; at least 25 for ``khat``, at least 2 for standard errors.
        chunk: particles times data scored at once; picked from the width of x unless told, for bounded memory.
        seed: of the particles.
        progress: show a bar with the time left.
        engine: how weights are computed, as in ``SVI``; always in full precision.

    Raises:
        ValueError: ``engine`` is unknown, ``num_particles`` or ``chunk`` is below 1, there are no data, data lie
            outside the likelihood's support, the pair cannot run particles in parallel, or gives more or less than one
            weight per datum, or NaN.

    Example:
        >>> import torch
        >>> import torch
        >>> from guides import Diagonal, latents
        >>> from models import PPCA
        >>> from nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> evaluate(model, Diagonal(latents(model, x), MLP(3, 8)), x, num_particles=10).num_data
        5
    """
    totals = Totals(num_particles)
    walked = score(model, guide, data, num_particles, totals.add, chunk, seed, progress, engine)
    return totals.result(walked.complete)
