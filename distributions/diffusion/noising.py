"""Data that are given noise: q(z_t | x), q(z_s | z_t, x), and what z_0 says of x."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from dlvm.distributions.bernoulli import IndependentBernoulli
from dlvm.distributions.likelihoods.greys import GreyCategories, checked_levels
from dlvm.distributions.likelihoods.location_scale import Units
from dlvm.nets.arguments import count, module


class Noising(nn.Module):
    """The Gaussian diffusion of data, which has every conditional in closed form; times run from 0 to 1.

        q(z_t | x) = N(alpha_t u, sigma_t^2),   u = (x - loc) / scale,   alpha_t^2 = 1 - sigma_t^2 = sigmoid(-gamma(t))
        q(z_s | z_t, x) = N((alpha_t / alpha_s) (sigma_s^2 / sigma_t^2) z_t + alpha_s r u, sigma_s^2 r),   s < t,
        r = 1 - e^(gamma(s) - gamma(t))
        p(x | z_0) prop. q(z_0 | x) over the values that x can have

    Model and guide of a diffusion hold the same one, whose only parameters are those of the schedule.

    Args:
        schedule: t -> gamma, as ``LinearSchedule``.
        dim: numbers of a datum.
        levels: how many grey levels x has, 2 for bits; None for real numbers.
        units: of the data; for levels from -1 to 1, and as they are for real numbers, unless told.

    Raises:
        ValueError: ``dim`` is below 1, ``levels`` below 2, or units are of another number of columns.
        TypeError: ``schedule`` is no module.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.

    Example:
        >>> from dlvm.distributions import LinearSchedule
        >>> Noising(LinearSchedule(), 3)(torch.zeros(5, 3), torch.tensor(0.5)).batch_shape
        torch.Size([5])
    """

    def __init__(self, schedule: nn.Module, dim: int, levels: int | None = None, units: Units | None = None):
        super().__init__()
        module(schedule=schedule)
        count(dim=dim)
        self.schedule, self.dim = schedule, dim
        self.levels = None if levels is None else checked_levels(levels)
        loc, scale = (0.0, 1.0) if levels is None else (0.5, 0.5)
        units = Units(torch.full((dim,), loc), torch.full((dim,), scale)) if units is None else units
        if not isinstance(units, Units) or len(units.loc) != dim:
            got = f"units of {len(units.loc)}" if isinstance(units, Units) else type(units).__name__
            raise ValueError(f"units must be Units of dim={dim} columns, got {got}; pass Units(x.mean(0), x.std(0))")
        self.units: Units = units

    def extra_repr(self) -> str:
        return f"dim={self.dim}, levels={self.levels}"

    def rows(self, x: Tensor | None) -> Tensor:
        """The data as floats; refuses what are none, or of another width."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor, got {type(x).__name__}: noise is added to data, shape (batch, dim)")
        if x.dim() != 2 or x.shape[1] != self.dim or not len(x):
            raise ValueError(f"x must have shape (batch, {self.dim}) and a row at least, got {tuple(x.shape)}")
        return x.to(self.units.loc.dtype)

    def signal(self, x: Tensor) -> Tensor:
        """u, shape (*batch, dim)."""
        return (x - self.units.loc) / self.units.scale

    def forward(self, x: Tensor, t: Tensor) -> TorchDistribution:
        """q(z_t | x), for x of shape (*batch, dim) and times (*batch) or ()."""
        return self.at(x, self.schedule(t))

    def at(self, x: Tensor, gamma: Tensor) -> TorchDistribution:
        """The same by gamma(t)."""
        alpha, sigma = alpha_and_sigma(gamma)
        return dist.Normal(alpha * self.signal(x), sigma).to_event(1)

    def between(self, u: Tensor, z: Tensor, below: Tensor, above: Tensor) -> TorchDistribution:
        """q(z_s | z_t, u), for u and z_t of shape (*batch, dim), and gamma(s) < gamma(t), each (*batch) or ()."""
        (alpha_s, sigma_s), (alpha_t, sigma_t) = alpha_and_sigma(below), alpha_and_sigma(above)
        r = -torch.expm1(below - above).unsqueeze(-1)
        loc = (alpha_t / alpha_s) * (sigma_s / sigma_t).square() * z + alpha_s * r * u
        return dist.Normal(loc, sigma_s * r.sqrt()).to_event(1)

    def rate(self, t: Tensor, layers: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of the layer that t lies in: gamma at its top, and what the squared error of the noise is multiplied by.

        Returns:
            gamma, the factor, and a 1 by whose gradient the schedule lowers the variance; shape (*batch) each.

        Args:
            t: times, shape (*batch).
            layers: how many there are; None for infinitely many.
        """
        if layers is None:
            moving = getattr(self.schedule, "moving", None)
            if moving is None:
                raise ValueError("schedule must have moving(t) for infinitely many layers; pass a LinearSchedule")
            gamma, slope, steady = moving(t)
            return gamma, 0.5 * slope, steady
        above = (t * layers).ceil().clamp(min=1)
        gamma = self.schedule(above / layers)
        return gamma, 0.5 * layers * torch.expm1(gamma - self.schedule((above - 1) / layers)), torch.ones_like(t)

    def prior_kl(self, x: Tensor) -> Tensor:
        """KL(q(z_1 | x) || N(0, I)), shape (*batch), nats."""
        alpha, sigma = alpha_and_sigma(self.schedule(self.units.loc.new_ones(())))
        mean = alpha * self.signal(x)
        return 0.5 * (mean.square() + sigma.square() - 1 - 2 * sigma.log()).sum(-1)

    def likelihood(self, z: Tensor) -> TorchDistribution:
        """p(x | z_0), shape (*batch, dim) -> over events (dim,)."""
        alpha, sigma = alpha_and_sigma(self.schedule(self.units.loc.new_zeros(())))
        if self.levels is None:
            return dist.Normal(*self.units(z / alpha, (sigma / alpha).expand_as(z))).to_event(1)
        levels = torch.arange(self.levels, dtype=z.dtype, device=z.device) / (self.levels - 1)
        u = (levels - self.units.loc.unsqueeze(-1)) / self.units.scale.unsqueeze(-1)
        logits = (alpha / sigma.square()) * (u * z.unsqueeze(-1) - 0.5 * alpha * u.square())
        if self.levels == 2:
            return IndependentBernoulli(logits[..., 1] - logits[..., 0])
        return dist.Independent(GreyCategories(logits), 1)


def alpha_and_sigma(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """The share of signal and that of noise, shape (*batch, 1) each.

    Example:
        >>> alpha, sigma = alpha_and_sigma(torch.zeros(5))
        >>> alpha.shape, torch.allclose(alpha.square() + sigma.square(), torch.ones(5, 1))
        (torch.Size([5, 1]), True)
    """
    return torch.sigmoid(-gamma).sqrt().unsqueeze(-1), torch.sigmoid(gamma).sqrt().unsqueeze(-1)
