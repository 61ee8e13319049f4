"""Gaussians over sequences of states, each tied to the next: linear dynamics, a priori and given linear data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.kl import register_kl

from dlvm.distributions.sequences.lengths import Ragged, check_lengths, steps_within

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class GaussianChain(Ragged):
    """A joint Gaussian of states z_1..z_T whose precision matrix is block-tridiagonal.

        p(z) = exp(sum_t h_t . z_t - 1/2 sum_t z_t . J_t z_t - sum_t z_t+1 . L_t z_t) / Z

    Linear dynamics with Gaussian noise have this form, and keep it under linear Gaussian data: these add to h and J
    alone. Everything costs one Cholesky factor of T blocks. Steps behind a sequence's length count nothing, and are
    drawn as 0.

    Args:
        linear: h, shape (*batch, T, D).
        precision: J, the diagonal blocks, shape (*batch, T, D, D), symmetric.
        coupling: L, the blocks below the diagonal, shape (*batch, T - 1, D, D).
        lengths: how many steps count, from 1 to T, shape (*batch,); all unless told.
        validate_args: as in every Pyro distribution.

    Raises:
        ValueError: shapes do not go together, or a length is below 1 or above T.
        torch.linalg.LinAlgError: the whole precision is not positive definite.

    References:
        Gaussian Markov Random Fields: Theory and Applications, Rue, Held, 2005, section 2.4.

    Example:
        >>> GaussianChain(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2), torch.zeros(2, 2, 2)).mean.shape
        torch.Size([3, 2])
    """

    arg_constraints: dict = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        linear: Tensor,
        precision: Tensor,
        coupling: Tensor,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        for name, value, least in (("linear", linear, 2), ("precision", precision, 3), ("coupling", coupling, 3)):
            if not isinstance(value, Tensor) or value.dim() < least or not value.is_floating_point():
                got = (
                    f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
                )
                raise ValueError(f"{name} must be a tensor of real numbers with {least} dimensions or more, got {got}")
        steps, dim = linear.shape[-2:]
        if precision.shape[-3:] != (steps, dim, dim) or coupling.shape[-3:] != (steps - 1, dim, dim) or not steps * dim:
            raise ValueError(
                "linear, precision and coupling must have shapes (..., T, D), (..., T, D, D) and (..., T - 1, D, D), "
                f"got {tuple(linear.shape)}, {tuple(precision.shape)} and {tuple(coupling.shape)}"
            )
        batch = [linear.shape[:-2], precision.shape[:-3], coupling.shape[:-3]]
        if lengths is not None:
            check_lengths(lengths, steps)
            batch.append(lengths.shape)
            within = steps_within(lengths, steps)
            one = torch.eye(dim, dtype=linear.dtype, device=linear.device)
            linear = torch.where(within[..., None], linear, 0)
            precision = torch.where(within[..., None, None], precision, one)
            coupling = torch.where(within[..., 1:, None, None], coupling, 0)
        self.linear, self.precision, self.coupling, self.lengths = linear, precision, coupling, lengths
        super().__init__(torch.broadcast_shapes(*batch), torch.Size([steps, dim]), validate_args=validate_args)

    @classmethod
    def dynamics(
        cls,
        first_loc: Tensor,
        first_scale: Tensor,
        transition: Tensor,
        drift: Tensor,
        offset: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> GaussianChain:
        """z_1 ~ N(first_loc, first_scale^2), z_t+1 ~ N(A_t z_t + b_t, drift_t^2), noise being diagonal.

        Args:
            first_loc, first_scale: shape (*batch, D).
            transition: A, shape (*batch, T - 1, D, D).
            drift: shape (*batch, T - 1, D), positive.
            offset: b, shape (*batch, T - 1, D); 0 unless told.
            lengths: as for the class.
        """
        weight, steps = drift.pow(-2), drift.shape[-2] + 1
        pulled = weight.unsqueeze(-1) * transition
        moved, back = transition.mT @ pulled, torch.zeros_like(drift)
        if offset is not None:
            back = (pulled.mT @ offset.unsqueeze(-1)).squeeze(-1)
        if lengths is not None:  # nothing follows the last step
            followed = steps_within(lengths, steps)[..., 1:, None]
            moved, back = moved * followed.unsqueeze(-1), back * followed
        begun = first_scale.pow(-2)
        batch = torch.broadcast_shapes(moved.shape[:-3], begun.shape[:-1])
        own = torch.cat([e.expand(*batch, *e.shape[-2:]) for e in (begun.unsqueeze(-2), weight)], -2).diag_embed()
        pushed = torch.zeros_like(weight) if offset is None else weight * offset
        given = torch.cat([e.expand(*batch, *e.shape[-2:]) for e in ((begun * first_loc).unsqueeze(-2), pushed)], -2)
        linear = given - nn.functional.pad(back, (0, 0, 0, 1))
        return cls(linear, own + nn.functional.pad(moved, (0, 0, 0, 0, 0, 1)), -pulled, lengths)

    def given(self, x: Tensor, weight: Tensor, loc: Tensor, scale: Tensor) -> GaussianChain:
        """The chain once x_t ~ N(W z_t + loc, scale^2) is known; numbers that are NaN were not seen.

        Args:
            x: shape (*batch, T, x_dim).
            weight: W, shape (x_dim, D).
            loc, scale: shape (x_dim,).
        """
        known = scale.pow(-2) * ~x.isnan()
        away = torch.where(x.isnan(), 0, x - loc)
        precision = self.precision + torch.einsum("...d,di,dj->...ij", known, weight, weight)
        return GaussianChain(self.linear + (known * away) @ weight, precision, self.coupling, self.lengths)

    @cached_property
    def factor(self) -> tuple[list[Tensor], list[Tensor]]:
        """Cholesky factor of the precision: blocks on the diagonal, T of them, and those below it, T - 1."""
        diagonal, below = [torch.linalg.cholesky(self.precision[..., 0, :, :])], []
        for t in range(self.event_shape[0] - 1):
            below.append(torch.linalg.solve_triangular(diagonal[-1], self.coupling[..., t, :, :].mT, upper=False).mT)
            left = self.precision[..., t + 1, :, :] - below[-1] @ below[-1].mT
            diagonal.append(torch.linalg.cholesky(left))
        return diagonal, below

    @cached_property
    def shift(self) -> list[Tensor]:
        """The factor's inverse times h, T vectors."""
        diagonal, below = self.factor
        found = [_solve(diagonal[0], self.linear[..., 0, :])]
        for t, (block, beside) in enumerate(zip(diagonal[1:], below, strict=True)):
            found.append(_solve(block, self.linear[..., t + 1, :] - _times(beside, found[-1])))
        return found

    def _back(self, vectors: Sequence[Tensor]) -> Tensor:
        """The inverse of the factor's transpose times T vectors, shape (*shape, T, D)."""
        diagonal, below = self.factor
        found = [_solve(diagonal[-1], vectors[-1], transposed=True)]
        for block, beside, vector in zip(diagonal[-2::-1], below[::-1], vectors[-2::-1], strict=True):
            found.append(_solve(block, vector - _times(beside.mT, found[-1]), transposed=True))
        return torch.stack(torch.broadcast_tensors(*found[::-1]), -2)

    @property
    def half_log_det(self) -> Tensor:
        """Half the log-determinant of the precision, shape (*batch,)."""
        first, *others = (block.diagonal(dim1=-2, dim2=-1).log().sum(-1) for block in self.factor[0])
        return sum(others, first)

    @property
    def _numbers(self) -> Tensor | int:
        """How many numbers count."""
        steps, dim = self.event_shape
        return steps * dim if self.lengths is None else self.lengths.to(self.linear.dtype) * dim

    @property
    def log_normaliser(self) -> Tensor:
        """log Z, shape (*batch,)."""
        squares = sum(vector.square().sum(-1) for vector in self.shift)
        return 0.5 * squares - self.half_log_det + self._numbers * HALF_LOG_2PI

    @cached_property
    def mean(self) -> Tensor:
        return self._back(self.shift).expand(self.batch_shape + self.event_shape)

    @cached_property
    def covariances(self) -> tuple[Tensor, Tensor]:
        """Cov(z_t), shape (*batch, T, D, D), and Cov(z_t+1, z_t), shape (*batch, T - 1, D, D)."""
        diagonal, below = self.factor
        one = torch.eye(self.event_shape[1], dtype=self.linear.dtype, device=self.linear.device)
        inverse = [torch.linalg.solve_triangular(block, one, upper=False) for block in diagonal]
        found, beside = [inverse[-1].mT @ inverse[-1]], []
        for back, block in zip(inverse[-2::-1], below[::-1], strict=True):
            beside.append(-found[-1] @ block @ back)
            found.append(back.mT @ (one + block.mT @ found[-1] @ block) @ back)
        singles = torch.stack(torch.broadcast_tensors(*found[::-1]), -3)
        pairs = torch.stack(torch.broadcast_tensors(*beside[::-1]), -3) if beside else singles[..., :0, :, :]
        if (within := self.within) is not None:
            singles, pairs = singles * within[..., None, None], pairs * within[..., 1:, None, None]
        return singles, pairs

    @property
    def variance(self) -> Tensor:
        return self.covariances[0].diagonal(dim1=-2, dim2=-1).expand(self.batch_shape + self.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: GaussianChain | None = None) -> GaussianChain:
        batch, (steps, dim) = tuple(batch_shape), self.event_shape
        return GaussianChain(
            self.linear.expand(*batch, steps, dim),
            self.precision.expand(*batch, steps, dim, dim),
            self.coupling.expand(*batch, steps - 1, dim, dim),
            None if self.lengths is None else self.lengths.expand(batch),
            validate_args=self._validate_args,
        )

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = torch.randn(shape, dtype=self.linear.dtype, device=self.linear.device)
        drawn = self._back([shift + noise[..., t, :] for t, shift in enumerate(self.shift)])
        return drawn if self.within is None else drawn * self.within.unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if (within := self.within) is not None:
            value = torch.where(within.unsqueeze(-1), value, 0)
        (diagonal, below), squares = self.factor, value.new_zeros(())
        for t, (block, shift) in enumerate(zip(diagonal, self.shift, strict=True)):
            left = _times(block.mT, value[..., t, :]) - shift
            if below[t:]:
                left = left + _times(below[t].mT, value[..., t + 1, :])
            squares = squares + left.square().sum(-1)
        return self.half_log_det - 0.5 * squares - self._numbers * HALF_LOG_2PI

    def entropy(self) -> Tensor:
        return (self._numbers * (HALF_LOG_2PI + 0.5) - self.half_log_det).expand(self.batch_shape)


@register_kl(GaussianChain, GaussianChain)
def _kl(p: GaussianChain, q: GaussianChain) -> Tensor:
    away, (singles, pairs) = p.mean - q.mean, p.covariances
    seconds = singles + away.unsqueeze(-1) * away.unsqueeze(-2)
    beside = pairs + away[..., 1:, :].unsqueeze(-1) * away[..., :-1, :].unsqueeze(-2)
    within = q.within if q.within is not None else torch.ones((), dtype=torch.bool, device=away.device)
    squares = (q.precision * seconds).sum((-2, -1)) * within
    squares = squares.sum(-1) + 2 * (q.coupling * beside).sum((-3, -2, -1))
    return 0.5 * squares - q.half_log_det + q._numbers * HALF_LOG_2PI - p.entropy()


def _solve(block: Tensor, vector: Tensor, transposed: bool = False) -> Tensor:
    """The inverse of a lower triangular block, or of its transpose, times a vector."""
    block = block.mT if transposed else block
    return torch.linalg.solve_triangular(block, vector.unsqueeze(-1), upper=transposed).squeeze(-1)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
