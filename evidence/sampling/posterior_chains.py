"""Hamiltonian Monte Carlo in the posterior of every datum at once, by chains that go on where they were left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from dlvm.distributions.pyro_lock import TURN
from dlvm.evidence.annealing.chains import Replayed
from dlvm.evidence.annealing.hmc import Point, transition
from dlvm.evidence.annealing.path import Path
from dlvm.evidence.annealing.step_sizes import FIRST_MOVES, FIRST_RATE, FIRST_SIZE, jittered
from dlvm.evidence.target import Target
from dlvm.guides.sites.arguments import program
from dlvm.inference.engine.engine import ENGINES
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import Axes, batch_size, by_length, gathered, rows_of
from dlvm.nets.arguments import count, real

RATE = 0.03
FINE, FINE_SHARE = 0.125, 0.2  # of the step size, in so many moves: where the density is steep others are never taken
JOINT = (1.0, 1.0)  # of log p(u) and log p(x | u)


class PosteriorChains:
    """Chains that wander through p(z | x_n), some for each datum n, whose positions are kept.

        v ~ N(0, I);   (u', v') = leapfrog of H = -log p(x_n, u) + v'v / 2;   u <- u' with probability min(1, e^-dH)

    u are the latent sites of a datum as one unconstrained vector. All chains share one step size, which follows the
    mean acceptance of all that move together; in one move of five, chosen by chance, the step is an eighth of it, so
    that chains move also where the density is steep. While the size follows, a draw has a small say in how it is moved,
    so that for draws to be counted it should stand still (``adapt=False``). The model may change from move to move, as
    it does while it learns, see ``fit_mcmc_em``; it is run in evaluation mode.

    Chains hold the data that they belong to, a copy of what a loader gives in one pass: they cannot be moved on others.

    Attributes:
        u: where they are, shape (num_chains, num_data, dim).
        size: the step size.
        moves: how often the step size has followed.
        num_data: how many data there are.

    Args:
        model: a Pyro program whose latent sites are continuous and lie in one plate over data; discrete ones that it
            marks by ``infer={"enumerate": "parallel"}`` are summed out.
        data: a tensor x, or batches of the model's arguments.
        num_chains: per datum.
        leaps: leapfrog steps per proposal.
        target_acceptance: of proposals, which the step size aims at.
        start: a guide that the first positions are drawn from, or these, shape (num_chains, num_data, dim); the model's
            prior unless told.
        rows: how many data at once.
        engine: how densities and slopes are computed, as in ``SVI``.

    Raises:
        ValueError: a number is out of its range; a latent site is discrete, a direction, global, or in several plates;
            data lie outside the likelihood's support, or have a say in each other's densities; ``start`` has another
            shape, or a guide lacks a site.
        TypeError: the model is no program, or ``start`` neither a program nor a tensor of floats.

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011, arXiv:1206.1901.

    Example:
        >>> from dlvm.models import PPCA
        >>> _ = torch.manual_seed(0)
        >>> chains = PosteriorChains(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3), num_chains=4)
        >>> chains.move(20) > 0.5, chains.values()["z"].shape
        (True, torch.Size([4, 5, 2]))
    """

    def __init__(
        self,
        model: Callable,
        data: Tensor | Iterable,
        num_chains: int = 1,
        leaps: int = 10,
        target_acceptance: float = 0.8,
        start: Callable | Tensor | None = None,
        rows: int = 1000,
        engine: str = "auto",
    ):
        program(model=model)
        count(num_chains=num_chains, leaps=leaps, rows=rows)
        real(target_acceptance=target_acceptance)
        if not 0 < target_acceptance < 1:
            raise ValueError(f"target_acceptance must be between 0 and 1, got {target_acceptance}; 0.8 is usual")
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
        self.model, self.pair = model, Pair(model)
        self.args = gathered(data, partial(by_length, pair=self.pair))
        self.num_chains, self.leaps, self.target_acceptance = num_chains, leaps, target_acceptance
        self.rows, self.engine, self.moves = rows, engine, 0
        self.num_data = batch_size(self.pair, self.args)
        self.having = self._separable()
        self._field = Replayed(self.pair, engine, name="chains")
        self._paths: dict[int, Path] = {}
        self.u = self._placed(start)
        self._log_size = torch.as_tensor(math.log(FIRST_SIZE / self.u.shape[-1] ** 0.25), device=self.u.device)

    @property
    def size(self) -> float:
        return self._log_size.exp().item()

    @torch.no_grad()
    def move(self, times: int = 1, rows: Tensor | None = None, adapt: bool = True) -> float:
        """Moves the chains of some data, so that p(z | x) stays what they are draws of.

        Returns:
            the mean probability with which a proposal was accepted.

        Args:
            times: proposals for each chain.
            rows: which data, integers of shape (n,); all unless told.
            adapt: let the step size follow the acceptance.

        Raises:
            ValueError: ``times`` is below 1, or ``rows`` names other data.
            TypeError: ``rows`` is no tensor of integers.
            NonFinite: log p(x, z) or its slope is not finite where a chain is, which cannot move from there.
        """
        count(times=times)
        accepted = torch.zeros((), dtype=torch.float64, device=self.u.device)
        with TURN:
            index = self.index(rows)
            for part in index.split(self.rows):
                accepted += self._moved(part, times, adapt) * len(part) / (times * len(index))
        return accepted.item()

    def _moved(self, part: Tensor, times: int, adapt: bool) -> Tensor:
        """Moves the chains of data that are few enough; the sum of the mean acceptance of each move, double."""
        accepted = torch.zeros((), dtype=torch.float64, device=self.u.device)
        with self.at(part) as path:
            self._field.follow(path)
            point = self._field(self.u[:, part])
            for _ in range(times):
                fine = torch.rand(()).item() < FINE_SHARE  # wherever the chains are, so that p(z | x) stays theirs
                size = self._log_size.exp().to(point.u) * (FINE if fine else 1)
                size = jittered(size.expand(len(part)), self.num_chains)
                point, acceptance = transition(self._field, point, JOINT, size, self.leaps)
                accepted += (mean := acceptance.mean())
                if adapt and not fine:
                    rate = FIRST_RATE if self.moves < FIRST_MOVES else RATE
                    self._log_size += rate * (mean - self.target_acceptance)
                    self.moves += 1
            self.u[:, part] = point.u
        _check_finite(point)
        return accepted

    def values(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """{site: value} where the chains of some data are, all unless told; shapes (num_chains, n, *event)."""
        index = self.index(rows)
        with self.at(index[: self.rows]) as path:
            return path.target.values(self.u[:, index])

    def index(self, rows: Tensor | None) -> Tensor:
        """The numbers of some data, held against how many there are.

        Raises:
            ValueError, TypeError: see ``move``.
        """
        if rows is None:
            return torch.arange(self.num_data, device=self.u.device)
        if not isinstance(rows, Tensor) or rows.dtype not in (torch.int64, torch.int32):
            got = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise TypeError(f"rows must be a tensor of integers, got {got}; number the data with torch.arange")
        if rows.dim() != 1 or not len(rows) or rows.min() < 0 or rows.max() >= self.num_data:
            raise ValueError(
                f"rows must be numbers of the chains' {self.num_data} data, from 0, shape (n,), got shape "
                f"{tuple(rows.shape)}; chains of other data are other PosteriorChains"
            )
        if len(rows.unique()) < len(rows):
            raise ValueError("rows names a datum twice, whose chains can move once at a time; pass rows.unique()")
        return rows.to(self.u.device)

    @contextmanager
    def at(self, index: Tensor) -> Iterator[Path]:
        """Inside, the densities of these data, in evaluation mode; the data have been checked before."""
        args = rows_of(self.args, index, self.having)
        with self.pair.evaluating(), pyro.validation_enabled(False):
            if len(index) not in self._paths:
                self._paths[len(index)] = Path(Target(self.model, args))
            path = self._paths[len(index)]
            path.target.args = args
            yield path

    def _separable(self) -> Axes:
        """Holds the data against the model, and finds along which axes they lie."""
        check_rows(self.pair, self.args, {})
        having = rowed(self.pair, self.args)
        if having is None:
            raise ValueError(
                "model gives a datum another density alone than among others (a net that normalises over the batch, "
                "sites outside the plate over data, data along another axis), so that no chain is one datum's; write "
                'it with pyro.plate("data", len(x)) around the sites of a datum'
            )
        return having

    def _placed(self, start: Any) -> Tensor:
        """Where chains begin, shape (num_chains, num_data, dim)."""
        drawn = self.model if start is None or isinstance(start, Tensor) else start
        program(start=drawn)
        found = []
        with TURN, torch.no_grad():
            for part in torch.arange(self.num_data).split(self.rows):
                with self.at(part) as path:
                    found.append(path.target.draw(drawn, self.num_chains))
        u = torch.cat(found, dim=1).clone()
        return _as_drawn(start, u) if isinstance(start, Tensor) else u


def _check_finite(point: Point) -> None:
    """Raises NonFinite where a chain stands at a density that cannot be followed."""
    bad = ~(point.terms.isfinite().all(0) & point.slopes.isfinite().all(-1).all(0))
    if bad.any():
        raise NonFinite(
            f"log p(x, z) or its slope is not finite where {int(bad.sum())} of {bad.numel()} chains are, datum "
            f"{int(bad.any(0).nonzero()[0])} of these the first, and cannot move from there: start them elsewhere, by "
            "a guide, scale the data, or look whether the model's parameters are finite"
        )


def _as_drawn(start: Tensor, drawn: Tensor) -> Tensor:
    """Positions that are given, once they are of the shape that draws have.

    Raises:
        ValueError, TypeError: they are not.
    """
    if not start.is_floating_point():
        raise TypeError(f"start must be a guide or a tensor of floats, got {start.dtype}; pass the u of chains")
    if start.shape != drawn.shape or not start.isfinite().all():
        raise ValueError(
            f"start must be finite and have shape (num_chains, num_data, dim) = {tuple(drawn.shape)}, got "
            f"{tuple(start.shape)}: these are chains of other data or another model; leave start out to draw them"
        )
    return start.detach().to(drawn).clone()
