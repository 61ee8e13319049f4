"""The two-layer linear-Gaussian model: z2 ~ N(0, I), z1 | z2 ~ N(A z2, s1 I), x | z1 ~ N(W z1, s2 I)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from oracles.gaussians import Gaussian
from oracles.linear_gaussian import block_gap


class LinearConditional(NamedTuple):
    """q(a | b, x) = N(weight b + loc, cov); weight (dim_a, dim_b), loc (*batch, dim_a)."""

    weight: Tensor
    loc: Tensor
    cov: Tensor

    def __call__(self, given: Tensor) -> Gaussian:
        return Gaussian(given @ self.weight.T + self.loc, self.cov)


class TwoLayer(NamedTuple):
    """A (k1, k2), W (d, k1), variances s1, s2 (scalars). x is (*batch, d); the joint latent is (z1, z2)."""

    upper: Tensor
    lower: Tensor
    s1: Tensor
    s2: Tensor

    @property
    def prior(self) -> Gaussian:
        """p(z1, z2), (k1 + k2)-dimensional."""
        k1, k2 = self.upper.shape
        top = torch.eye(k2, dtype=torch.float64)
        first = self.upper @ self.upper.T + self.s1 * torch.eye(k1, dtype=torch.float64)
        cov = torch.cat([torch.cat([first, self.upper], -1), torch.cat([self.upper.T, top], -1)], -2)
        return Gaussian(torch.zeros(k1 + k2, dtype=torch.float64), cov)

    @property
    def marginal(self) -> Gaussian:
        d, k1 = self.lower.shape
        first = self.prior.cov[:k1, :k1]
        cov = self.lower @ first @ self.lower.T + self.s2 * torch.eye(d, dtype=torch.float64)
        return Gaussian(torch.zeros(d, dtype=torch.float64), cov)

    def log_px(self, x: Tensor) -> Tensor:
        """log p(x), shape (*batch), nats."""
        return self.marginal.log_prob(x)

    def log_joint(self, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
        """log p(x, z1, z2), shape (*batch), factor by factor in generation order."""
        k1, k2 = self.upper.shape
        noise = [variance * torch.eye(n, dtype=torch.float64) for variance, n in ((1, k2), (self.s1, k1))]
        top = Gaussian(torch.zeros(k2, dtype=torch.float64), noise[0]).log_prob(z2)
        middle = Gaussian(z2 @ self.upper.T, noise[1]).log_prob(z1)
        pixels = Gaussian(z1 @ self.lower.T, self.s2 * torch.eye(len(self.lower), dtype=torch.float64))
        return top + middle + pixels.log_prob(x)

    def posterior(self, x: Tensor) -> Gaussian:
        """p(z1, z2 | x) by conditioning the joint covariance on x."""
        k1 = self.upper.shape[0]
        cross = self.prior.cov[:, :k1] @ self.lower.T
        gain = torch.linalg.solve(self.marginal.cov, cross.T).T
        return Gaussian(x @ gain.T, self.prior.cov - gain @ cross.T)

    def bottom_up(self, x: Tensor) -> tuple[Gaussian, LinearConditional]:
        """p(z1 | x) and p(z2 | z1, x); the second does not depend on x."""
        z1, z2 = self._split()
        return self._condition(x, first=z1, second=z2)

    def top_down(self, x: Tensor) -> tuple[Gaussian, LinearConditional]:
        """p(z2 | x) and p(z1 | z2, x)."""
        z1, z2 = self._split()
        return self._condition(x, first=z2, second=z1)

    @property
    def layer_gap(self) -> Tensor:
        """What q(z1|x) q(z2|x), layers independent and each full-rank, must lose against log p(x)."""
        z1, z2 = self._split()
        sigma = self.posterior(torch.zeros(len(self.lower), dtype=torch.float64)).cov
        return block_gap(torch.linalg.inv(sigma), [z1, z2])

    def _split(self) -> tuple[list[int], list[int]]:
        k1, k2 = self.upper.shape
        return list(range(k1)), list(range(k1, k1 + k2))

    def _condition(self, x: Tensor, first: list[int], second: list[int]) -> tuple[Gaussian, LinearConditional]:
        loc, cov = self.posterior(x)
        head = Gaussian(loc[..., first], cov[first][:, first])
        weight = torch.linalg.solve(head.cov, cov[first][:, second]).T
        rest = cov[second][:, second] - weight @ cov[first][:, second]
        return head, LinearConditional(weight, loc[..., second] - head.loc @ weight.T, rest)


TWO_LAYER = TwoLayer(
    upper=torch.tensor([[0.8, -0.3], [0.2, 0.9]], dtype=torch.float64),
    lower=torch.tensor([[1, 0.5], [0, 1], [1, -1], [0.5, 0.5]], dtype=torch.float64),
    s1=torch.tensor(0.4, dtype=torch.float64),
    s2=torch.tensor(0.25, dtype=torch.float64),
)
