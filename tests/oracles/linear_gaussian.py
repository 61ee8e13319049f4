"""The linear-Gaussian model z ~ N(0, I_k), x | z ~ N(W z + mu, s2 I_d): every number about it is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from oracles.gaussians import Gaussian


class LinearGaussian(NamedTuple):
    """W (d, k), mu (d,), s2 scalar. x is (*batch, d); results are (*batch,) in nats."""

    weight: Tensor
    mu: Tensor
    s2: Tensor

    @property
    def marginal(self) -> Gaussian:
        """p(x) = N(mu, W W' + s2 I)."""
        return Gaussian(self.mu, self.weight @ self.weight.T + self.s2 * _eye(len(self.mu)))

    @property
    def precision(self) -> Tensor:
        """Lambda = I + W'W / s2, the posterior precision, the same for every x."""
        return _eye(self.weight.shape[1]) + self.weight.T @ self.weight / self.s2

    def log_px(self, x: Tensor) -> Tensor:
        return self.marginal.log_prob(x)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z); the batch dimensions of x (*, d) and z (*, k) broadcast."""
        d, k = self.weight.shape
        prior = -0.5 * (k * math.log(2 * math.pi) + z.square().sum(-1))
        error = (x - self.mu - z @ self.weight.T).square().sum(-1)
        return prior - 0.5 * (d * torch.log(2 * math.pi * self.s2) + error / self.s2)

    def posterior(self, x: Tensor) -> Gaussian:
        """p(z|x) = N(m, Sigma), m (*batch, k), Sigma (k, k)."""
        sigma = torch.linalg.inv(self.precision)
        return Gaussian((x - self.mu) @ self.weight @ sigma / self.s2, sigma)

    def elbo(self, x: Tensor, q: Gaussian) -> Tensor:
        """The exact ELBO of any Gaussian q(z), q.loc (*batch, k); differentiable in all that enters it."""
        d, k = self.weight.shape
        prior = k * math.log(2 * math.pi) + q.loc.square().sum(-1) + q.cov.diagonal(dim1=-2, dim2=-1).sum(-1)
        spread = (self.weight @ q.cov @ self.weight.T).diagonal(dim1=-2, dim2=-1).sum(-1)
        error = (x - self.mu - q.loc @ self.weight.T).square().sum(-1) + spread
        return -0.5 * (prior + d * torch.log(2 * math.pi * self.s2) + error / self.s2) + q.entropy()

    def diagonal_optimum(self, x: Tensor) -> Gaussian:
        """The diagonal q with the best ELBO: N(m, diag(1 / Lambda_jj))."""
        return Gaussian(self.posterior(x).loc, torch.diag(1 / self.precision.diagonal()))

    def forward_optimum(self, x: Tensor) -> Gaussian:
        """The diagonal q with the least KL(p || q): N(m, diag(Sigma_jj))."""
        posterior = self.posterior(x)
        return Gaussian(posterior.loc, torch.diag(posterior.cov.diagonal()))

    @property
    def diagonal_gap(self) -> Tensor:
        """log p(x) - max ELBO over diagonal q, the same for every x."""
        return self.block_gap([[j] for j in range(self.weight.shape[1])])

    @property
    def forward_gap(self) -> Tensor:
        """min KL(p || q) over diagonal q, the same for every x."""
        sigma = torch.linalg.inv(self.precision)
        return 0.5 * (sigma.diagonal().log().sum() - torch.logdet(sigma))

    def block_gap(self, blocks: list[list[int]]) -> Tensor:
        """log p(x) - max ELBO over q that factorises over `blocks` of latent coordinates."""
        return block_gap(self.precision, blocks)


def block_gap(precision: Tensor, blocks: list[list[int]]) -> Tensor:
    """1/2 (sum_b log|Lambda_bb| - log|Lambda|): the price of independent blocks."""
    within = sum(torch.logdet(precision[block][:, block]) for block in blocks)
    return 0.5 * (within - torch.logdet(precision))


def ppca_optimum(x: Tensor, z_dim: int) -> tuple[Tensor, LinearGaussian, Tensor]:
    """Maximum likelihood in closed form (Tipping & Bishop 1999): mean log-likelihood, the model, and the
    variances of the posterior means, 1 - s2 / l_i (z_dim,): those above a threshold are the active units."""
    n, d = x.shape
    if not 0 < z_dim < d:
        raise ValueError(f"z_dim={z_dim}: expected 0 < z_dim < x_dim={d}; take fewer latent dimensions")
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / n)
    values, vectors = values.flip(0), vectors.flip(1)
    kept, s2 = values[:z_dim], values[z_dim:].mean()
    weight = vectors[:, :z_dim] * (kept - s2).sqrt()
    bound = -0.5 * (d * math.log(2 * math.pi) + kept.log().sum() + (d - z_dim) * s2.log() + d)
    return bound, LinearGaussian(weight, x.mean(0), s2), 1 - s2 / kept


def _eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def _tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


GOLDEN_1 = LinearGaussian(
    weight=_tensor([1, 0.5], [0, 1], [1, -1], [0.5, 0.5]), mu=_tensor(0.1, -0.2, 0, 0.3), s2=_tensor(0.25)[0]
)
X_1 = _tensor(1, -1, 0.5, 2)

GOLDEN_2 = LinearGaussian(
    weight=_tensor([1, 0.5, 0], [0, 1, 0.3], [1, -1, 0.2], [0.5, 0.5, 1], [0, 0, 1]),
    mu=_tensor(0, 0, 0, 0, 0),
    s2=_tensor(0.25)[0],
)
X_2 = _tensor(1, -1, 0.5, 2, 0)

# A guide for golden model 1 that misses on purpose: mean off by (.2, -.1), variances .15 and .2.
Q = Gaussian(GOLDEN_1.posterior(X_1).loc + _tensor(0.2, -0.1), torch.diag(_tensor(0.15, 0.2)))
