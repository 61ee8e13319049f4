"""Amortised guides with a flow of real-valued affine maps or of splines at every continuous site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from distributions import Autoregressive, Coupling, FlowNormal, RationalQuadratic
from guides.amortized import Amortized
from guides.expected import layers
from guides.latents import Latent
from nets.numbers import count

KINDS = {"coupling": Coupling, "autoregressive": Autoregressive}


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
        **settings,
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
        **settings,
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
