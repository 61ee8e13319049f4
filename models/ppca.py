"""Probabilistic principal component analysis: the model whose every answer is known."""

from __future__ import annotations

import math
from numbers import Real

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import whole
from dlvm.nets.particle_linear import times


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
            if not value.isfinite().all():
                raise ValueError(f"{name} must be finite, got NaN or inf; look at what it was computed from")
        if loc.dtype != weight.dtype or loc.device != weight.device:
            raise ValueError(
                f"loc must be as weight is, {weight.dtype} on {weight.device}, got {loc.dtype} on {loc.device}; write "
                "loc.to(weight)"
            )
        if not isinstance(scale, (Tensor, Real)):
            raise TypeError(f"scale must be a number or a 0-d tensor, got {type(scale).__name__}; pass a float")
        scale = torch.as_tensor(scale, dtype=weight.dtype, device=weight.device)
        if weight.dim() != 2 or not weight.numel() or loc.shape != weight.shape[:1]:
            raise ValueError(
                f"weight must be (x_dim, z_dim) and loc (x_dim,), got {tuple(weight.shape)} and {tuple(loc.shape)}; "
                "write W as x = W z has it"
            )
        if scale.dim() or not (scale.isfinite() and scale > 0):
            raise ValueError(f"scale must be one positive finite number, got {scale}; pass a standard deviation")
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
        """The model with the largest mean log p(x), in closed form, for data of shape (n, x_dim).

        Raises:
            ValueError: ``z_dim`` is not within 1 and x_dim - 1, data are too few, or lie in z_dim directions.
            TypeError: x is no tensor of finite floats.
        """
        whole(z_dim=z_dim)
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.isfinite().all():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x must be a tensor of finite floats, got {got}; write torch.as_tensor(x).float()")
        if not (x.dim() == 2 and 0 < z_dim < x.shape[1] < len(x)):
            raise ValueError(
                f"x must be (n, x_dim) with 0 < z_dim < x_dim < n, got {tuple(x.shape)} and z_dim={z_dim}; "
                "give fewer latent dimensions or more data"
            )
        values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
        noise = values[:-z_dim].mean()
        if not noise > 0:
            raise ValueError(
                f"x must vary outside {z_dim} directions, got noise of variance {noise}; give a smaller z_dim"
            )
        weight = vectors[:, -z_dim:] * (values[-z_dim:] - noise).clamp_min(0).sqrt()
        return cls(weight, x.mean(0), noise.sqrt())

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            z = pyro.sample("z", dist.Normal(self.zero, self.one).to_event(1))
            likelihood = dist.Normal(times(self.weight, z) + self.loc, self.scale).to_event(1)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def log_px(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (batch,), for x of shape (batch, x_dim)."""
        q, r, away = self._solved(x)
        residual = (away - away @ q @ q.T) / self.scale
        x_dim, z_dim = self.weight.shape
        log_det = 2 * r.diagonal().abs().log().sum() + 2 * (x_dim - z_dim) * self.log_scale
        return -0.5 * (residual.square().sum(-1) + log_det + x_dim * math.log(2 * math.pi))

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """Exact p(z | x), batch shape (batch,), for x of shape (batch, x_dim)."""
        q, r, away = self._solved(x)
        inverse = torch.linalg.solve_triangular(r, torch.diag(self.one), upper=True)
        tril = self.scale * (inverse * r.diagonal().sign()).flip(0, 1)
        return dist.MultivariateNormal((away @ q @ inverse.T).flip(-1), scale_tril=tril.expand(len(x), -1, -1))

    @torch.no_grad()
    def expected_statistics(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The E-step on some data: log p(x) of each, shape (batch,), and sums over data that ``maximise`` takes.

        With x counted from ``loc`` and a = (z, 1) these are the sums of E[a a'], x E[a]' and |x|^2.
        """
        q = self.posterior(x)
        away = x - self.loc
        a = torch.nn.functional.pad(q.mean, (0, 1), value=1.0)
        square = a.T @ a
        square[:-1, :-1] += q.covariance_matrix.sum(0)
        return self.log_px(x), {"aa": square, "xa": away.T @ a, "xx": away.square().sum()}

    @torch.no_grad()
    def maximise(self, statistics: dict[str, Tensor]) -> None:
        """The M-step: the parameters of highest expected log p(x, z), given the statistics of all data.

            (W, loc) <- (sum x E[a]') (sum E[a a'])^-1,   scale^2 <- (sum |x|^2 - tr((W, loc) sum E[a] x')) / (n x_dim)

        Started at the mean of the data, these are the updates of Tipping and Bishop (1999, appendix B).

        Raises:
            ValueError: no noise is left, since the data lie in z_dim directions.
        """
        aa, xa, xx = (statistics[name] for name in ("aa", "xa", "xx"))
        found = torch.linalg.solve(aa, xa, left=False)
        noise = (xx - (found * xa).sum()) / (aa[-1, -1] * len(self.loc))
        if not noise > 0:
            raise ValueError(
                f"x must vary outside {self.weight.shape[1]} directions, got noise of variance {noise}; give a smaller "
                "z_dim, or more data"
            )
        self.weight.copy_(found[:, :-1])
        self.loc.add_(found[:, -1])
        self.log_scale.copy_(noise.log() / 2)

    def _solved(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, R and the rows of (x - loc, 0), which [W; scale I] z is to come near: no square of W, which loses digits.

        The columns of [W; scale I] = QR come in reverse: R's inverse in reverse is the lower factor of the posterior's
        covariance.
        """
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != len(self.loc) or x.dtype != self.loc.dtype:
            got = f"{tuple(x.shape)} and {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"x must have shape (batch, {len(self.loc)}) and be {self.loc.dtype}, got {got}; one datum is x[None]"
            )
        parameters = torch.cat([self.weight.flatten(), self.loc, self.scale.log().view(1)])
        for name, value in (("x", x), ("parameters", parameters)):
            if not value.isfinite().all():
                raise ValueError(f"{name} must be finite, got NaN or inf; look at where they come from")
        q, r = torch.linalg.qr(torch.cat([self.weight, self.scale * torch.diag(self.one)]).flip(-1))
        return q, r, torch.nn.functional.pad(x - self.loc, (0, len(self.one)))
