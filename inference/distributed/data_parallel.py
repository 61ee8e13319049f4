"""A step on a batch whose rows are shared out among the ranks of a job, as if one process had made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlvm.inference.console import say
from dlvm.inference.distributed.job import Job
from dlvm.inference.distributed.sharding import Share, Shares
from dlvm.inference.engine.recording import Outcome
from dlvm.inference.engine.step import Step
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.programs.modules import modules_of
from dlvm.inference.programs.randomness import untouched

STEPS_BETWEEN_CHECKS = 200
GOLDEN = 0x9E3779B1


class JointLosses:
    """Losses of a whole batch, from the part of it that each rank computes.

    Args:
        job: this rank's.
        step: what a step computes.
        local: (*args, **kwargs) -> the same on this rank's part.
    """

    def __init__(self, job: Job, step: Step, local: Callable[..., Outcome]):
        self.job, self.step, self.local = job, step, local
        self.shares = Shares(job, step)
        self.usual: int | None = 0  # how often the ranks speak while they compute; None if not known yet

    def __call__(self, *args: Any, **kwargs: Any) -> Outcome:
        share = self.shares(args, kwargs)
        numbers, _, failure = self._run(share)
        summary = self._summary(numbers, failure, share)
        self.job.add(summary)
        return [self._read(summary, failure, share)[0]], []

    def _run(self, share: Share) -> tuple[list[float], list[Tensor | None], NonFinite | None]:
        """This rank's part, on noise of its own; what is not finite is an error of all ranks, so it waits."""
        try:
            with _noise(self.job.rank), self.job.counting(share.weight):
                numbers, gradients = self.local(*share.args, **share.kwargs)
        except NonFinite as error:
            if self.job.spoken != self.usual:
                raise ArithmeticError(f"{error}; the other ranks wait in the middle of that step") from error
            return [0.0], [None] * len(self.step.parameters), error
        self.usual = self.job.spoken
        return numbers, gradients, None

    def _summary(self, numbers: list[float], failure: NonFinite | None, share: Share, *more: Tensor) -> Tensor:
        """The loss, who was asked to end, the batch as it came, which rank has failed; and more."""
        failed = [float(failure is not None and rank == self.job.rank) for rank in range(self.job.size)]
        head = [numbers[0] * share.weight, float(self.job.asked), share.mark, *failed]
        return torch.cat([torch.tensor(head, dtype=torch.float64), *more])

    def _read(self, summary: Tensor, failure: NonFinite | None, share: Share) -> tuple[float, Tensor]:
        """The loss, and what else was in the summary."""
        size = self.job.size
        head, rest = summary.split([3 + size, len(summary) - 3 - size])
        loss, self.job.all_asked, marks, *failed = head.tolist()
        if abs(marks - size * share.mark) > 1e-9 * (1 + size * abs(share.mark)):
            raise ValueError(
                "the ranks of this job see different batches; pass the same seed to fit on all of them, and data whose "
                "order depends on nothing but that"
            )
        if failure is not None:
            raise failure
        if any(failed):
            ranks = ", ".join(str(rank) for rank, flag in enumerate(failed) if flag)
            raise NonFinite(f"not finite on rank {ranks} of the job, whose own message says where; no step was taken")
        return loss, rest


class JointSteps(JointLosses):
    """Losses, gradient norm and gradients of a whole batch: one reduction per step, with all that ranks agree on.

    Losses are sums over data, so gradients are added. What an objective gathers by itself (a baseline's average) and
    running statistics move by the mean of the ranks' moves, each counted by its rows.

    Raises:
        NonFinite: on all ranks, where any of them found loss or gradient not finite.
        ArithmeticError: the same on that rank alone, where the others wait in the middle of the step.
        RankLost: another rank has ended.
        RuntimeError: parameters have come apart.
        ValueError: this pair or objective cannot be trained by parts; or ranks see different batches.
    """

    def __init__(self, job: Job, step: Step, local: Callable[..., Outcome]):
        super().__init__(job, step, local)
        self.done = 0
        self.usual = None if speaks(step.objective) else 0

    def align(self) -> None:
        """Gives all ranks the first one's parameters and buffers; to be called once parameters exist."""
        step = self.step
        shapes = str([(tuple(p.shape), str(p.dtype)) for p in self._state()])
        if not self.job.agree(shapes.encode()):
            raise ValueError("the ranks of this job have built different programs; give all of them the same settings")
        self.job.spread(self._state())
        parts = [m for program in modules_of(*step.pair.programs) for m in program.modules()]
        norms = [part for part in parts if isinstance(part, _NormBase)]
        if any(part.training for part in norms):
            say("batch normalisation takes its statistics from each rank's own rows, not from the joint batch")
        self.moving = [b for m in (*modules_of(step.objective), *norms) for b in m.buffers() if b.numel()]
        self.flat = Flat(step.parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Outcome:
        self._check_equal()
        share = self.shares(args, kwargs)
        before = [buffer.detach().clone() for buffer in self.moving]
        numbers, gradients, failure = self._run(share)
        self._refuse_averages()
        given = torch.tensor([gradient is not None for gradient in gradients], dtype=torch.float64)
        moves = [(now.double() - old.double()) * share.part for now, old in zip(self.moving, before, strict=True)]
        summary = self._summary(numbers, failure, share, given, *(move.cpu().reshape(-1) for move in moves))
        vectors = self.flat.pack(gradients, share.weight)
        self.job.add(summary, *vectors)
        try:
            loss, rest = self._read(summary, failure, share)
        except Exception:
            self._move(before, [torch.zeros(())] * len(before))
            raise
        given, moves = rest.split([len(given), len(rest) - len(given)])
        self._move(before, moves.split([buffer.numel() for buffer in self.moving]))
        gradients = self.flat.unpack(vectors, given.gt(0).tolist())
        norm = self.step.norm(gradients)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFinite(f"joint loss {loss}, gradient norm {norm}; no step was taken")
        return [loss, norm], gradients

    @torch.no_grad()
    def _move(self, before: list[Tensor], moves: list[Tensor]) -> None:
        for buffer, old, move in zip(self.moving, before, moves, strict=True):
            moved = old.double() + move.to(old.device).reshape(old.shape if move.dim() else ())
            buffer.copy_(moved if buffer.is_floating_point() else moved.round())

    def _state(self) -> list[Tensor]:
        step = self.step
        buffers = (b for m in modules_of(*step.pair.programs, step.objective) for b in m.buffers())
        return [*step.parameters, *buffers]

    def _check_equal(self) -> None:
        """At first often, then every so many steps."""
        n = self.done = self.done + 1
        if n % STEPS_BETWEEN_CHECKS and (n > STEPS_BETWEEN_CHECKS or n & (n - 1)):
            return
        held = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in self._state() if t.numel()]
        if not self.job.agree(torch.cat(held).numpy().tobytes()):
            raise RuntimeError(
                f"step {n}: parameters or buffers of the ranks have come apart; programs must change these by training "
                "alone, and all ranks must run on machines of a kind"
            )

    def _refuse_averages(self) -> None:
        if any(name.startswith("__baseline") for store in self.step.stores() for name in store):
            raise ValueError(
                "the decaying average baselines of TraceGraph_ELBO are each rank's own and would come apart; use "
                "ELBO(estimator=ScoreFunction(MovingAverage())), or a baseline that is a network"
            )


def speaks(objective: ELBO) -> bool:
    """Whether an objective adds numbers up over ranks in the middle of a step."""
    parts = objective.modules() if isinstance(objective, nn.Module) else ()
    return any(getattr(part, "speaks", False) for part in parts)


def engine_of(engine: str, objective: ELBO) -> str:
    """The engine that a rank can run an objective on.

    Raises:
        ValueError: another was asked for by name.
    """
    if not speaks(objective):
        return engine
    if engine in ("captured", "compiled"):
        raise ValueError(
            f"engine={engine!r} cannot run {objective!r} on several ranks, since these speak with each other in the "
            "middle of a step; use engine='auto' or 'eager'"
        )
    return "eager"


@contextmanager
def _noise(rank: int) -> Iterator[None]:
    """Inside, a random stream of this rank's own; the one outside moves on by one draw, on all ranks alike."""
    drawn = int(torch.randint(2**32, ()))
    with untouched((drawn + rank * GOLDEN) % 2**32):
        yield


class Flat:
    """Packs gradients into one vector per type and device, zeros where there is none, and unpacks them.

    Args:
        parameters: in the order of the gradients.
    """

    def __init__(self, parameters: list[Tensor]):
        self.parameters = parameters
        kinds = dict.fromkeys((p.dtype, p.device) for p in parameters)
        self.groups = [[i for i, p in enumerate(parameters) if (p.dtype, p.device) == kind] for kind in kinds]

    def pack(self, gradients: list[Tensor | None], weight: float) -> list[Tensor]:
        """The vectors, multiplied by a number; not views."""
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
        return [torch.cat([filled[i].detach().reshape(-1) for i in group]).mul_(weight) for group in self.groups]

    def unpack(self, vectors: list[Tensor], given: list[bool]) -> list[Tensor | None]:
        """Gradients as views of the vectors; None where no one has given any."""
        found: list[Tensor | None] = [None] * len(self.parameters)
        for group, vector in zip(self.groups, vectors, strict=True):
            sizes = [self.parameters[i].numel() for i in group]
            for i, part in zip(group, vector.split(sizes), strict=True):
                found[i] = part.view_as(self.parameters[i]) if given[i] else None
        return found
