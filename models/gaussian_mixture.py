"""The mixture of Gaussians, with covariances of four kinds."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import real


class GaussianMixture(Mixture):
    """A Gaussian for each component.

        p(x, z) = prod_k [weight_k N(x; loc_k, covariance_k)]^z_k,   z one-hot

    Its EM is that of scikit-learn, with the same ``reg_covar``: a number added to the variances at every M-step, so
    that a component on one datum stays a density. With 0, log p(x) never falls; with more, it may by about as much.

    Sites:
        z: shape (batch, components), one-hot; latent, marked to be summed out.
        x: shape (batch, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        components: how many.
        x_dim: number of observed variables.
        covariance: "full", "diagonal", "spherical" (one variance for all variables), or "tied" (full, and the same for
            all components).
        reg_covar: what an M-step adds to every variance, in units of x squared.

    Raises:
        TypeError, ValueError: a number is out of range, ``covariance`` no such word; see ``Mixture``.

    References:
        Pattern Recognition and Machine Learning, Bishop, 2006, section 9.2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(200, 2) + 4 * torch.randint(2, (200, 1))
        >>> model = GaussianMixture(2, 2).start_at(x)
        >>> model.log_px(x).shape, model.posterior(x).probs.shape
        (torch.Size([200]), torch.Size([200, 2]))
    """

    def __init__(self, components: int, x_dim: int, covariance: str = "full", reg_covar: float = 1e-6):
        super().__init__(components, x_dim)
        real(reg_covar=reg_covar)
        if not 0 <= reg_covar < math.inf:
            raise ValueError(f"reg_covar must be at least 0 and finite, got {reg_covar}; pass 1e-6, or 0 for none")
        if not isinstance(covariance, str) or covariance not in COVARIANCES:
            raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
        self.covariance, self.reg_covar, self.kind = covariance, float(reg_covar), COVARIANCES[covariance]
        self.loc = nn.Parameter(torch.randn(components, x_dim))
        self.scales = self.kind.make(1 if self.kind.shared else components, 1 if self.kind.isotropic else x_dim)

    def log_components(self, x: Tensor) -> Tensor:
        away = x - self.loc.unsqueeze(-2)  # (components, batch, x_dim)
        square = self.scales.whitened(away).square().sum(-1)
        log_det = 2 * self.scales.log_diagonal.expand(-1, self.x_dim).sum(-1, keepdim=True)
        return -0.5 * (square + log_det + self.x_dim * math.log(2 * math.pi)).mT

    def covariances(self) -> Tensor:
        """Of the components, shape (components, x_dim, x_dim)."""
        return self.scales.covariance(self.x_dim).expand(self.components, -1, -1)

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.loc, self.covariances().diagonal(dim1=-2, dim2=-1)

    def draw_of(self, index: Tensor) -> Tensor:
        noise = torch.randn(*index.shape, self.x_dim, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc[index] + self.scales.coloured(noise, index.clamp_max(len(self.scales.log_diagonal) - 1))

    def component_statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """Sums of how far data lie from the means, and of its squares: near a mean no digits are lost."""
        away = [x - loc for loc in self.loc]
        each = [self.scales.scatter(a, s) for a, s in zip(away, shares.T, strict=True)]
        scatter = sum(each[1:], each[0]).unsqueeze(0) if self.kind.shared else torch.stack(each)
        return {"away": torch.stack([s @ a for a, s in zip(away, shares.T, strict=True)]), "scatter": scatter}

    def maximise_components(self, statistics: dict[str, Tensor]) -> None:
        counts = statistics["counts"].unsqueeze(-1)
        step = statistics["away"] / counts
        moved = self.scales.squared(step) * counts.reshape(-1, *[1] * (statistics["scatter"].dim() - 1))
        if self.kind.shared:
            moved, counts = moved.sum(0, keepdim=True), counts.sum(0, keepdim=True)
        scatter = (statistics["scatter"] - moved) / counts.reshape(-1, *[1] * (moved.dim() - 1))
        scatter = scatter.mean(-1, keepdim=True) if self.kind.isotropic else scatter
        self.scales.become(self.scales.raised(scatter, self.reg_covar))
        self.loc.add_(step)

    def start_components(self, x: Tensor, chosen: Tensor) -> None:
        """Means at the chosen data, and the variances of all data."""
        self.loc.copy_(chosen)
        variance = x.var(0, correction=0) + self.reg_covar
        if not (variance > 0).all():
            raise ValueError(
                f"x is constant in {int((variance == 0).sum())} columns, where a Gaussian has no density; leave them "
                "out, or pass reg_covar=1e-6"
            )
        self.scales.start(variance.mean(-1, keepdim=True) if self.kind.isotropic else variance)


class Diagonal(nn.Module):
    """Standard deviations of a number of Gaussians, one for each of ``width`` variables, or for all if it is 1."""

    def __init__(self, number: int, width: int):
        super().__init__()
        self.log_diagonal = nn.Parameter(torch.zeros(number, width))

    def whitened(self, away: Tensor) -> Tensor:
        return away * (-self.log_diagonal).exp().unsqueeze(-2)

    def coloured(self, noise: Tensor, index: Tensor) -> Tensor:
        return noise * self.log_diagonal.exp()[index]

    def covariance(self, x_dim: int) -> Tensor:
        return torch.diag_embed((2 * self.log_diagonal).exp().expand(-1, x_dim))

    def scatter(self, away: Tensor, shares: Tensor) -> Tensor:
        return shares @ away.square()

    def squared(self, step: Tensor) -> Tensor:
        return step.square()

    def raised(self, variance: Tensor, by: float) -> Tensor:
        return variance + by

    def become(self, variance: Tensor) -> None:
        refuse_singular(~(variance > 0).all(-1))
        self.log_diagonal.copy_(variance.log() / 2)

    def start(self, variance: Tensor) -> None:
        self.log_diagonal.copy_(variance.log() / 2)


class Full(nn.Module):
    """Cholesky factors of the covariances of a number of Gaussians in ``x_dim`` dimensions."""

    def __init__(self, number: int, x_dim: int):
        super().__init__()
        self.log_diagonal = nn.Parameter(torch.zeros(number, x_dim))
        self.below = nn.Parameter(torch.zeros(number, x_dim, x_dim))  # what lies strictly below the diagonal counts

    @property
    def scale_tril(self) -> Tensor:
        return self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def whitened(self, away: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.scale_tril, away.mT, upper=False).mT

    def coloured(self, noise: Tensor, index: Tensor) -> Tensor:
        return (self.scale_tril[index] @ noise.unsqueeze(-1)).squeeze(-1)

    def covariance(self, x_dim: int) -> Tensor:
        return self.scale_tril @ self.scale_tril.mT

    def scatter(self, away: Tensor, shares: Tensor) -> Tensor:
        return (away * shares.unsqueeze(-1)).T @ away

    def squared(self, step: Tensor) -> Tensor:
        return step.unsqueeze(-1) * step.unsqueeze(-2)

    def raised(self, covariance: Tensor, by: float) -> Tensor:
        return covariance + by * torch.eye(covariance.shape[-1]).to(covariance)

    def become(self, covariance: Tensor) -> None:
        tril, failed = torch.linalg.cholesky_ex(covariance)
        refuse_singular(failed > 0)
        self.below.copy_(tril)
        self.log_diagonal.copy_(tril.diagonal(dim1=-2, dim2=-1).log())

    def start(self, variance: Tensor) -> None:
        self.below.zero_()
        self.log_diagonal.copy_(variance.log() / 2)


class Kind(NamedTuple):
    """How covariances are held, whether all components share one, and whether all variables do."""

    make: type[Diagonal] | type[Full]
    shared: bool = False
    isotropic: bool = False


COVARIANCES = {
    "full": Kind(Full),
    "diagonal": Kind(Diagonal),
    "tied": Kind(Full, shared=True),
    "spherical": Kind(Diagonal, isotropic=True),
}


def refuse_singular(singular: Tensor) -> None:
    """Refuses covariances without an inverse, told by (number,) bools."""
    if singular.any():
        raise ValueError(
            f"component {singular.nonzero()[0].item()} is left with data that vary in too few directions: its "
            "covariance is singular; pass reg_covar=1e-6 or more, covariance='diagonal' or 'tied', or fewer components"
        )
