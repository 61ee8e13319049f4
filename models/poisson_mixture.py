"""The mixture of independent Poisson counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.likelihoods.poisson import PoissonCounts
from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import real


class PoissonMixture(Mixture):
    """A rate of each count for each component.

        p(x, z) = prod_k [weight_k prod_d Poisson(x_d; rate_kd)]^z_k,   z one-hot

    EM keeps rates at ``least`` or more, where it is still the maximum, so that log p(x) never falls and a count that
    was never seen has a density.

    Sites:
        z: shape (batch, components), one-hot; latent, marked to be summed out.
        x: shape (batch, x_dim), counts; observed, or drawn where ``x=None``.

    Args:
        components: how many.
        x_dim: number of observed counts.
        least: below which no rate goes.

    Raises:
        TypeError, ValueError: a number is out of range; see ``Mixture``.

    References:
        Finite Mixture Models, McLachlan, Peel, 2000, section 5.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.poisson(torch.tensor([[9.0, 1.0], [1.0, 5.0]]).repeat(50, 1))
        >>> PoissonMixture(2, 2).start_at(x).log_px(x).shape
        torch.Size([100])
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, components: int, x_dim: int, least: float = 1e-3):
        super().__init__(components, x_dim)
        real(least=least)
        if not 0 < least < math.inf:
            raise ValueError(f"least must be positive and finite, got {least}; it is a rate, as 1e-3")
        self.least = float(least)
        self.log_rates = nn.Parameter(torch.randn(components, x_dim) / 2)

    @property
    def rates(self) -> Tensor:
        """Of each count under each component, shape (components, x_dim)."""
        return self.log_rates.exp()

    def log_components(self, x: Tensor) -> Tensor:
        return PoissonCounts(self.rates, validate_args=False).log_prob(x.unsqueeze(-2)).sum(-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.rates, self.rates

    def draw_of(self, index: Tensor) -> Tensor:
        return torch.poisson(self.rates[index])

    def component_statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        return {"sums": shares.T @ x}

    def maximise_components(self, statistics: dict[str, Tensor]) -> None:
        rate = statistics["sums"] / statistics["counts"].unsqueeze(-1)
        self.log_rates.copy_(rate.clamp_min(self.least).log())

    def start_components(self, x: Tensor, chosen: Tensor) -> None:
        """Halfway between the mean of all data and the chosen ones."""
        self.log_rates.copy_(((x.mean(0) + chosen) / 2).clamp_min(self.least).log())
