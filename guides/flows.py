"""Amortised guides with a flow at every continuous site, whose parameters come from the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn
from typing_extensions import Unpack

from dlvm.distributions import (
    Autoregressive,
    Coupling,
    FlowNormal,
    HouseholderNormal,
    InverseAutoregressiveNormal,
    OrthogonalBasis,
    PlanarNormal,
    RadialNormal,
    RationalQuadratic,
    SylvesterNormal,
)
from dlvm.guides.amortized import Amortized, Settings
from dlvm.guides.sites.arguments import layers
from dlvm.guides.sites.latents import Latent
from dlvm.nets.arguments import count, real

KINDS = {"coupling": Coupling, "autoregressive": Autoregressive}


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

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, depth: int = 8, **settings: Unpack[Settings]):
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

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, depth: int = 8, **settings: Unpack[Settings]):
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

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, depth: int = 4, **settings: Unpack[Settings]):
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
        **settings: Unpack[Settings],
    ):
        count(depth=depth)
        super().__init__(latents, encoder, partial(SylvesterNormal, depth=depth, basis=basis), **settings)


class RealNVP(Amortized):
    """Amortised guide with a flow of affine couplings at every continuous site; the features enter every step.

        q(z_j | Pa(z_j), h): z_j = loc_j + scale_j * step_T(... step_1(eps; h) ...; h),
        step(y) = (y_a, exp(s(y_a, h)) * y_b + t(y_a, h))

    Draws and their inverse both take one pass, whatever the dimension.

    Args:
        depth: number of steps.
        width: width of the hidden layer in a step, or a sequence of widths; () makes s and t linear.
        activation: makes the nonlinearity inside a step.
        others: see ``Amortized``.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        depth: int = 4,
        width: int | Sequence[int] = 64,
        activation: Callable[[], nn.Module] = nn.ELU,
        **settings: Unpack[Settings],
    ):
        count(depth=depth)
        step = partial(Coupling, hidden=layers(width), activation=activation)
        super().__init__(latents, encoder, partial(FlowNormal, step=step, depth=depth), **settings)


class NeuralSpline(Amortized):
    """Amortised guide with a flow of rational-quadratic splines at every continuous site; features enter every step.

        q(z_j | Pa(z_j), h): z_j = loc_j + scale_j * step_T(... step_1(eps; h) ...; h),
        coupling: step(y) = (y_a, f(y_b; y_a, h)),   autoregressive: step(y)_i = f(y_i; y_{<i}, h)

    A coupling is inverted in one pass, an autoregressive step in as many as the site has dimensions.

    Args:
        kind: "coupling" or "autoregressive".
        depth: number of steps.
        width: width of the hidden layer in a step, or a sequence of widths; unless told, 64 in a coupling; 128, or the
            site's dimension where that is larger, in an autoregressive step.
        bins: number of bins of a spline.
        bound: a spline changes numbers from -bound to bound; the noise it is given is standard.
        activation: makes the nonlinearity inside a step.
        others: see ``Amortized``.

    Raises:
        ValueError: ``kind``, ``bins`` or ``bound`` is not as described.

    References:
        Neural Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019, arXiv:1906.04032.
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        kind: str = "coupling",
        depth: int = 2,
        width: int | Sequence[int] | None = None,
        bins: int = 8,
        bound: float = 4.0,
        activation: Callable[[], nn.Module] = nn.ELU,
        **settings: Unpack[Settings],
    ):
        if kind not in tuple(KINDS):
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        count(depth=depth)
        spline, chosen = RationalQuadratic(bins, bound), None if width is None else layers(width)

        def family(net: nn.Module, dim: int) -> nn.Module:
            usual = 64 if kind == "coupling" else max(128, dim)
            hidden = (usual,) if chosen is None else chosen
            step = partial(KINDS[kind], bijection=spline, hidden=hidden, activation=activation)
            return FlowNormal(net, dim, step, depth)

        super().__init__(latents, encoder, family, **settings)


class IAF(Amortized):
    """Amortised guide with an inverse autoregressive flow at every continuous site; the features enter every step.

        q(z_j | Pa(z_j), h): z_j = step_T(... step_1(loc_j + scale_j * eps; h) ...; h)

    The features shift and scale the first layer of every step, see ``MADE`` with ``film``.

    Args:
        depth: number of steps.
        width: width of the hidden layer in a step, or a sequence of widths; () makes the steps linear in z; unless
            told, 128, or the site's dimension where that is larger.
        bias: added to the gates' logits.
        activation: makes the nonlinearity inside a step.
        others: see ``Amortized``.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        depth: int = 2,
        width: int | Sequence[int] | None = None,
        bias: float = 2.0,
        activation: Callable[[], nn.Module] = nn.ELU,
        **settings: Unpack[Settings],
    ):
        count(depth=depth)
        real(bias=bias)
        chosen = None if width is None else layers(width)

        def family(net: nn.Module, dim: int) -> nn.Module:
            hidden = (max(128, dim),) if chosen is None else chosen
            return InverseAutoregressiveNormal(net, dim, depth=depth, hidden=hidden, bias=bias, activation=activation)

        super().__init__(latents, encoder, family, **settings)
