"""Discrete latents summed out: bounds, their exact gradients, and the exact mean and variance of estimators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from oracles.gaussians import Gaussian

Bound = Callable[[Tensor], Tensor]


class SBN(NamedTuple):
    """p(h) = Bernoulli(prior), p(x|h) = Bernoulli(weight h + bias), and q(h) = Bernoulli(phi); all are logits.

    prior (L,), weight (D, L), bias (D,), phi (L,). x is (*batch, D), h (*batch, L); results are in nats.
    """

    prior: Tensor
    weight: Tensor
    bias: Tensor
    phi: Tensor

    def log_joint(self, x: Tensor, h: Tensor) -> Tensor:
        """log p(x, h); the batch dimensions of x and h broadcast."""
        return bernoulli(h, self.prior) + bernoulli(x, h @ self.weight.T + self.bias)

    def log_q(self, h: Tensor) -> Tensor:
        return bernoulli(h, self.phi)

    def log_px(self, x: Tensor) -> Tensor:
        """log p(x), shape (*batch)."""
        return self._table(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> Tensor:
        """p(h|x), shape (*batch, 2^L), in the order of `configurations(L)`."""
        return self._table(x).softmax(-1)

    def elbo(self, x: Tensor) -> Tensor:
        """sum_h q(h) (log p(x, h) - log q(h)), shape (*batch)."""
        log_q = self.log_q(configurations(len(self.phi)))
        return (log_q.exp() * (self._table(x) - log_q)).sum(-1)

    def _table(self, x: Tensor) -> Tensor:
        return self.log_joint(x.unsqueeze(-2), configurations(len(self.prior)))


class Mixture(NamedTuple):
    """p(c) = exp(log_pi) (C,), p(x|c) = N(loc_c, cov_c), loc (C, d), cov (C, d, d); x is (*batch, d).

    q(c) is given by logits (*batch, C).
    """

    log_pi: Tensor
    loc: Tensor
    cov: Tensor

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, c), shape (*batch, C)."""
        return self.log_pi + Gaussian(self.loc, self.cov).log_prob(x.unsqueeze(-2))

    def log_px(self, x: Tensor) -> Tensor:
        return self.log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """p(c|x), shape (*batch, C)."""
        return self.log_joint(x).softmax(-1)

    def elbo(self, x: Tensor, q_logits: Tensor) -> Tensor:
        """E_q log p(x, c) + H(q), shape (*batch)."""
        return m2_bound(self.log_joint(x), q_logits)

    def gap(self, x: Tensor, q_logits: Tensor) -> Tensor:
        """KL(q || responsibilities), what the ELBO loses against log p(x)."""
        log_q = q_logits.log_softmax(-1)
        return (log_q.exp() * (log_q - self.log_joint(x).log_softmax(-1))).sum(-1)


def m2_bound(labelled: Tensor, q_logits: Tensor) -> Tensor:
    """-U(x) = sum_y q(y|x) L(x, y) + H(q), shape (*batch).

    Args: labelled, the bound L(x, y) on log p(x, y) for each y (*batch, C); q_logits (*batch, C). It is at most
    logsumexp_y L(x, y), with equality iff q(y|x) = softmax(L).
    """
    q = q_logits.softmax(-1)
    return (q * labelled).sum(-1) - torch.xlogy(q, q).sum(-1)


def bernoulli(value: Tensor, logits: Tensor) -> Tensor:
    """log prod_i Bernoulli(value_i; logits_i) over the last dimension."""
    return (value * logsigmoid(logits) + (1 - value) * logsigmoid(-logits)).sum(-1)


def configurations(bits: int) -> Tensor:
    """All vectors of so many bits, (2^bits, bits), counting up in binary."""
    if not 0 < bits <= 20:
        raise ValueError(f"bits={bits}: expected 1 to 20, for 2^bits rows are listed; use fewer bits or particles")
    return (torch.arange(2**bits)[:, None] >> torch.arange(bits - 1, -1, -1) & 1).double()


def tuples(bits: int, num_particles: int) -> Tensor:
    """All tuples of K particles of L bits, (2^(L K), K, L)."""
    return configurations(bits * num_particles).reshape(-1, num_particles, bits)


def tuple_probabilities(phi: Tensor, h: Tensor) -> Tensor:
    """The probability of each tuple h (n, K, L) of independent draws from Bernoulli(phi), shape (n,)."""
    return bernoulli(h, phi).sum(-1).exp()


def expected_bound(bound: Bound, sbn: SBN, x: Tensor, num_particles: int) -> Tensor:
    """E bound(log_w) over K particles from q, scalar; `bound` maps log_w (K, n) to (n,), x is (D,).

    Differentiable in all of `sbn`: autograd of it is the exact gradient.
    """
    h = tuples(len(sbn.phi), num_particles)
    log_w = sbn.log_joint(x, h) - sbn.log_q(h)
    return tuple_probabilities(sbn.phi, h) @ bound(log_w.T)


def finite_difference(f: Callable[[Tensor], Tensor], parameter: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of a scalar f at `parameter`, by central differences, in its shape."""
    flat = parameter.detach().flatten()
    shifts = step * torch.eye(len(flat), dtype=flat.dtype)
    slopes = [(f((flat + s).view_as(parameter)) - f((flat - s).view_as(parameter))) / (2 * step) for s in shifts]
    return torch.stack(slopes).detach().view_as(parameter)


def mean_and_variance(estimates: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and variance (P,) of an estimator that takes the values `estimates` (n, P)."""
    mean = probabilities @ estimates
    return mean, probabilities @ (estimates - mean).square()


def naive_score(sbn: SBN, x: Tensor, num_particles: int) -> Tensor:
    """Lhat sum_k dlog q(h_k) + sum_k w~_k dlog w_k, the gradient of L_K in phi for each tuple, (n, L)."""
    log_w, score = _weights_and_scores(sbn, x, num_particles)
    bound = log_w.logsumexp(-1) - math.log(num_particles)
    return ((bound[:, None] - log_w.softmax(-1)).unsqueeze(-1) * score).sum(-2)


def vimco(sbn: SBN, x: Tensor, num_particles: int) -> Tensor:
    """The same with Lhat less what it would be were w_k the geometric mean of the others, (n, L)."""
    if num_particles < 2:
        raise ValueError(f"num_particles={num_particles}: expected at least 2, a control needs the other particles")
    log_w, score = _weights_and_scores(sbn, x, num_particles)
    signal = []
    for k in range(num_particles):
        others = torch.cat([log_w[:, :k], log_w[:, k + 1 :]], -1)
        imagined = torch.cat([others, others.mean(-1, keepdim=True)], -1)
        signal.append(log_w.logsumexp(-1) - imagined.logsumexp(-1))
    return ((torch.stack(signal, -1) - log_w.softmax(-1)).unsqueeze(-1) * score).sum(-2)


def _weights_and_scores(sbn: SBN, x: Tensor, num_particles: int) -> tuple[Tensor, Tensor]:
    """log w (n, K) and dlog q(h_k)/dphi = h_k - sigmoid(phi) (n, K, L); dlog w_k/dphi is minus the latter."""
    h = tuples(len(sbn.phi), num_particles)
    return sbn.log_joint(x, h) - sbn.log_q(h), h - sbn.phi.sigmoid()


def _golden_sbn() -> SBN:
    rng = np.random.default_rng(0)
    return SBN(*(torch.from_numpy(rng.normal(size=size)) for size in (2, (3, 2), 3, 2)))


GOLDEN_SBN = _golden_sbn()
X_SBN = torch.tensor([1, 0, 1], dtype=torch.float64)

MIXTURE = Mixture(
    log_pi=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(),
    loc=torch.tensor([[0, 0], [2, -1], [-1, 1.5]], dtype=torch.float64),
    cov=torch.tensor([[[1, 0.3], [0.3, 0.5]], [[0.4, 0], [0, 1.2]], [[0.7, -0.2], [-0.2, 0.6]]], dtype=torch.float64),
)
