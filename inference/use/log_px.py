"""log p(x) of each datum, with its error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlvm.inference.bounds.importance import log_mean_exp, relative_variance
from dlvm.inference.programs.beside import observes_everything
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.pair import Pair
from dlvm.inference.use.arrays import taken_in
from dlvm.inference.use.weighed import completed, rows_weighed_at_once, weighed
from dlvm.nets.arguments import count


@dataclass(frozen=True)
class LogPx:
    """log p(x) of each datum; arrays of shape (n,) of the kind that x came in.

    Attributes:
        log_px: the estimate, nats; a lower bound in expectation.
        log_px_se: its Monte Carlo standard error; NaN for one particle, 0 where nothing is latent.
        ess: effective sample size, out of the particles.
        khat: Pareto k of the weights; above 0.7 neither estimate nor error can be trusted; NaN below 25 particles, or
            where all weights are the same.
    """

    log_px: Any
    log_px_se: Any
    ess: Any
    khat: Any


@torch.no_grad()
def log_px(model: Callable, guide: Callable, x: Any, num_particles: int = 1000, seed: int = 0) -> LogPx:
    """Estimates log p(x) of every datum by importance sampling from the guide.

        log p(x) ~ log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    The number that ``evaluate`` has the mean of. Of a datum with missing entries, under a likelihood that takes them,
    it is that of those that are there. Modules are in evaluation mode meanwhile; the process's random state stays as it
    was.

    Returns:
        a ``LogPx``.

    Args:
        model, guide: Pyro programs of the same signature. What the guide leaves out is drawn from the model.
        x: one row per datum, a tensor, a NumPy array or a DataFrame; or a tuple of the model's arguments.
        num_particles: K per datum; at least 2 for errors and 25 for k-hat.
        seed: of the draws.

    Raises:
        TypeError: x is no such array.
        ValueError: there are no particles, x is not as wide as the data the pair was made for or outside the
            likelihood's support, or the pair gives more or less than one weight per datum.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> log_px(model, Diagonal(latents(model, x), MLP(3, 8)), x).log_px.shape
        torch.Size([5])
    """
    count(num_particles=num_particles)
    pair = Pair(model, guide)
    args, kind = taken_in(pair, x)
    pair = completed(pair, args, summed=True)
    known = observes_everything(pair, args, {})
    found: list[tuple[Tensor, ...]] = []

    def work(part: tuple, tick: Tick) -> None:
        done = weighed(pair, part, 1 if known else num_particles)
        log_w = done.log_w.double()
        if known:
            none = torch.zeros_like(log_w[0])
            found.append((log_w[0], none, none + num_particles, none + math.nan))
            return
        found.append((log_mean_exp(log_w), relative_variance(log_w).sqrt(), done.ess, done.khat))

    walk([args], pair, rows_weighed_at_once(args, 1 if known else num_particles), work, seed)
    names = "log_px", "log_px_se", "ess", "khat"
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    return LogPx(*(kind.back(column, [name]) for name, column in zip(names, columns, strict=True)))
