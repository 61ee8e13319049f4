"""Exact answers in plain torch: Gaussians, sums and grids; nothing here knows of the laboratory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from programs.brought import noise


def decoder(z_dim: int = 1, x_dim: int = 3, seed: int = 0, size: float = 1.0) -> nn.Linear:
    """A linear map with orthogonal columns, under which latents are independent of each other given x."""
    net = nn.Linear(z_dim, x_dim)
    with torch.no_grad():
        columns = torch.linalg.qr(noise(x_dim, z_dim, seed=seed)).Q
        net.weight.copy_(columns * size * (1 + torch.arange(z_dim) / z_dim))
        net.bias.copy_(0.3 * noise(x_dim, seed=seed + 1))
    return net


def encoder(net: nn.Linear, sd: float = 1.0) -> nn.Linear:
    """x -> location and log-scale of p(z | x) for z ~ N(0, I), x ~ N(net(z), sd^2 I), columns being orthogonal."""
    found = nn.Linear(net.out_features, 2 * net.in_features)
    with torch.no_grad():
        precision = 1 + net.weight.square().sum(0) / sd**2
        loc = net.weight.T / sd**2 / precision[:, None]
        found.weight.copy_(torch.cat([loc, torch.zeros_like(loc)]))
        found.bias.copy_(torch.cat([-loc @ net.bias, -0.5 * precision.log()]))
    return found


def linear_gaussian(net: nn.Linear, x: Tensor, sd: float = 1.0) -> Tensor:
    """log N(x; b, W W^T + sd^2 I), one per row."""
    w, b = net.weight.detach().double(), net.bias.detach().double()
    return gaussian(x, b, w @ w.T + sd**2 * torch.eye(len(b)).double())


def gaussian(x: Tensor, loc: Tensor | float, cov: Tensor) -> Tensor:
    """log N(x; loc, cov), one per row."""
    loc = torch.as_tensor(loc, dtype=torch.float64).expand(cov.shape[0])
    return MultivariateNormal(loc, cov.double()).log_prob(x.detach().double())


def chain_covariance(steps: int, a: float, sd: float) -> Tensor:
    """Of x_1 .. x_T for z_1 ~ N(0, 1), z_t ~ N(a z_{t-1}, 1), x_t ~ N(z_t, sd^2)."""
    lower = torch.tensor([[a ** (i - j) if j <= i else 0.0 for j in range(steps)] for i in range(steps)])
    return (lower @ lower.T + sd**2 * torch.eye(steps)).double()


def chains(x: Tensor, lengths: list[int], a: float = 0.8, sd: float = 0.5) -> Tensor:
    """log p of the first steps of each row, so many as ``lengths`` says, one per row."""
    return torch.stack([gaussian(row[:n], 0.0, chain_covariance(n, a, sd)) for row, n in zip(x, lengths, strict=True)])


class Smoother(nn.Module):
    """What later steps say of z_t in such a chain: precision and its product with the mean, from the end backwards."""

    def __init__(self, a: float = 0.8, sd: float = 0.5):
        super().__init__()
        self.a, self.log_sd = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(sd).log())

    def forward(self, x: Tensor, seen: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[(precision, shift)] of every step; x and ``seen`` of shape (batch, T)."""
        found, (precision, shift) = [], (torch.zeros_like(x[:, 0]),) * 2
        for t in reversed(range(x.shape[1])):
            kept = self.a / (1 + precision)
            each = seen[:, t].to(x.dtype) / (2 * self.log_sd).exp()
            precision, shift = each + self.a * kept * precision, each * x[:, t] + kept * shift
            found.insert(0, (precision, shift))
        return found

    def q(self, message: tuple[Tensor, Tensor], before: Tensor | float) -> tuple[Tensor, Tensor]:
        """Location and scale of z_t given the step before and all later data."""
        precision, shift = message
        return (self.a * before + shift) / (1 + precision), (1 + precision).rsqrt()


def on_line(log_joint: Callable[[Tensor], Tensor], low: float = -9.0, high: float = 9.0, points: int = 801) -> Tensor:
    """log of the integral over u of exp log_joint(u), (points,) -> (points, n), by the trapezoid rule; shape (n,)."""
    u = torch.linspace(low, high, points, dtype=torch.float64)
    return log_joint(u).logsumexp(0) + math.log(u[1] - u[0])


def on_plane(log_joint: Callable[[Tensor, Tensor], Tensor], reach: float = 7.0, points: int = 121) -> Tensor:
    """The same over two dimensions, (points^2,), (points^2,) -> (points^2, n)."""
    u = torch.linspace(-reach, reach, points, dtype=torch.float64)
    return log_joint(*torch.cartesian_prod(u, u).T).logsumexp(0) + 2 * math.log(u[1] - u[0])


def standard(u: Tensor) -> Tensor:
    """log N(u; 0, 1)."""
    return Normal(0.0, 1.0).log_prob(u)


class Features(nn.Module):
    """An encoder for guides built from latents: features of whatever the arguments are turned to, (batch, width)."""

    def __init__(self, width: int, of: Callable[..., Tensor] = lambda x, *others: x, out: int = 8):
        super().__init__()
        self.net, self.of, self.out_features = nn.Sequential(nn.Linear(width, out), nn.Tanh()), of, out

    def forward(self, *args):
        return self.net(self.of(*args).to(self.net[0].weight.dtype))
