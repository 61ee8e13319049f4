"""A Gaussian of any covariance that scores its own draws by the noise they were made from."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class SelfScoredNormal(dist.MultivariateNormal):
    """N(loc, L L^T) in which log q of the last draw needs no triangular solve.

        z = loc + L eps,   log q(z) = sum_i [ log N(eps_i; 0, 1) - log L_ii ]

    The solve costs more than the draw, and in single precision its error grows exponentially with the dimension.
    Any other value is scored as usual: for the gradient of log q with respect to z itself, score ``z.clone()``.

    Example:
        >>> q = SelfScoredNormal(torch.zeros(2), scale_tril=torch.eye(2))
        >>> z = q.rsample()
        >>> bool(torch.isclose(q.log_prob(z), q.log_prob(z.clone())))
        True
    """

    _draw: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        z = self.loc + (self._unbroadcasted_scale_tril @ eps.unsqueeze(-1)).squeeze(-1)
        self._draw = z, eps
        return z

    def expand(self, batch_shape: torch.Size, _instance=None) -> SelfScoredNormal:
        return super().expand(batch_shape, self._get_checked_instance(SelfScoredNormal, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        # A value drawn by sample() carries no graph: only the usual formula has the parameters' whole gradient.
        own = self._draw is not None and self._draw[0] is value
        if not own or (torch.is_grad_enabled() and not value.requires_grad):
            return super().log_prob(value)
        log_diagonal = self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log()
        return -(0.5 * self._draw[1].square() + HALF_LOG_TWO_PI + log_diagonal).sum(-1)
