"""How noise grows with time: the logarithm of the ratio of noise to signal, as a learned function of t."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, real

START, END = -8.0, 6.0


class LinearSchedule(nn.Module):
    """Log-SNR that falls on a straight line from t = 0 to t = 1, with learned ends.

        gamma(t) = -log SNR(t) = a + e^b t,   sigma^2 = sigmoid(gamma),   alpha^2 = sigmoid(-gamma)

    In continuous time a bound depends on the ends alone, whatever lies between them.

    Args:
        start, end: gamma at t = 0 and at t = 1, where training starts; noise of e^start and e^end times the signal's
            variance.

    Raises:
        ValueError: ``end`` is not above ``start``, or one is not finite.
        TypeError: one is no number.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.

    Example:
        >>> LinearSchedule(-8.0, 6.0)(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-8.0000, -1.0000,  6.0000], grad_fn=<AddBackward0>)
    """

    def __init__(self, start: float = START, end: float = END):
        super().__init__()
        real(start=start, end=end)
        if not (math.isfinite(start) and math.isfinite(end) and start < end):
            raise ValueError(f"start must be below end, both finite, got {start} and {end}; write {START} and {END}")
        self.start = nn.Parameter(torch.tensor(float(start)))
        self.log_range = nn.Parameter(torch.tensor(math.log(end - start)))

    def forward(self, t: Tensor) -> Tensor:
        """gamma at each time from 0 to 1, the shape of ``t``."""
        return self.start + self.log_range.exp() * t

    def moving(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For continuous time: gamma, d gamma / dt, and a 1, whose gradient is that of shares of time, here none."""
        slope = self.log_range.exp().expand_as(t)
        return self(t), slope, torch.ones_like(t)


class MonotoneSchedule(nn.Module):
    """Log-SNR that falls along a broken line, whose every piece has a learned share of the time.

        gamma(t) = a + e^b (k + (t - c_k) / m_k) / K   for c_k <= t < c_(k+1),   m = softmax(w),   c_k = sum_{j < k} m_j

    The line from start to end has K pieces of equal height; where noise is harder to tell, a piece takes more of the
    time. In discrete time the bound depends on the shares, and trains them. In continuous time it does not, but the
    variance of its estimate does: E_t [L(t)^2] is least in the shares where m_k is proportional to the root mean square
    of the integrand in piece k, and ``moving`` hands on a 1 by which this is lowered.

    Args:
        pieces: K.
        start, end: as for ``LinearSchedule``; training starts with the straight line.

    Raises:
        ValueError, TypeError: as for ``LinearSchedule``; ``pieces`` is no integer of at least 1.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.

    Example:
        >>> [round(g, 4) for g in MonotoneSchedule(4, -8.0, 6.0)(torch.tensor([0.0, 0.3, 1.0])).tolist()]
        [-8.0, -3.8, 6.0]
    """

    def __init__(self, pieces: int = 20, start: float = START, end: float = END):
        super().__init__()
        count(pieces=pieces)
        self.ends = LinearSchedule(start, end)
        self.logits = nn.Parameter(torch.zeros(pieces))

    def forward(self, t: Tensor) -> Tensor:
        """gamma at each time from 0 to 1, the shape of ``t``."""
        return self.ends(self._height(t, self.logits.softmax(-1))[0])

    def moving(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For continuous time: gamma, d gamma / dt, and a 1, whose gradient is that of d gamma / dt at fixed gamma."""
        shares = self.logits.softmax(-1)
        height, share = self._height(t, shares.detach())
        slope = self.ends.log_range.exp() / (len(shares) * share)
        k = (height.detach() * len(shares)).long().clamp(0, len(shares) - 1)
        return self.ends(height), slope, share / shares[k]

    def _height(self, t: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Where gamma is between start, 0, and end, 1; and the share of its piece."""
        edges = shares.cumsum(-1)
        k = torch.searchsorted(edges.detach(), t.detach().contiguous(), right=True).clamp(max=len(shares) - 1)
        share, begin = shares[k], edges[k] - shares[k]
        return (k + (t - begin) / share) / len(shares), share
