"""Chains along a path of densities, the field that they move through, and the weights that they gather."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlvm.evidence.annealing.hmc import Point, at, transition
from dlvm.evidence.annealing.path import Path
from dlvm.evidence.annealing.step_sizes import PILOT_CHAINS, PILOT_MOVES, jittered, tuned
from dlvm.inference.engine.engine import Engine
from dlvm.inference.engine.recording import Outcome
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.pair import Pair

SETTLING = 10


class Chains:
    """How chains move, and how often their proposals were accepted.

    Args:
        field: what they move through.
        num_chains: per datum.
        temperatures: T.
        leaps: leapfrog steps per proposal.
        target: acceptance of proposals.
    """

    def __init__(self, field: Replayed, num_chains: int, temperatures: int, leaps: int, target: float):
        self.field, self.num_chains, self.temperatures = field, num_chains, temperatures
        self.leaps, self.target = leaps, target
        self.accepted: list[float] = []
        self.pilot = min(PILOT_CHAINS, num_chains)
        self.share = PILOT_MOVES * self.pilot / (PILOT_MOVES * self.pilot + temperatures * num_chains)

    def sizes(self, path: Path, betas: Tensor, tick: Tick) -> Tensor:
        """Step sizes from pilot chains, shape (T + 1, num_data); those at b = 0 are never used."""
        self.field.follow(path)
        settings = self.leaps, self.target, self.pilot
        return tuned(path, self.field, betas, *settings, lambda share: tick(share * self.share))

    def settled(self, path: Path, u: Tensor, size: Tensor) -> Tensor:
        """Chains that are at b = 1 already, after a few moves there; shape (num_chains, num_data, dim)."""
        point = self.field(u)
        for _ in range(SETTLING):
            jittery = jittered(size, self.num_chains)
            point, _ = transition(self.field, point, path.weights(1.0), jittery, self.leaps)
        return point.u

    def weights(self, path: Path, u: Tensor, betas: Tensor, sizes: Tensor, tick: Tick) -> Tensor:
        """log w of chains from the first of ``betas`` to the last, shape (num_chains, num_data), nats."""
        point = self.field(u)
        log_w = torch.zeros_like(point.terms[0], dtype=torch.float64)
        last = len(betas) - 1
        for t in range(1, last + 1):
            before, now = betas[t - 1].item(), betas[t].item()
            log_w += (now - before) * path.change(point)
            if t < last:
                size = jittered(sizes[t], self.num_chains)
                point, acceptance = transition(self.field, point, path.weights(now), size, self.leaps)
                self.accepted.append(acceptance.mean().item())
            tick((1 - self.share) / last)
        return log_w

    def text(self, name: str, guide: Callable | None) -> str:
        """What was done, for the record."""
        text = f"{name} from the {'prior' if guide is None else 'guide'}, {self.temperatures} temperatures"
        return f"{text}, acceptance {sum(self.accepted) / len(self.accepted):.2f}" if self.accepted else text


class Replayed:
    """A field over the batches of one data set, which share what was recorded of the first.

    Called with u, shape (num_chains, num_data, dim), it returns the ``Point`` there.

    Args:
        pair: what paths are made of.
        engine: as in ``SVI``.
        name: what its notices begin with.
    """

    def __init__(self, pair: Pair, engine: str = "auto", name: str = "annealed"):
        self.engine = Engine(self._evaluated, pair.modules, engine, finite=False, name=name)
        self.path: Path  # from the first ``follow`` on

    def follow(self, path: Path) -> None:
        """From now on the field is that of this path."""
        self.path = path

    def __call__(self, u: Tensor) -> Point:
        found = (tensor for tensor in self.engine(u, *self.path.target.args)[1] if tensor is not None)
        # A CUDA graph writes its next results over these.
        terms, slopes = (tensor.clone() if tensor.is_cuda else tensor for tensor in found)
        return Point(u, terms, slopes)

    def _evaluated(self, u: Tensor, *args: Any) -> Outcome:
        kept, self.path.target.args = self.path.target.args, args
        try:
            found = at(self.path, u)
        finally:
            self.path.target.args = kept
        return [], [found.terms, found.slopes]
