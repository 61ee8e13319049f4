"""Kullback-Leibler divergences that torch and Pyro lack; importing the package registers them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)
from torch.nn.functional import logsigmoid

from dlvm.distributions.bernoulli import IndependentBernoulli

Kind = TypeVar("Kind", bound=Distribution)


@register_kl(MultivariateNormal, Independent)
def full_rank_to_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """KL from any Gaussian to a diagonal one, shape (*batch), nats.

    KL(N(m, L L^T) || N(a, diag(s^2))) = 1/2 sum_i [ (sum_j L_ij^2 + (m_i - a_i)^2) / s_i^2 - 1 + 2 log(s_i / L_ii) ]

    Raises:
        NotImplementedError: p is not a vector of independent Gaussians (KL estimators then fall back to sampling).
        ValueError: q and p have different event shapes.
        TypeError: q or p is of another class.
    """
    _check_kinds(q, p, MultivariateNormal, Independent)
    base, tril = _vector(p, Normal), q.scale_tril
    _check_events(q, p)
    squares = (tril.square().sum(-1) + (q.loc - base.loc).square()) / base.scale.square()
    logs = torch.log(base.scale / tril.diagonal(dim1=-2, dim2=-1))
    return (0.5 * (squares - 1) + logs).sum(-1)


@register_kl(LowRankMultivariateNormal, Independent)
def low_rank_to_diagonal(q: LowRankMultivariateNormal, p: Independent) -> Tensor:
    """KL from a Gaussian of low-rank covariance to a diagonal one, shape (*batch), nats; no covariance is formed.

    KL(N(m, W W^T + diag(d)) || N(a, diag(s^2)))
        = 1/2 sum_i [ (d_i + sum_k W_ik^2 + (m_i - a_i)^2) / s_i^2 - 1 + log(s_i^2 / d_i) ] - 1/2 log|C|,
    C = I + W^T diag(d)^-1 W, of the size of the rank.

    Raises:
        NotImplementedError: p is not a vector of independent Gaussians (KL estimators then fall back to sampling).
        ValueError: q and p have different event shapes.
        TypeError: q or p is of another class.
    """
    _check_kinds(q, p, LowRankMultivariateNormal, Independent)
    base = _vector(p, Normal)
    _check_events(q, p)
    squares = (q.variance + (q.loc - base.loc).square()) / base.scale.square()
    logs = base.scale.log() - 0.5 * q.cov_diag.log()
    return (0.5 * (squares - 1) + logs).sum(-1) - _log_diagonal(q._capacitance_tril)


@register_kl(Independent, LowRankMultivariateNormal)
def diagonal_to_low_rank(q: Independent, p: LowRankMultivariateNormal) -> Tensor:
    """KL from a diagonal Gaussian to one of low-rank covariance, shape (*batch), nats; no covariance is formed.

    KL(N(m, diag(s^2)) || N(a, W W^T + diag(d)))
        = 1/2 sum_i [ (s_i^2 + (m_i - a_i)^2) / d_i - 1 + log(d_i / s_i^2) ] + 1/2 log|C|
        - 1/2 sum_k [ sum_i A_ki^2 s_i^2 + (sum_i A_ki (m_i - a_i))^2 ],
    C = I + W^T diag(d)^-1 W,  A = chol(C)^-1 W^T diag(d)^-1.

    Raises:
        NotImplementedError: q is not a vector of independent Gaussians (KL estimators then fall back to sampling).
        ValueError: q and p have different event shapes.
        TypeError: q or p is of another class.
    """
    _check_kinds(q, p, Independent, LowRankMultivariateNormal)
    base = _vector(q, Normal)
    _check_events(q, p)
    variance, shift = base.scale.square(), base.loc - p.loc
    squares = (variance + shift.square()) / p.cov_diag
    logs = 0.5 * p.cov_diag.log() - base.scale.log()
    weighted = (p._unbroadcasted_cov_factor / p._unbroadcasted_cov_diag.unsqueeze(-1)).mT
    a = torch.linalg.solve_triangular(p._capacitance_tril, weighted, upper=False)
    explained = (a.square() @ variance.unsqueeze(-1) + (a @ shift.unsqueeze(-1)).square()).sum((-2, -1))
    return (0.5 * (squares - 1) + logs).sum(-1) + _log_diagonal(p._capacitance_tril) - 0.5 * explained


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def low_rank_to_full_rank(q: LowRankMultivariateNormal, p: MultivariateNormal) -> Tensor:
    """KL from a Gaussian of low-rank covariance to any Gaussian, shape (*batch), nats.

    KL(N(m, W W^T + diag(d)) || N(a, L L^T))
        = 1/2 [ |L^-1 W|^2 + |L^-1 diag(d)^1/2|^2 + |L^-1 (m - a)|^2 - n - sum_i log d_i - log|C| ] + sum_i log L_ii,
    C = I + W^T diag(d)^-1 W. It replaces torch's own, which fails where W and d have different batch shapes.

    Raises:
        ValueError: q and p have different event shapes.
        TypeError: q or p is of another class.
    """
    _check_kinds(q, p, LowRankMultivariateNormal, MultivariateNormal)
    _check_events(q, p)
    tril, parts = p._unbroadcasted_scale_tril, q._unbroadcasted_cov_diag
    columns = q._unbroadcasted_cov_factor, torch.diag_embed(parts.sqrt()), (q.loc - p.loc).unsqueeze(-1)
    squares = sum(torch.linalg.solve_triangular(tril, c, upper=False).square().sum((-2, -1)) for c in columns)
    logs = _log_diagonal(tril) - _log_diagonal(q._capacitance_tril) - 0.5 * parts.log().sum(-1)
    return 0.5 * (squares - q.event_shape[0]) + logs


@register_kl(IndependentBernoulli, IndependentBernoulli)
@register_kl(IndependentBernoulli, Independent)
@register_kl(Independent, IndependentBernoulli)
def binary_to_binary(q: Independent, p: Independent) -> Tensor:
    """KL between vectors of independent Bernoulli variables of logits a and b, shape (*batch), nats.

    KL(q || p) = sum_d [ s(a_d) log(s(a_d) / s(b_d)) + s(-a_d) log(s(-a_d) / s(-b_d)) ],  s the logistic sigmoid

    It is finite for all finite logits; torch's own is infinite where a probability rounds to 0 or 1, and does not
    broadcast batch shapes.

    Raises:
        NotImplementedError: q or p is not a vector of independent Bernoulli variables.
        ValueError: q and p have different event shapes.
        TypeError: q or p is of another class.
    """
    _check_kinds(q, p, Independent, Independent)
    a, b = _vector(q, Bernoulli).logits, _vector(p, Bernoulli).logits
    _check_events(q, p)
    ones = a.sigmoid() * (logsigmoid(a) - logsigmoid(b))
    zeros = (-a).sigmoid() * (logsigmoid(-a) - logsigmoid(-b))
    return (ones + zeros).sum(-1)


def _vector(distribution: Independent, kind: type[Kind]) -> Kind:
    """The distribution of one element of a vector of independent ones of this kind."""
    base = distribution.base_dist
    if not (isinstance(base, kind) and distribution.reinterpreted_batch_ndims == 1):
        raise NotImplementedError(f"a vector of independent {kind.__name__} variables is needed, got {distribution}")
    return base


def _check_kinds(q: Distribution, p: Distribution, kind_q: type[Distribution], kind_p: type[Distribution]) -> None:
    for name, value, kind in (("q", q, kind_q), ("p", p, kind_p)):
        if not isinstance(value, kind):
            got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise TypeError(
                f"{name} must be of class {kind.__name__}, got {got}; call torch.distributions.kl_divergence(q, p), "
                "which finds the formula for a pair"
            )


def _check_events(q: Distribution, p: Distribution) -> None:
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"KL(q || p) needs q and p over events of one shape, got q with {tuple(q.event_shape)} and p with "
            f"{tuple(p.event_shape)}; give both the same number of dimensions"
        )


def _log_diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).log().sum(-1)
