"""The mixture of independent columns of classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from dlvm.distributions.likelihoods.classes import picked
from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import count, real


class CategoricalMixture(Mixture):
    """A probability of each class in each column, for each component: latent class analysis.

        p(x, z) = prod_k [weight_k prod_d probability_kd(x_d)]^z_k,   z one-hot, x_d in 0, ..., classes - 1

    EM keeps probabilities at ``least`` or more, where it is still the maximum, so that log p(x) never falls and data to
    come have a density. A sequence of tokens is one column: ``HiddenMarkov(CategoricalMixture(states, 1, classes))`` of
    ``tokens.unsqueeze(-1).float()``.

    Sites:
        z: shape (batch, components), one-hot; latent, marked to be summed out.
        x: shape (batch, x_dim), numbers of classes; observed, or drawn where ``x=None``.

    Args:
        components: how many.
        x_dim: number of observed columns.
        classes: how many each of them has.
        least: below which no probability goes.

    Raises:
        TypeError, ValueError: a number is out of range; see ``Mixture``.

    References:
        Latent Structure Analysis, Lazarsfeld, Henry, 1968.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randint(3, (100, 2)).float()
        >>> CategoricalMixture(2, 2, 3).start_at(x).log_px(x).shape
        torch.Size([100])
    """

    def __init__(self, components: int, x_dim: int, classes: int, least: float = 1e-4):
        super().__init__(components, x_dim)
        count(classes=classes)
        real(least=least)
        if not 0 < least < 1 / classes:
            raise ValueError(f"least must lie between 0 and 1 / classes = {1 / classes:.3g}, got {least}; pass 1e-4")
        self.classes, self.least = classes, float(least)
        self.support = constraints.independent(constraints.integer_interval(0, classes - 1), 1)
        self.class_logits = nn.Parameter(torch.randn(components, x_dim, classes) / 2)

    @property
    def probabilities(self) -> Tensor:
        """Of each class under each component, shape (components, x_dim, classes)."""
        return self.class_logits.softmax(-1)

    def log_components(self, x: Tensor) -> Tensor:
        return picked(self.class_logits, x.unsqueeze(-2)).sum(-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Of the numbers of classes, which say something where these are in order."""
        p, number = self.probabilities, torch.arange(self.classes).to(self.class_logits)
        mean = p @ number
        return mean, (p * (number - mean.unsqueeze(-1)).square()).sum(-1)

    def draw_of(self, index: Tensor) -> Tensor:
        p = self.probabilities[index]
        return p.reshape(-1, self.classes).multinomial(1).view(p.shape[:-1]).to(p.dtype)

    def component_statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        return {"classes": torch.einsum("nk,ndc->kdc", shares, self._one_hot(x))}

    def maximise_components(self, statistics: dict[str, Tensor]) -> None:
        share = statistics["classes"] / statistics["counts"].reshape(-1, 1, 1)
        self.class_logits.copy_(at_least(share, self.least).log())

    @torch.no_grad()
    def start_at(self, x: Tensor) -> CategoricalMixture:
        """Starts about the shares of classes in data, with noise: no distance says which classes lie far apart.

        Args:
            x: shape (n, x_dim), a sample of the data.

        Returns:
            the mixture itself.

        Raises:
            ValueError: as ``log_joint``.
        """
        self.log_joint(x)
        share = at_least(self._one_hot(x).mean(0), self.least)
        self.logits.zero_()
        self.class_logits.copy_(share.log() + torch.randn_like(self.class_logits) / 2)
        return self

    def _one_hot(self, x: Tensor) -> Tensor:
        return F.one_hot(x.long(), self.classes).to(self.class_logits.dtype)


def at_least(share: Tensor, least: float) -> Tensor:
    """The probabilities p >= least, summing to 1, with the highest sum of share log p, over the last dimension.

    Example:
        >>> at_least(torch.tensor([0.0, 0.2, 0.8]), 0.1)
        tensor([0.1000, 0.1800, 0.7200])
    """
    low = share < least
    while True:
        free = 1 - least * low.to(share.dtype).sum(-1, keepdim=True)
        scaled = share * free / torch.where(low, 0, share).sum(-1, keepdim=True)
        if not (more := ~low & (scaled < least)).any():
            return torch.where(low, least, scaled)
        low = low | more
