"""The mixture of factor analysers: clusters, each with few directions of its own, and noise about them."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.categorical import OneHotDraws
from dlvm.models.arguments import fitting, size
from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import count, real


class FactorAnalysers(Mixture):
    """A linear map from a few factors for each component, and the same noise for all: p(x) is exact.

        p(x, y, z) = p(y) N(z; 0, I) N(x; W_y z + loc_y, diag(scale^2)),   y one-hot

    Given z, y can be summed out; with both summed out, x is a mixture of Gaussians with covariances W_k W_k^T +
    diag(scale^2).

    Sites:
        y: shape (batch, components), one-hot; latent, marked to be summed out.
        z: shape (batch, z_dim), real; latent.
        x: shape (batch, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        components: how many.
        x_dim: number of observed variables.
        z_dim: number of factors.
        least: below which no scale goes under EM, in units of x; a column that is constant gets it.

    Raises:
        TypeError, ValueError: a number is out of range; see ``Mixture``.

    References:
        The EM Algorithm for Mixtures of Factor Analyzers, Ghahramani, Hinton, 1996.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(100, 1) * torch.tensor([1.0, 2.0, -1.0]) + 0.1 * torch.randn(100, 3)
        >>> FactorAnalysers(2, 3, z_dim=1).start_at(x).log_px(x).shape
        torch.Size([100])
    """

    def __init__(self, components: int, x_dim: int, z_dim: int, least: float = 1e-3):
        super().__init__(components, x_dim)
        count(z_dim=z_dim)
        real(least=least)
        if not 0 < least < math.inf:
            raise ValueError(f"least must be positive and finite, got {least}; pass a small scale, as 1e-3")
        self.z_dim, self.least = z_dim, float(least)
        self.loc = nn.Parameter(torch.randn(components, x_dim))
        self.loading = nn.Parameter(torch.randn(components, x_dim, z_dim) / z_dim**0.5)
        self.log_scale = nn.Parameter(torch.zeros(x_dim))
        self.register_buffer("zero", torch.zeros(z_dim))
        self.register_buffer("one", torch.ones(z_dim))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            y = pyro.sample("y", OneHotDraws(logits=self.logits), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(self.zero, self.one).to_event(1))
            each = torch.einsum("...q,kdq->...kd", z, self.loading) + self.loc
            likelihood = dist.Normal((y.unsqueeze(-1) * each).sum(-2), self.log_scale.exp()).to_event(1)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The exact posterior as a program, p(y | x) p(z | x, y): every log-weight is log p(x)."""
        posterior = self.posterior(x)
        tril, explained = self._explained(x - self.loc.unsqueeze(1))
        inverse = torch.linalg.inv(tril)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", posterior)
            loc = (y.unsqueeze(-1) * (explained.mT @ inverse).transpose(0, 1)).sum(-2)
            precision = (y[..., None, None] * (tril @ tril.mT)).sum(-3)
            return y, pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))

    def log_components(self, x: Tensor) -> Tensor:
        away = x - self.loc.unsqueeze(-2)  # (components, batch, x_dim)
        tril, explained = self._explained(away)
        square = (away / self.log_scale.exp()).square().sum(-1) - explained.square().sum(-2)
        log_det = 2 * (tril.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True) + self.log_scale.sum())
        return -0.5 * (square + log_det + self.x_dim * math.log(2 * math.pi)).mT

    def _explained(self, away: Tensor) -> tuple[Tensor, Tensor]:
        """L with L L^T = I + W^T W / scale^2, the precision of z, and L^-1 W^T away / scale^2, for each component."""
        scaled = self.loading / self.log_scale.exp().unsqueeze(-1)
        tril = torch.linalg.cholesky(torch.diag(self.one) + scaled.mT @ scaled)
        seen = scaled.mT @ (away / self.log_scale.exp()).mT
        return tril, torch.linalg.solve_triangular(tril, seen, upper=False)

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.loc, self.loading.square().sum(-1) + (2 * self.log_scale).exp()

    def draw_of(self, index: Tensor) -> Tensor:
        z = torch.randn(*index.shape, self.z_dim, 1).to(self.loc)
        noise = torch.randn(*index.shape, self.x_dim).to(self.loc)
        return self.loc[index] + (self.loading[index] @ z).squeeze(-1) + noise * self.log_scale.exp()

    def component_statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """Moments of x and of (z, 1), as they are expected under each component, about its mean."""
        away = x - self.loc.unsqueeze(-2)
        tril, explained = self._explained(away)
        factors = torch.linalg.solve_triangular(tril.mT, explained, upper=True).mT
        factors = torch.cat([factors, torch.ones_like(factors[..., :1])], -1)  # (components, batch, z_dim + 1)
        weighed = factors * shares.T.unsqueeze(-1)
        spread = torch.nn.functional.pad(torch.cholesky_inverse(tril), (0, 1, 0, 1))
        return {
            "xz": away.mT @ weighed,
            "zz": weighed.mT @ factors + shares.sum(0)[:, None, None] * spread,
            "xx": torch.stack([share @ a.square() for share, a in zip(shares.T, away, strict=True)]),
        }

    def maximise_components(self, statistics: dict[str, Tensor]) -> None:
        moved = torch.linalg.solve(statistics["zz"], statistics["xz"].mT).mT
        left = (statistics["xx"] - (moved * statistics["xz"]).sum(-1)).sum(0) / statistics["counts"].sum()
        self.loading.copy_(moved[..., :-1])
        self.loc.add_(moved[..., -1])
        self.log_scale.copy_(left.clamp_min(self.least**2).log() / 2)

    def start_components(self, x: Tensor, chosen: Tensor) -> None:
        """Means at the chosen data, noise of the scales of all data, and random directions."""
        scale = x.std(0, correction=0).clamp_min(self.least)
        self.loc.copy_(chosen)
        self.log_scale.copy_(scale.log())
        self.loading.copy_(torch.randn(self.loading.shape).to(x) * scale.unsqueeze(-1) / self.z_dim**0.5)
