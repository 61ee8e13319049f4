"""Which rows of a batch a rank computes, and how much its loss then counts."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from pyro import infer, poutine
from torch import Tensor

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.distributed.job import Job
from dlvm.inference.engine.step import Step
from dlvm.inference.particles.mixing import Call, weighs_alike
from dlvm.inference.programs.beside import beside
from dlvm.inference.programs.plates import data_plates, outer_scale, sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import Axes, batch_size, by_length, rows_of, taken

LINEAR = infer.Trace_ELBO, infer.TraceMeanField_ELBO, infer.TraceGraph_ELBO, infer.TraceEnum_ELBO
OF_A_WHOLE_BATCH = {
    infer.ReweightedWakeSleep: "has one weight for a whole batch, which no rank sees; use RWS",
    infer.TraceTailAdaptive_ELBO: "ranks draws of a whole batch, which no rank sees; use Renyi, or one process",
    infer.Trace_MMD: "compares draws of a whole batch, which no rank sees; train it in one process",
}


class Share(NamedTuple):
    """A rank's part of a batch.

    Attributes:
        args, kwargs: what the programs are called with.
        weight: of its loss in the sum over ranks.
        part: its rows among all.
        mark: a number that is the same on all ranks if the batch is.
    """

    args: tuple
    kwargs: dict
    weight: float
    part: float
    mark: float


class Count(NamedTuple):
    """By how many data a loss counts, whether each has a scale of its own, and the latent sites outside the data."""

    data: float
    single: bool
    outside: list[str]


class Shares:
    """Cuts batches: every rank takes a run of rows, of each argument that has as many as the first one.

    A rank for which there is no row borrows the first and counts it zero times. In a plain plate a loss is a sum over
    rows, and every rank's counts once. Where a plate or scale makes rows stand for the whole data set, however many
    there are, a rank's counts by its rows.

    Args:
        job: this rank's.
        step: of the pair and objective.

    Raises:
        TypeError: when called, the first argument is no tensor of rows.
        ValueError: the model has no plate over the rows, or a latent site outside it, which every rank would count; a
            row weighs otherwise in its share than in the whole batch, see ``weighs_alike``; or
            the objective is one of Pyro's that are no sum over data, as ReweightedWakeSleep, or RenyiELBO in a scaled
            plate.
    """

    def __init__(self, job: Job, step: Step):
        for kind, reason in OF_A_WHOLE_BATCH.items():
            if isinstance(step.objective, kind):
                raise ValueError(f"{kind.__name__} {reason}")
        self.job, self.step = job, step
        self.fixed: dict[tuple, bool] = {}
        self.having: dict[tuple, Axes] = {}  # along which axes arguments have rows

    def __call__(self, args: tuple, kwargs: dict) -> Share:
        if not args or not isinstance(args[0], Tensor) or not args[0].dim() or not len(args[0]):
            raise TypeError("the first argument must be a tensor of rows, to be shared out among the ranks of a job")
        rows, (rank, size) = batch_size(self.step.pair, args), (self.job.rank, self.job.size)
        start, stop = rows * rank // size, rows * (rank + 1) // size
        part = (stop - start) / rows
        chosen = slice(start, stop) if part else slice(0, 1)
        key = tuple(tuple(v.shape) if isinstance(v, Tensor) else repr(v) for v in (*args, *kwargs.values()))
        if key not in self.having:
            self.having[key] = (None if kwargs else rowed(self.step.pair, args)) or by_length(args, self.step.pair)
        having = self.having[key]
        cut_args = rows_of(args, chosen, having)
        cut_kwargs = {name: taken(value, chosen, rows) for name, value in kwargs.items()}
        if key not in self.fixed:
            whole, mine = self._count(args, kwargs), self._count(cut_args, cut_kwargs)
            self.fixed[key] = self._is_fixed(whole, mine, part or 1 / rows)
            self._refuse_mixing(args, kwargs, having)
        weight = part if self.fixed[key] else float(part > 0)
        return Share(cut_args, cut_kwargs, weight, part, _mark(args[0]))

    def _refuse_mixing(self, args: tuple, kwargs: dict, having: Axes) -> None:
        """Holds the shares of all ranks against the whole batch, on every rank alike."""
        rows = batch_size(self.step.pair, args)
        pair, size, shares = self.step.pair, self.job.size, []
        for start, stop in pairwise([rows * rank // size for rank in range(size + 1)]):
            some = slice(start, stop)
            cut = rows_of(args, some, having), {name: taken(value, some, rows) for name, value in kwargs.items()}
            shares += [Call(*cut, start, stop)] if stop > start else []
        alike = weighs_alike(pair, Call(args, kwargs, 0, rows), shares)
        if alike is False or (alike is None and not kwargs and rowed(pair, args) is None):
            raise ValueError(
                "a row of this batch has another density in a rank's share than in the whole batch, so that the "
                "gradients of several ranks would be others than those of one process: a program compares the rows of "
                "a batch, as normalising over it does, or holds something for the whole of it; train in one process, "
                "or let a row's density depend on its own numbers alone, as with LayerNorm, or with batch "
                "normalisation in evaluation mode"
            )

    def _count(self, args: tuple, kwargs: dict) -> Count:
        with untouched(), torch.no_grad(), self.step.pair.evaluating():
            sites = sample_sites(poutine.trace(self.step.pair.model).get_trace(*args, **kwargs))
        plates = data_plates(sites)
        if not plates:
            raise ValueError(
                "the model has no plate over its data, so that a batch cannot be shared out among the ranks of a job; "
                'write with pyro.plate("data", len(x)) around the sites of a datum'
            )
        names = {frame.name for frame in plates}
        if apart := [site["name"] for site in beside(sites)]:
            raise ValueError(
                f"observed sites {apart} lie outside the plate over data, and each rank of a job would count them; put "
                "them into the plate, or train in one process"
            )
        outside = [
            s["name"] for s in sites if not s["is_observed"] and not names <= {f.name for f in s["cond_indep_stack"]}
        ]
        scale, size = outer_scale(sites, plates), math.prod(frame.size for frame in plates)
        if isinstance(scale, Tensor) and scale.dim() > 0:
            return Count(scale.expand([f.size for f in plates]).sum().item(), True, outside)
        return Count(float(scale) * size, False, outside)

    def _is_fixed(self, whole: Count, mine: Count, part: float) -> bool:
        """Whether a part of the rows counts as much as all of them."""
        fixed = part < 1 and not mine.single and math.isclose(whole.data, mine.data, rel_tol=1e-5)
        if not fixed and not mine.single and not math.isclose(whole.data * part, mine.data, rel_tol=1e-5):
            raise ValueError(
                f"a batch counts as {whole.data:g} data, and {part:.3g} of its rows as {mine.data:g}, so that it "
                "cannot be shared out among the ranks of a job; let the plate be the arguments' first dimension"
            )
        objective = self.step.objective
        if fixed and isinstance(objective, infer.RenyiELBO):
            raise ValueError("RenyiELBO puts a plate's scale inside its logarithm; use Renyi, which scales last")
        bound = getattr(objective, "bound", None)
        linear = bound.linear if isinstance(bound, Bound) else isinstance(objective, LINEAR)
        if part < 1 and whole.outside and not (fixed and linear):
            raise ValueError(
                f"latent sites {whole.outside} lie outside the plate over data, and each rank of a job would count "
                'them; use an ELBO, and a plate of the whole data set: pyro.plate("data", N, subsample_size=len(x))'
            )
        return fixed


def _mark(x: Tensor) -> float:
    sums = x.detach().reshape(len(x), -1).sum(1, dtype=torch.float64)
    return float(sums @ torch.linspace(1, 2, len(x), dtype=torch.float64, device=x.device))
