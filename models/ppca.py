"""Probabilistic principal component analysis: the model whose every answer is known."""

from __future__ import annotations

from numbers import Real

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn


class PPCA(PyroModule):
    """A linear-Gaussian latent variable model.

        p(x, z) = N(z; 0, I) N(x; W z + loc, scale^2 I)

    Sites:
        z: shape (batch, z_dim), real; latent.
        x: shape (batch, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        weight: W, shape (x_dim, z_dim).
        loc: shape (x_dim,).
        scale: standard deviation of the noise, positive.

    Raises:
        ValueError: shapes do not fit, or ``scale`` is not a positive finite number.

    References:
        Probabilistic Principal Component Analysis, Tipping, Bishop, 1999.

    Example:
        >>> model = PPCA(torch.ones(3, 1), torch.zeros(3), 1.0)
        >>> model.log_px(torch.zeros(2, 3))
        tensor([-3.4500, -3.4500], grad_fn=<...>)
    """

    def __init__(self, weight: Tensor, loc: Tensor, scale: float | Tensor):
        super().__init__("model")
        for name, value in (("weight", weight), ("loc", loc)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                got = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{name} must be a tensor of floats, got {got}; write torch.as_tensor({name}).float()")
        if not isinstance(scale, (Tensor, Real)):
            raise TypeError(f"scale must be a number or a 0-d tensor, got {type(scale).__name__}; pass a float")
        scale = torch.as_tensor(scale, dtype=weight.dtype, device=weight.device)
        if weight.dim() != 2 or loc.shape != weight.shape[:1]:
            raise ValueError(
                f"weight must be (x_dim, z_dim) and loc (x_dim,), got {tuple(weight.shape)} and {tuple(loc.shape)}"
            )
        if scale.dim() or not (scale.isfinite() and scale > 0):
            raise ValueError(f"scale must be one positive finite number, got {scale}")
        self.weight = nn.Parameter(weight.detach().clone())
        self.loc = nn.Parameter(loc.detach().clone())
        self.log_scale = nn.Parameter(scale.detach().log())
        self.register_buffer("zero", torch.zeros_like(weight[0]))
        self.register_buffer("one", torch.ones_like(weight[0]))

    @property
    def scale(self) -> Tensor:
        """Standard deviation of the noise, a 0-d tensor."""
        return self.log_scale.exp()

    @classmethod
    def maximum_likelihood(cls, x: Tensor, z_dim: int) -> PPCA:
        """The model with the largest mean log p(x), in closed form, for data of shape (n, x_dim)."""
        if not (x.dim() == 2 and 0 < z_dim < x.shape[1] < len(x)):
            raise ValueError(f"x must be (n, x_dim) with 0 < z_dim < x_dim < n, got {tuple(x.shape)} and z_dim={z_dim}")
        values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
        noise = values[:-z_dim].mean()
        weight = vectors[:, -z_dim:] * (values[-z_dim:] - noise).clamp_min(0).sqrt()
        return cls(weight, x.mean(0), noise.sqrt())

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(self.zero, self.one).to_event(1))
            likelihood = dist.Normal(z @ self.weight.T + self.loc, self.scale)
            return pyro.sample("x", likelihood.to_event(1), obs=x)

    def log_px(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (batch,), for x of shape (batch, x_dim)."""
        noise = (self.scale**2).expand(len(self.loc))
        return dist.LowRankMultivariateNormal(self.loc, self.weight, noise).log_prob(x)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """Exact p(z | x), batch shape (batch,), for x of shape (batch, x_dim)."""
        precision = torch.diag(self.one) + self.weight.T @ self.weight / self.scale**2
        loc = torch.linalg.solve(precision, self.weight.T @ (x - self.loc).T / self.scale**2).T
        return dist.MultivariateNormal(loc, precision_matrix=precision.expand(len(x), -1, -1))
