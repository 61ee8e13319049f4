"""Whether a guide's bound is low because of its family or because of its encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import pyro
import torch
from torch import Tensor, nn

from dlvm.evidence.estimate import Estimate
from dlvm.evidence.inference_gap.local_fit import climb, frozen
from dlvm.evidence.inference_gap.record import Gaps, divided, joined, some
from dlvm.evidence.inference_gap.unamortized import Freed, is_plain
from dlvm.guides.amortized import Amortized
from dlvm.guides.refined import Differentiable
from dlvm.guides.sites.latents import Latent, latents
from dlvm.inference.estimators.pathwise import STL
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.particles.row_weights import RowWeights, weigh_rows
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import MOST_SEEDS, untouched
from dlvm.inference.programs.rows import batch_size
from dlvm.nets.arguments import count, made, real, whole

Local = Callable[[Mapping[str, Latent], int], nn.Module]

NUMBERS_AT_ONCE = 2_000_000
EVALUATION = 1_000_003


def gaps(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    local: Local | None = None,
    richer: Local | None = None,
    log_px: Estimate | None = None,
    steps: int = 500,
    num_particles: int = 1000,
    rate: float = 0.05,
    rows: int = 100,
    objective: Differentiable | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Gaps:
    """Divides the inference gap into what the family cannot do and what the encoder loses.

        log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q]),   q* = argmax of L over the family, for each datum

    q* is found by climbing the bound from q with parameters of each datum's own, see ``Freed``; the model and the guide
    stay as they were. All bounds are then estimated from fresh draws, common to all, so that differences are sharper
    than bounds. Without ``log_px``, log p(x) is bounded from below by importance sampling from the best local guide,
    and the approximation gap is at least what is stated. After Ctrl-C the record is of the data that were done.

    Returns:
        a ``Gaps``, nats per datum.

    Args:
        model, guide: Pyro programs of the same signature.
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        local: (latents, num_data) -> a guide with parameters of its own for each of so many data, the rows of one call;
            the guide's own family unless told. ``free(FullRank)`` makes one.
        richer: the same for a family that holds more.
        log_px: of the same data in the same order, from any method; more data than were asked for are left out.
        steps, rate: of Adam, for each ``rows`` data.
        num_particles: per datum, for each of the bounds.
        rows: how many data at once.
        objective: what local guides maximise; ``ELBO(8, STL())`` unless told. ``ELBO(8)`` is much quicker for flows
            whose inverse takes a call per dimension, and ``ELBO(8, VIMCO())`` is for discrete latents.
        seed: of all that is drawn.
        progress: show a bar with the time left.

    Raises:
        ValueError: a number is below 1, ``rate`` is not positive, there are no data, data lie outside the likelihood's
            support, ``log_px`` is of fewer data, a bound is not finite, or a latent cannot be reparametrised.
        TypeError: ``local`` is left out, and the guide is none that draws from features alone.

    References:
        Inference Suboptimality in Variational Autoencoders, Cremer, Li, Duvenaud, 2018, arXiv:1801.03558.

    Example:
        >>> from dlvm.guides import Diagonal
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> found = gaps(model, Diagonal(latents(model, x), MLP(3, 8)), x, steps=20, num_particles=50)
        >>> found.amortisation.values.shape
        torch.Size([5])
    """
    count(steps=steps, rows=rows, num_particles=num_particles)
    whole(seed=seed)
    real(rate=rate)
    if num_particles < 2:
        raise ValueError("num_particles must be at least 2, got 1; a standard error takes two")
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive and finite, got {rate}; 0.05 is usual")
    if log_px is not None and not isinstance(log_px, Estimate):
        raise TypeError(f"log_px must be an Estimate, got {type(log_px).__name__}; pass what annealed(...) returns")
    for name, factory in (("local", local), ("richer", richer)):
        if factory is not None and not callable(factory):
            raise TypeError(f"{name} must make a guide from (latents, num_data), got {factory!r}; pass free(FullRank)")
    if objective is not None and (isinstance(objective, type) or not hasattr(objective, "differentiable_loss")):
        raise TypeError(f"objective must have a differentiable_loss, got {objective!r}; pass ELBO(8)")
    if local is None and not is_plain(guide):
        raise TypeError(
            f"guide {type(guide).__name__} is no amortised guide that draws from features alone, so its family cannot "
            "be read off; pass local=(latents, num_data) -> guide, as free(Diagonal)"
        )
    pair = Pair(model, guide)
    work = _Work(pair, RowWeights(pair), local, richer, steps, num_particles, rate, objective or ELBO(8, STL()))
    found: list[Gaps] = []

    def take(part: tuple, tick: Tick) -> None:
        done = sum(gaps.elbo.num_data for gaps in found)
        known = None if log_px is None else some(log_px, done, batch_size(pair, part))
        found.append(work(part, known, (seed + EVALUATION + done) % MOST_SEEDS, tick))

    with frozen(pair):
        walked = walk(data, pair, rows, take, seed, progress, "optimising local guides")
    return joined(found, walked.seconds, walked.asked)


@dataclass(frozen=True)
class _Work:
    """What is done for a few data."""

    pair: Pair
    checked: RowWeights
    local: Local | None
    richer: Local | None
    steps: int
    num_particles: int
    rate: float
    objective: Differentiable

    def __call__(self, args: tuple, log_px: Estimate | None, seed: int, tick: Tick) -> Gaps:
        with torch.no_grad():
            self.checked.check(args, self.num_particles)
        tick_half = tick if self.richer is None else lambda share: tick(share / 2)
        train = partial(climb, args=args, objective=self.objective, steps=self.steps, rate=self.rate)
        early, weights = [], [self._weigh(self.pair, args, seed)]
        for factory in (self.local, self.richer)[: 1 if self.richer is None else 2]:
            pair = Pair(self.pair.model, self._make(factory, args))
            with torch.no_grad(), untouched():
                RowWeights(pair).check(args, 1)
            weigh = partial(self._weigh, pair, args, seed)
            early.append(train(pair, tick=tick_half, watch=weigh))
            weights.append(weigh())
        return divided(weights, early, log_px)

    def _make(self, factory: Local | None, args: tuple) -> nn.Module:
        if factory is None:
            with torch.no_grad():
                guide = cast(Amortized, self.pair.roots["guide"])  # others were refused
                return Freed(guide, guide.features(*args)).eval()
        x = data_in(args)
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        name = "local" if factory is self.local else "richer"
        return (
            made(name, factory, latents(self.pair.model, *args), batch_size(self.pair, args))
            .to(device=x.device, dtype=dtype)
            .eval()
        )

    @torch.no_grad()
    def _weigh(self, pair: Pair, args: tuple, seed: int) -> Tensor:
        """log w of fresh draws, shape (num_particles, rows); the same noise for every guide that uses as much."""
        width = max(value.numel() for value in args if isinstance(value, Tensor))
        at_once = min(self.num_particles, max(1, NUMBERS_AT_ONCE // width))
        counts = [min(at_once, self.num_particles - k) for k in range(0, self.num_particles, at_once)]
        with untouched(seed), pyro.validation_enabled(False):
            parts = [weigh_rows(pair, args, count).log_w for count in counts]
        return torch.cat(parts).double()
