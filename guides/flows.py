"""Amortised guides with a flow at every continuous site, whose parameters come from the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from distributions import HouseholderNormal, OrthogonalBasis, PlanarNormal, RadialNormal, SylvesterNormal
from guides.amortized import Amortized
from guides.latents import Latent
from nets.numbers import count


class Planar(Amortized):
    """Amortised guide with a planar flow at every continuous site.

        q(z_j | Pa(z_j), h): z_j = step_T(... step_1(loc_j + scale_j * eps)),   step_t(y) = y + v_t tanh(w_t'y + b_t)

    Draws and their density cost one pass; any other value is inverted, by one scalar equation for each step.

    Args:
        depth: number of steps.
        others: see ``Amortized``.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, depth: int = 8, **settings):
        count(depth=depth)
        super().__init__(latents, encoder, partial(PlanarNormal, depth=depth), **settings)


class Radial(Amortized):
    """Amortised guide with a radial flow at every continuous site.

        q(z_j | Pa(z_j), h): z_j = step_T(... step_1(loc_j + scale_j * eps)),
        step_t(y) = y + beta_t (y - c_t) / (alpha_t + |y - c_t|)

    Any value is inverted in closed form.

    Args:
        depth: number of steps.
        others: see ``Amortized``.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, depth: int = 8, **settings):
        count(depth=depth)
        super().__init__(latents, encoder, partial(RadialNormal, depth=depth), **settings)


class Householder(Amortized):
    """Amortised guide with a Gaussian of turned axes at every continuous site.

        q(z_j | Pa(z_j), h) = N(z_j; Q_j loc_j, Q_j diag(scale_j^2) Q_j'),   Q_j = H_T ... H_1 a product of reflections

    Args:
        depth: number of reflections; one less than the site's dimension is enough for any covariance.
        others: see ``Amortized``.

    References:
        Improving Variational Auto-Encoders using Householder Flow, Tomczak, Welling, 2016, arXiv:1611.09630.
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, depth: int = 4, **settings):
        count(depth=depth)
        super().__init__(latents, encoder, partial(HouseholderNormal, depth=depth), **settings)


class Sylvester(Amortized):
    """Amortised guide with a Sylvester flow at every continuous site.

        q(z_j | Pa(z_j), h): z_j = step_T(... step_1(loc_j + scale_j * eps)),
        step_t(y) = y + Q_t R_t tanh(S_t Q_t'y + b_t)

    Draws and their density cost one pass; any other value is inverted, by as many scalar equations for each step, one
    after the other, as Q_t has columns.

    Args:
        depth: number of steps.
        basis: makes Q_t, see ``SylvesterNormal``: ``OrthogonalBasis``, ``HouseholderBasis``, ``PermutedBasis``.
        others: see ``Amortized``.

    References:
        Sylvester Normalizing Flows for Variational Inference, van den Berg, Hasenclever, Tomczak, Welling, 2018,
        arXiv:1803.05649.
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        depth: int = 4,
        basis: Callable[[int, int, int], nn.Module] = OrthogonalBasis,
        **settings,
    ):
        count(depth=depth)
        super().__init__(latents, encoder, partial(SylvesterNormal, depth=depth, basis=basis), **settings)
