"""From vectors of real numbers to a support: what torch knows, and triangular, correlation and covariance matrices."""

from __future__ import annotations

import torch
from pyro.distributions import constraints as pyro_constraints
from pyro.distributions.transforms import CholeskyTransform, CorrMatrixCholeskyTransform
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transforms


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
        return full.tril(-1) + full.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, tril: Tensor) -> Tensor:
        n = tril.shape[-1]
        rows, columns = torch.tril_indices(n, n, device=tril.device)
        return (tril.tril(-1) + tril.diagonal(dim1=-2, dim2=-1).log().diag_embed())[..., rows, columns]

    def log_abs_det_jacobian(self, u: Tensor, tril: Tensor) -> Tensor:
        return tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        n = _order(shape[-1])
        return torch.Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        n = shape[-1]
        return torch.Size((*shape[:-2], n * (n + 1) // 2))


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
    if support is constraints.lower_cholesky:
        return ToLowerCholesky()
    if support is constraints.positive_definite:
        return transforms.ComposeTransform([ToLowerCholesky(), CholeskyTransform().inv])
    if support is pyro_constraints.corr_matrix:
        return transforms.ComposeTransform([biject_to(constraints.corr_cholesky), CorrMatrixCholeskyTransform().inv])
    return biject_to(support)
