"""How far a direction lies from the mean direction: draws of 1 - w, w the cosine, and their gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlvm.distributions.bessel import log_bessel

TRIES = 40  # proposals at once, each accepted with a probability of 0.6 and more
REACH = 12.0  # standard deviations beyond which the density is nothing
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


def draw_below(kappa: Tensor, dim: int) -> Tensor:
    """Draws of 1 - w for w = loc . z, z von Mises-Fisher; they carry the gradient of kappa.

        p(w) ~ exp(kappa w) (1 - w^2)^((d-3)/2),   dw / dkappa = -(dF / dkappa) / p(w)

    By rejection: the first of ``TRIES`` proposals that is accepted, all drawn at once, so that a step can be captured;
    that none is has a probability below 1e-15. The gradient is implicit, with the derivative of the distribution
    function F by quadrature over the angle, on the side of w away from the mode.

    Returns:
        the shape of ``kappa``, between 0 and 2.

    Args:
        kappa: concentrations, positive.
        dim: d, at least 2.

    References:
        Simulation of the von Mises Fisher distribution, Wood, 1994.
        Implicit Reparameterization Gradients, Figurnov, Mohamed, Mnih, 2018, arXiv:1805.08498.
    """
    with torch.no_grad():
        below = _accepted(kappa.detach().double(), dim)
        slope = _slope(below, kappa.detach().double(), dim) if kappa.requires_grad else None
    found = below.to(kappa.dtype)
    return found if slope is None else found + slope.to(kappa.dtype) * (kappa - kappa.detach())


def _accepted(kappa: Tensor, dim: int) -> Tensor:
    """Draws of 1 - w by Wood's envelope, w = (1 - (1 + b) e) / (1 - (1 - b) e) with e of a symmetric beta density."""
    half = torch.full_like(kappa, (dim - 1) / 2)
    e = torch._sample_dirichlet(torch.stack([half, half], -1).unsqueeze(-2).expand(*kappa.shape, TRIES, 2))[..., 0]
    u = torch.rand(e.shape, dtype=e.dtype, device=e.device)
    k = kappa.unsqueeze(-1)
    b = (dim - 1) / (2 * k + (4 * k.square() + (dim - 1) ** 2).sqrt())
    below, away = 2 * b * e / (1 - (1 - b) * e), 2 * b / (1 + b)  # 1 - w, and 1 - x for the envelope's own cosine x
    log_ratio = ((away + (1 - away) * below) / (away * (2 - away))).log()
    accepted = k * (away - below) + (dim - 1) * log_ratio >= u.log()
    tries = torch.arange(TRIES, device=e.device)
    first = torch.where(accepted, tries, TRIES - 1).amin(-1, keepdim=True)
    return below.gather(-1, first).squeeze(-1).clamp(torch.finfo(e.dtype).tiny, 2.0)


def _slope(below: Tensor, kappa: Tensor, dim: int) -> Tensor:
    """d(1 - w) / dkappa where F(w) stays, by an integral of (cos t - A) p(t) / p(angle) from the angle outwards."""
    angle = 2 * (below / 2).sqrt().asin()
    mean = log_bessel(dim / 2 - 1, kappa)[1]
    outwards = _log_slope(angle, kappa, dim) < 0  # beyond the mode, the density falls towards pi
    room = torch.where(outwards, torch.pi - angle, angle)
    width = torch.minimum(room, REACH / (kappa + dim - 2).sqrt())
    signed = torch.where(outwards, width, -width).unsqueeze(-1)
    nodes, weights = (angle.new_tensor(part) for part in ((NODES + 1) / 2, WEIGHTS / 2))
    t, at = angle.unsqueeze(-1) + signed * nodes, angle.unsqueeze(-1)
    k = kappa.unsqueeze(-1)
    log_ratio = k * (t.cos() - at.cos()) + (dim - 2) * (_sine(t).log() - _sine(at).log())
    integral = ((t.cos() - mean.unsqueeze(-1)) * log_ratio.exp() * weights).sum(-1) * width
    return _sine(angle) * torch.where(outwards, integral, -integral)


def _log_slope(angle: Tensor, kappa: Tensor, dim: int) -> Tensor:
    """Of the density of the angle, exp(kappa cos t) sin(t)^(d-2)."""
    return -kappa * angle.sin() + (dim - 2) * angle.cos() / _sine(angle)


def _sine(angle: Tensor) -> Tensor:
    return angle.sin().clamp_min(torch.finfo(angle.dtype).tiny)
