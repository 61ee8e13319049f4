"""Modified Bessel functions of the first kind, of any order and argument, on a logarithmic scale and differentiable."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from dlvm.nets.arguments import real

HIGH = 20.0  # orders from which on Debye's series has ten digits and more
TERMS = 6

Polynomial = dict[int, Fraction]  # {power: coefficient}


def log_bessel(order: float, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """log L and the ratio A of modified Bessel functions, in double precision.

        I_v(kappa) = (kappa / 2)^v / Gamma(v + 1) L(kappa),   L(0) = 1,   A(kappa) = I_{v+1}(kappa) / I_v(kappa)

    A is the derivative of log L. Debye's series, which holds for every argument, gives two high orders; the recurrence
    from there down, L_{v-1} = L_v + kappa^2 / (4 v (v + 1)) L_{v+1}, adds positive numbers only.

    Returns:
        log L(kappa) - kappa, which does not overflow, and A(kappa), of the shape of ``kappa``.

    Args:
        order: v, at least 0.
        kappa: positive.

    Raises:
        ValueError: ``order`` is negative or not finite.
        TypeError: ``order`` is no number, or ``kappa`` no tensor of floats.

    References:
        NIST Digital Library of Mathematical Functions, sections 10.29 and 10.41.

    Example:
        >>> log_l, a = log_bessel(0.5, torch.tensor(2.0))  # L = sinh(kappa) / kappa, A = coth(kappa) - 1 / kappa
        >>> round(log_l.item() + 2, 4), round(a.item(), 4)
        (0.5952, 0.5373)
    """
    real(order=order)
    if not 0 <= order < float("inf"):
        raise ValueError(f"order must be at least 0 and finite, got {order}; pass dim / 2 - 1")
    if not isinstance(kappa, Tensor) or not kappa.is_floating_point():
        got = kappa.dtype if isinstance(kappa, Tensor) else type(kappa).__name__
        raise TypeError(f"kappa must be a tensor of floats, got {got}; write torch.as_tensor(kappa).float()")
    kappa = kappa.double()
    steps = max(0, int(HIGH - order) + 1)
    v = order + steps
    log_l = _debye(v, kappa)
    ratio = (_debye(v + 1, kappa) - log_l).exp()  # L_{v+1} / L_v
    square = kappa.square()
    for _ in range(steps):
        grown = square / (4 * v * (v + 1)) * ratio
        log_l, ratio, v = log_l + grown.log1p(), 1 / (1 + grown), v - 1
    return log_l, kappa / (2 * (order + 1)) * ratio


def _debye(v: float, kappa: Tensor) -> Tensor:
    """log L_v(kappa) - kappa for a high order, by its uniform expansion."""
    s = kappa / v
    root = (1 + s.square()).sqrt()
    m = s.square() / (1 + root)  # root - 1
    series, at_zero = (_series(v, p) for p in (1 / root, torch.ones((), dtype=s.dtype, device=s.device)))
    return v * (1 / (root + s) - 1 - (m / 2).log1p()) - 0.5 * m.log1p() + series.log() - at_zero.log()


def _series(v: float, p: Tensor) -> Tensor:
    """sum_k u_k(p) / v^k, all powers of p at once."""
    merged: dict[int, float] = {}
    for k, u in enumerate(DEBYE):
        for power, c in u.items():
            merged[power] = merged.get(power, 0.0) + float(c) / v ** (k + 1)
    powers, factors = (p.new_tensor([*part]) for part in (merged, merged.values()))
    return 1 + (p.unsqueeze(-1) ** powers * factors).sum(-1)


def _debye_polynomials(count: int) -> list[Polynomial]:
    """u_1, u_2, ...: u_{k+1}(p) = p^2 (1 - p^2) u_k'(p) / 2 + int_0^p (1 - 5 t^2) u_k(t) dt / 8."""
    found, u = [], {0: Fraction(1)}
    for _ in range(count):
        new: Polynomial = {}
        for power, c in u.items():
            for to, factor in (
                (power + 1, Fraction(power, 2) + Fraction(1, 8 * (power + 1))),
                (power + 3, -Fraction(power, 2) - Fraction(5, 8 * (power + 3))),
            ):
                new[to] = new.get(to, Fraction(0)) + factor * c
        u = new
        found.append(u)
    return found


DEBYE = _debye_polynomials(TERMS)
