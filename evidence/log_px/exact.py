"""log p(x) of models that know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

from dlvm.evidence.estimate import Estimate, over
from dlvm.inference.particles.row_weights import weigh_rows
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.beside import observes_everything
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.modules import bare
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import batch_size
from dlvm.nets.arguments import count

ROWS = 10_000


def _observed(pair: Pair, *args: Any) -> Tensor:
    """log p(x) of a program without latent sites, shape (batch,)."""
    if not observes_everything(pair, args, {}):
        raise TypeError(
            f"model {type(bare(pair.model)).__name__} has no method log_px; use enumerated(...) for "
            "discrete latents, quadrature(...) for one or two continuous dimensions, or sandwich(...) for bounds on "
            "both sides"
        )
    return weigh_rows(pair, args, 1).log_w[0]


def exact(
    model: Callable, data: Tensor | Iterable, rows: int = ROWS, seed: int = 0, progress: bool = False
) -> Estimate:
    """The exact log p(x) of a model with a method ``log_px``, as PPCA has, or without latent sites.

    Returns:
        an ``Estimate``, side "exact".

    Args:
        model: a module with ``log_px(*args)`` -> shape (batch,), nats; or a program that observes everything.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        rows: how many data at once.
        seed: of what the model draws, if it draws anything.
        progress: show a bar with the time left.

    Raises:
        TypeError: the model has no ``log_px``, and latent sites.
        ValueError: ``rows`` is below 1, there are no data, or ``log_px`` gives another shape or a NaN.

    Example:
        >>> import torch
        >>> from dlvm.models import PPCA
        >>> print(exact(PPCA(torch.ones(3, 1), torch.zeros(3), 1.0), torch.zeros(2, 3)))
        log p(x) = -3.450   (exact, ... s)
    """
    pair, own = Pair(model), getattr(bare(model), "log_px", None)
    if own is not None and not callable(own):
        raise TypeError(f"model's log_px must be a method, got {type(own).__name__}; write log_px(self, x)")
    log_px = own if callable(own) else partial(_observed, pair)
    count(rows=rows)

    def method(args: tuple, tick: Tick) -> Estimate:
        try:
            found = log_px(*args)
        except RuntimeError as error:
            raise ValueError(
                f"model's log_px fails for data of shape {tuple(data_in(args).shape)} and {data_in(args).dtype} "
                f"({error}); give them the shape and the type of its parameters"
            ) from error
        if not isinstance(found, Tensor):
            raise TypeError(f"model's log_px must return a tensor of shape (batch,), got {type(found).__name__}")
        if found.shape != (number := batch_size(pair, args),) or found.isnan().any():
            raise ValueError(
                f"log_px must give one number per datum, shape ({number},), got shape {tuple(found.shape)} with "
                f"{int(found.isnan().sum())} NaN; reduce event dimensions, and look at the model's parameters"
            )
        tick(1.0)
        return Estimate.exactly("exact", found.detach())

    return over(data, method, pair, rows, seed, progress, "log p(x) in closed form")
