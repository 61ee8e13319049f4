"""The four energies of Rezende and Mohamed on the plane: targets without data for any family of guides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from dlvm.guides import Latent

LATENTS = {"z": Latent(torch.Size([2]))}
HALF_WIDTHS = (14.0, 8.0)  # beyond lies less than 1e-11 of the mass
CONFINEMENT = 8.0
POINTS = torch.eye(4)
FLOOR = -math.log(4)  # mean log p(x) of no model is above it, since four distinct data share a mass of at most 1
CORNERS = 0.85 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


@dataclass(frozen=True)
class Target:
    """A density on the plane known up to its constant, as a Pyro program to be used as a model.

        p(z) = exp(-U(z) - [confined] z1^2 / 8) / Z

    Sites:
        z: shape (batch, 2), real; latent, under an improper uniform prior.
        energy: a factor, -U(z) - [confined] z1^2 / 8.

    Args:
        energy: U, maps (*batch, 2) to (*batch,).
        confined: whether z1^2 / 8 is added, without which an energy that does not grow with z1 has no Z.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> round(TARGETS["U2"].log_z(), 4), round(math.log(2 * math.pi * 2 * 0.4), 4)
        (1.6147, 1.6147)
    """

    energy: Callable[[Tensor], Tensor]
    confined: bool = True

    def __call__(self, x: Tensor) -> None:
        """Runs the program; x, shape (batch, anything), is a constant that says how many z there are."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ImproperUniform(constraints.real_vector, (), (2,)))
            pyro.factor("energy", self.log_density(z))

    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) + log Z; shape (*batch, 2) to (*batch,)."""
        return -self.energy(z) - (z[..., 0].square() / CONFINEMENT if self.confined else 0)

    def over(self, axis: Tensor) -> Tensor:
        """log p(z) + log Z over the square grid of an axis; shape (len(axis), len(axis)), z1 first."""
        return self.log_density(torch.cartesian_prod(axis, axis)).reshape(len(axis), len(axis))

    def log_z(self, half_widths: tuple[float, float] = HALF_WIDTHS, cell: float = 0.02) -> float:
        """log Z in nats, by Simpson's rule over |z1|, |z2| <= half_widths with cells of about that width."""
        z1, w1 = _simpson(half_widths[0], cell)
        z2, w2 = _simpson(half_widths[1], cell)
        heights = self.log_density(torch.cartesian_prod(z1, z2)).reshape(len(z1), len(z2))
        return (heights + w1.log()[:, None] + w2.log()).logsumexp((0, 1)).item()


def _simpson(half_width: float, cell: float) -> tuple[Tensor, Tensor]:
    """Points of [-half_width, half_width] and their weights."""
    points = torch.linspace(-half_width, half_width, 2 * math.ceil(half_width / cell) + 1, dtype=torch.float64)
    weights = torch.ones_like(points)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return points, weights * (points[1] - points[0]) / 3


def ring(z: Tensor) -> Tensor:
    """U1: a ring of radius 2, heavy at its left and at its right."""
    sides = torch.stack([z[..., 0] - 2, z[..., 0] + 2])
    return 0.5 * ((z.norm(dim=-1) - 2) / 0.4) ** 2 - (-0.5 * (sides / 0.6) ** 2).logsumexp(0)


def wave(z: Tensor) -> Tensor:
    """U2: a sine wave."""
    return 0.5 * (_above(z) / 0.4) ** 2


def bump(z: Tensor) -> Tensor:
    """U3: two waves that part about z1 = 1 and meet again."""
    apart = 3 * torch.exp(-0.5 * ((z[..., 0] - 1) / 0.6) ** 2)
    return _either(_above(z) / 0.35, (_above(z) + apart) / 0.35)


def fork(z: Tensor) -> Tensor:
    """U4: two waves that part at z1 = 1 and stay apart."""
    apart = 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)
    return _either(_above(z) / 0.4, (_above(z) + apart) / 0.35)


def _above(z: Tensor) -> Tensor:
    """How far z lies above the wave."""
    return z[..., 1] - torch.sin(math.pi / 2 * z[..., 0])


def _either(a: Tensor, b: Tensor) -> Tensor:
    return -torch.logaddexp(-0.5 * a.square(), -0.5 * b.square())


TARGETS = {"U1": Target(ring, confined=False), "U2": Target(wave), "U3": Target(bump), "U4": Target(fork)}


def diagonal_elbo(loc: Tensor, log_scale: Tensor, half_width: float = 5.0, points: int = 81) -> Tensor:
    """The mean ELBO of four diagonal Gaussians with the best of all decoders, by quadrature.

        p(x_j = 1 | z) = q_j(z) / sum_i q_i(z),   q_i = N(loc_i, diag(scale_i^2)),   prior N(0, I)

    Returns:
        0-d, nats per datum; differentiable.

    Args:
        loc, log_scale: shape (4, 2), one row a datum.
        half_width, points: of the grid along each axis.

    Example:
        >>> diagonal_elbo(CORNERS, torch.full((4, 2), math.log(0.5))).item()  # doctest: +ELLIPSIS
        -1.796...
    """
    axis = torch.linspace(-half_width, half_width, points, dtype=loc.dtype)
    z, cell = torch.cartesian_prod(axis, axis)[:, None], (axis[1] - axis[0]) ** 2
    normal = -0.5 * ((z - loc) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)
    log_q = normal.sum(-1)
    log_on = log_q.log_softmax(1)
    log_off = torch.log1p(-log_on.exp().clamp(max=1 - 1e-6))
    log_px = log_on - log_off + log_off.sum(1, keepdim=True)
    rate = 0.5 * (loc.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)
    return ((log_q.exp() * log_px).sum(0) * cell - rate).mean()


def best_diagonal(starts: int = 3, steps: int = 200) -> float:
    """The highest ELBO found over four diagonal Gaussians, each start drawn at random, nats per datum."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(starts):
        loc = torch.randn(4, 2, generator=generator).requires_grad_()
        log_scale = torch.full((4, 2), math.log(0.5), requires_grad=True)
        adam = torch.optim.Adam([loc, log_scale], lr=0.05)
        for _ in range(steps):
            adam.zero_grad()
            loss = -diagonal_elbo(loc, log_scale)
            loss.backward()
            adam.step()
        found.append(-loss.item())
    return max(found)
