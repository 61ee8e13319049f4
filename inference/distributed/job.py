"""The ranks of a data-parallel job: how they meet, what they add up, and what they must agree on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, overload

import torch
from torch import Tensor

from dlvm.inference.console import first_line, logger

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # for a rank that neither answers nor is known to have ended
DIGEST_BYTES = 7

_job: Job | None = None


class RankLost(ConnectionError):
    """Another rank of the job has ended or cannot be reached; the message says what to do."""


class Job:
    """One process of a job, and its way to speak with the others. Made by ``joined``.

    Attributes:
        rank, size: its number, from 0, and how many there are.
        weight: what this rank's loss counts in the step at hand; None between steps.
        spoken: how many joint sums there were in that step.
        asked: the signal by which this process was asked to end, 0 for none.
        all_asked: the same for all ranks, as of the last step.
    """

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.weight: float | None = None
        self.spoken = 0
        self.asked = self.all_asked = 0

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def add(self, *tensors: Tensor) -> None:
        """Replaces each tensor by its sum over ranks, all at once; every rank gets the same bits."""
        from torch import distributed as dist

        def meet() -> None:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

        self._reached(meet)
        self.spoken += 1

    def gathered(self, rows: Tensor) -> tuple[Tensor, slice]:
        """In a step, the rows of all ranks' parts of a batch as constants, and which of them are this rank's."""
        own = rows[: len(rows) if self.weight else 0].detach()
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(own)
        self.add(counts)
        start = int(counts[: self.rank].sum())
        whole, mine = own.new_zeros(int(counts.sum()), *rows.shape[1:]), slice(start, start + len(own))
        whole[mine] = own
        self.add(whole)
        return whole, mine

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Puts the first rank's numbers into the tensors of all."""
        from torch import distributed as dist

        def meet() -> None:
            for tensor in tensors:
                sent = tensor.detach().reshape(-1).clone().view(torch.uint8)
                if len(sent):
                    dist.broadcast(sent, 0)
                    tensor.detach().copy_(sent.view(tensor.dtype).view_as(tensor))

        self._reached(meet)

    def told(self, message: bytes | None) -> bytes:
        """What the first rank says, on every rank; the others pass None."""
        length = torch.tensor(len(message or b""))
        self.spread([length])
        held = torch.frombuffer(bytearray(message or bytes(int(length)) or b"\0"), dtype=torch.uint8)
        self.spread([held])
        return held.numpy().tobytes()[: int(length)]

    def agree(self, content: bytes) -> bool:
        """Whether all ranks hold the same bytes."""
        from torch import distributed as dist

        digest = int.from_bytes(hashlib.sha256(content).digest()[:DIGEST_BYTES], "big")
        ends = torch.tensor([digest, -digest])
        self._reached(lambda: dist.all_reduce(ends, dist.ReduceOp.MAX))
        return bool(ends.sum() == 0)

    @contextmanager
    def counting(self, weight: float) -> Iterator[None]:
        """Inside, this rank's part of a batch counts so much, see ``joint_sum``."""
        self.weight, self.spoken = weight, 0
        try:
            yield
        finally:
            self.weight = None

    def _reached(self, meet: Callable[[], T]) -> T:
        try:
            return meet()
        except RuntimeError as error:
            reason = first_line(error).rpartition("[/")[2].partition("] ")[2] or first_line(error)
            raise RankLost(
                f"rank {self.rank} of {self.size} has lost another rank, which ended or cannot be reached "
                f"({reason.partition('. ')[0][:60]}); run the same command again to go on"
            ) from error


def current() -> Job | None:
    """The job that this process is a rank of; None where there is no other process."""
    return _job


def sharing() -> Job | None:
    """The job whose ranks share out the batch at hand; None outside a joint step."""
    return None if _job is None or _job.weight is None else _job


@contextmanager
def joined(device: str | torch.device = "cpu") -> Iterator[Job | None]:
    """Inside, this process is one rank of the job that ``torchrun`` has started; yields None where it is alone.

    Every rank goes through the same data in the same order. ``SVI`` and ``fit`` take a whole batch, make the step on
    this rank's rows of it, and add up gradients, so that parameters stay equal on all ranks. Only the first rank gives
    notices and writes checkpoints.

    Args:
        device: of the programs; on a GPU ranks speak by NCCL, otherwise by Gloo.

    Raises:
        RankLost: from then on, wherever another rank has ended.
    """
    global _job
    try:
        cuda = torch.device(device).type == "cuda"
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be one that torch knows, got {device!r}; pass 'cpu' or 'cuda'") from error
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield None
        return
    from torch import distributed as dist

    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    before, quiet = _job, logger.disabled
    _job = Job(dist.get_rank(), size)
    logger.disabled = quiet or not _job.first
    try:
        yield _job
    finally:
        _job, logger.disabled = before, quiet
        dist.destroy_process_group()


@overload
def joint_sum(value: Tensor) -> Tensor: ...


@overload
def joint_sum(value: Tensor | float) -> Tensor | float: ...


def joint_sum(value: Tensor | float) -> Tensor | float:
    """Over all ranks' parts of a batch the sum of what this rank has of its own, with the gradient of its own share.

    Outside a joint step it is the value itself. A function of the sum then has on each rank the gradient that is this
    rank's share of the whole one.
    """
    job = sharing()
    if job is None or job.weight is None:
        return value
    value = torch.as_tensor(value)
    total = value.detach().double() * job.weight
    job.add(total)
    return total.to(value) + (value - value.detach())
