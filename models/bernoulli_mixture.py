"""The mixture of independent Bernoulli variables."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import real


class BernoulliMixture(Mixture):
    """A probability of each binary variable for each component.

        p(x, z) = prod_k [weight_k prod_d Bernoulli(x_d; probability_kd)]^z_k,   z one-hot

    EM keeps probabilities between ``least`` and 1 - ``least``, where it is still the maximum, so that log p(x) never
    falls and data to come have a density.

    Sites:
        z: shape (batch, components), one-hot; latent, marked to be summed out.
        x: shape (batch, x_dim), binary; observed, or drawn where ``x=None``.

    Args:
        components: how many.
        x_dim: number of observed variables.
        least: below which no probability goes.

    Raises:
        TypeError, ValueError: a number is out of range; see ``Mixture``.

    References:
        Pattern Recognition and Machine Learning, Bishop, 2006, section 9.3.3.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.bernoulli(torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.2, 0.8]]).repeat(50, 1))
        >>> BernoulliMixture(2, 3).start_at(x).log_px(x).shape
        torch.Size([100])
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, components: int, x_dim: int, least: float = 1e-3):
        super().__init__(components, x_dim)
        real(least=least)
        if not 0 < least < 0.5:
            raise ValueError(f"least must lie between 0 and 1/2, got {least}; it is a probability, as 1e-3")
        self.least = float(least)
        self.pixel_logits = nn.Parameter(torch.randn(components, x_dim) / 2)

    @property
    def probabilities(self) -> Tensor:
        """Of each variable under each component, shape (components, x_dim)."""
        return self.pixel_logits.sigmoid()

    def log_components(self, x: Tensor) -> Tensor:
        return x @ self.pixel_logits.T - F.softplus(self.pixel_logits).sum(-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        p = self.probabilities
        return p, p * (1 - p)

    def draw_of(self, index: Tensor) -> Tensor:
        return torch.bernoulli(self.probabilities[index])

    def component_statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        return {"ones": shares.T @ x}

    def maximise_components(self, statistics: dict[str, Tensor]) -> None:
        share = statistics["ones"] / statistics["counts"].unsqueeze(-1)
        self.pixel_logits.copy_(share.clamp(self.least, 1 - self.least).logit())

    def start_components(self, x: Tensor, chosen: Tensor) -> None:
        """Halfway between the mean of all data and the chosen ones."""
        self.pixel_logits.copy_(((x.mean(0) + chosen) / 2).clamp(self.least, 1 - self.least).logit())
