"""Amortised guides with one family at every continuous site."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn
from typing_extensions import Unpack

from dlvm.distributions import (
    DiagonalNormal,
    DiagonalStudentT,
    FullRankNormal,
    LowRankNormal,
    MixtureNormal,
    PointMass,
)
from dlvm.guides.amortized import Amortized, Settings
from dlvm.guides.sites.latents import Latent
from dlvm.nets.arguments import count, real


class Diagonal(Amortized):
    """Amortised guide with a diagonal Gaussian at every continuous site.

        q(z_j | Pa(z_j), h) = N(z_j; loc_j, diag(scale_j^2))

    Args, Raises: see ``Amortized``.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014, arXiv:1312.6114.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, **settings: Unpack[Settings]):
        super().__init__(latents, encoder, DiagonalNormal, **settings)


class FullRank(Amortized):
    """Amortised guide with a Gaussian of any covariance at every continuous site.

        q(z_j | Pa(z_j), h) = N(z_j; loc_j, L_j L_j^T)

    Args, Raises: see ``Amortized``.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.5.1, arXiv:1906.02691.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, **settings: Unpack[Settings]):
        super().__init__(latents, encoder, FullRankNormal, **settings)


class LowRank(Amortized):
    """Amortised guide with a Gaussian of low-rank correlations at every continuous site.

        q(z_j | Pa(z_j), h) = N(z_j; loc_j, S_j (I + V_j V_j^T) S_j),   V_j of shape (dim, rank)

    Args:
        rank: number of columns of V_j; one less than the site's dimension is enough for any covariance.
        others: see ``Amortized``.

    References:
        Gaussian Variational Approximation with a Factor Covariance Structure, Ong, Nott, Smith, 2018,
            arXiv:1701.03208.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, rank: int = 2, **settings: Unpack[Settings]):
        count(rank=rank)
        super().__init__(latents, encoder, partial(LowRankNormal, rank=rank), **settings)


class Mixture(Amortized):
    """Amortised guide with a mixture of diagonal Gaussians at every continuous site; its draws can be differentiated.

        q(z_j | Pa(z_j), h) = sum_k weight_jk N(z_j; loc_jk, diag(scale_jk^2))

    Args:
        components: how many Gaussians.
        others: see ``Amortized``.

    References:
        Implicit Reparameterization Gradients, Figurnov, Mohamed, Mnih, 2018, arXiv:1805.08498.
    """

    def __init__(
        self, latents: Mapping[str, Latent], encoder: nn.Module, components: int = 4, **settings: Unpack[Settings]
    ):
        count(components=components)
        super().__init__(latents, encoder, partial(MixtureNormal, components=components), **settings)


class StudentT(Amortized):
    """Amortised guide with independent Student-t variables at every continuous site.

        q(z_j | Pa(z_j), h) = prod_i t(z_ji; df_ji, loc_ji, scale_ji),   df_ji > 2

    Args:
        start: degrees of freedom near which training starts.
        others: see ``Amortized``.
    """

    def __init__(
        self, latents: Mapping[str, Latent], encoder: nn.Module, start: float = 32.0, **settings: Unpack[Settings]
    ):
        real(start=start)
        super().__init__(latents, encoder, partial(DiagonalStudentT, start=start), **settings)


class Point(Amortized):
    """Amortised guide with a point mass at every continuous site: the encoder of a plain autoencoder.

        q(z_j | Pa(z_j), h) = delta(z_j - loc_j)

    It has no entropy and no density, so that no objective that is a bound takes it, and ``evaluate`` gives no log p(x)
    by it: train by ``inference.Reconstruction()``.

    Args, Raises: see ``Amortized``.

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black, Schoelkopf, 2020,
            arXiv:1903.12436.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, **settings: Unpack[Settings]):
        super().__init__(latents, encoder, PointMass, **settings)
