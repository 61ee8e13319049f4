"""The four energies of Rezende & Mohamed 2015 on the plane, p(z) = exp(-U(z)) / Z, with their log Z.

U2, U3 and U4 do not decay in z1: they are normalised over the box [-4, 4]^2 (`LOG_Z_BOX`), or confined by
adding z1^2 / 8 (`LOG_Z_CONFINED`, on the same box).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def u1(z: Tensor) -> Tensor:
    """A ring of radius two, heavier at its left and right."""
    ring = 0.5 * ((z.norm(dim=-1) - 2) / 0.4) ** 2
    return ring + _soft_min(0.5 * ((z[..., 0] - 2) / 0.6) ** 2, 0.5 * ((z[..., 0] + 2) / 0.6) ** 2)


def u2(z: Tensor) -> Tensor:
    """One sine wave."""
    return 0.5 * ((z[..., 1] - _wave(z)) / 0.4) ** 2


def u3(z: Tensor) -> Tensor:
    """Two waves that part around z1 = 1 and meet again."""
    offset = z[..., 1] - _wave(z)
    bump = 3 * torch.exp(-0.5 * ((z[..., 0] - 1) / 0.6) ** 2)
    return _soft_min(0.5 * (offset / 0.35) ** 2, 0.5 * ((offset + bump) / 0.35) ** 2)


def u4(z: Tensor) -> Tensor:
    """Two waves that part at z1 = 1 and stay apart."""
    offset = z[..., 1] - _wave(z)
    step = 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)
    return _soft_min(0.5 * (offset / 0.4) ** 2, 0.5 * ((offset + step) / 0.35) ** 2)


ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {"U1": u1, "U2": u2, "U3": u3, "U4": u4}
LOG_Z_BOX = {"U1": 1.877502, "U2": 2.082089, "U3": 2.641705, "U4": 2.684568}
LOG_Z_CONFINED = {"U1": 1.481310, "U2": 1.568166, "U3": 2.127781, "U4": 2.182551}


def log_z_simpson(
    energy: Callable[[Tensor], Tensor], confined: bool = False, half_width: float = 4.0, points: int = 801
) -> Tensor:
    """log int exp(-U) over the box by Simpson's rule, scalar; `points` is odd."""
    if points % 2 == 0:
        raise ValueError(f"points={points}: Simpson's rule needs an odd number; use {points + 1}")
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    weights = torch.ones(points, dtype=torch.float64)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    log_weights = (weights * (axis[1] - axis[0]) / 3).log()
    z = torch.cartesian_prod(axis, axis)
    log_p = -energy(z) - (z[:, 0] ** 2 / 8 if confined else 0)
    return (log_p + torch.cartesian_prod(log_weights, log_weights).sum(-1)).logsumexp(0)


def _wave(z: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * z[..., 0] / 4)


def _soft_min(a: Tensor, b: Tensor) -> Tensor:
    return -torch.logaddexp(-a, -b)
