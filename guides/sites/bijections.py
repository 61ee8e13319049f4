"""From vectors of real numbers to a support: what torch knows, and triangular, correlation and covariance matrices."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints as pyro_constraints
from pyro.distributions.transforms import CholeskyTransform, CorrMatrixCholeskyTransform
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transforms
from torch.nn.functional import logsigmoid


class ToPositive(transforms.ExpTransform):
    """Numbers -> positive ones, exp(u), which stay inside the support where exp would leave the floats: at 0 or inf."""

    def _call(self, u: Tensor) -> Tensor:
        return _positive(u)


class ToLowerCholesky(Transform):
    """Vectors of n (n + 1) / 2 numbers -> lower triangular matrices with a positive diagonal.

        L_ij = u_k for j < i,   L_ii = exp(u_k),   L_ij = 0 for j > i,   log |dL / du| = sum_i log L_ii

    Numbers fill the triangle row by row; the density is over the elements on and below the diagonal.
    """

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky
    bijective = True

    def _call(self, u: Tensor) -> Tensor:
        n = _order(u.shape[-1])
        rows, columns = torch.tril_indices(n, n, device=u.device)
        full = u.new_zeros(*u.shape[:-1], n * n).index_copy(-1, rows * n + columns, u).unflatten(-1, (n, n))
        return full.tril(-1) + _positive(full.diagonal(dim1=-2, dim2=-1)).diag_embed()

    def _inverse(self, tril: Tensor) -> Tensor:
        n = tril.shape[-1]
        rows, columns = torch.tril_indices(n, n, device=tril.device)
        return (tril.tril(-1) + tril.diagonal(dim1=-2, dim2=-1).log().diag_embed())[..., rows, columns]

    def log_abs_det_jacobian(self, u: Tensor, tril: Tensor) -> Tensor:
        rows = torch.arange(1, tril.shape[-1] + 1, device=u.device)
        return u[..., rows * (rows + 1) // 2 - 1].sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        n = _order(shape[-1])
        return torch.Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        n = shape[-1]
        return torch.Size((*shape[:-2], n * (n + 1) // 2))


class ToSimplex(transforms.StickBreakingTransform):
    """Vectors of n - 1 numbers -> n shares that sum to 1; its volume is finite where shares are too small for floats.

    y_k = sigmoid(a_k) prod_{j<k} sigmoid(-a_j),   a_k = u_k - log(n - k)
    log |dy / du| = sum_k log(y_k sigmoid(-a_k))
    """

    def log_abs_det_jacobian(self, u: Tensor, y: Tensor) -> Tensor:
        a = u - torch.arange(u.shape[-1], 0, -1, dtype=u.dtype, device=u.device).log()
        left = logsigmoid(-a).cumsum(-1)
        return (logsigmoid(a) + left).sum(-1)


def _positive(u: Tensor) -> Tensor:
    """exp(u), held where a float can have it: limited before exp, whose slope would be 0 times inf behind it."""
    floats = torch.finfo(u.dtype)
    return u.clamp(0.999 * math.log(floats.tiny), 0.999 * math.log(floats.max)).exp()


def _order(numbers: int) -> int:
    """n, for n (n + 1) / 2 numbers."""
    return int(((8 * numbers + 1) ** 0.5 - 1) / 2)


def bijection_to(support: constraints.Constraint) -> Transform:
    """The map from all real numbers, or vectors of them, to a support.

    It is ``biject_to(support)`` where torch has one, and goes by a Cholesky factor to positive definite and correlation
    matrices, whose densities are over the elements that determine them.

    Raises:
        NotImplementedError: there is none.

    Example:
        >>> bijection_to(constraints.positive_definite)(torch.zeros(3))
        tensor([[1., 0.],
                [0., 1.]])
    """
    if isinstance(support, constraints.independent):
        inner = bijection_to(support.base_constraint)
        return transforms.IndependentTransform(inner, support.reinterpreted_batch_ndims)
    if support in (constraints.positive, constraints.nonnegative):
        return ToPositive()
    if support is constraints.simplex:
        return ToSimplex()
    if support is constraints.lower_cholesky:
        return ToLowerCholesky()
    if support is constraints.positive_definite:
        return transforms.ComposeTransform([ToLowerCholesky(), CholeskyTransform().inv])
    if support is pyro_constraints.corr_matrix:
        return transforms.ComposeTransform([biject_to(constraints.corr_cholesky), CorrMatrixCholeskyTransform().inv])
    return biject_to(support)
