"""Flows of coupling steps, put together: over vectors, and over images by several scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from dlvm.distributions.flows.coupling import Coupling, Elementwise
from dlvm.distributions.flows.density import Composition
from dlvm.distributions.flows.image_coupling import ChannelCoupling, CheckerboardCoupling
from dlvm.distributions.flows.images import InvertibleConv, MultiScale, Squeeze, check_shape
from dlvm.distributions.flows.scaling import ActNorm
from dlvm.nets.arguments import count


def vector_flow(
    dim: int,
    depth: int = 8,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    bijection: Elementwise | None = None,
    actnorm: bool = False,
    activation: Callable[[], nn.Module] = nn.ELU,
) -> Composition:
    """Coupling steps over vectors, each second one keeping the other half.

        f = step_T . ... . step_1,   step_t changes one half of the numbers given the other

    Returns:
        a ``Composition`` of vectors of this width.

    Args:
        dim: numbers in a datum, 2 and more where there is no context.
        depth: how many couplings.
        hidden: hidden layers of their nets.
        context: width of the context that each of them is given; 0 for none.
        bijection: what they do to a number; see ``Coupling``.
        actnorm: put an ``ActNorm`` before each, which ``initialise`` starts from data.
        activation: nonlinearity of their nets.

    Raises:
        ValueError: ``depth`` is below 1; or as ``Coupling``.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> z, log_det = vector_flow(3)(torch.randn(5, 3))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    count(depth=depth)
    maps: list[nn.Module] = []
    for t in range(depth):
        maps += [ActNorm(dim)] if actnorm else []
        maps.append(Coupling(dim, context, bool(t % 2), bijection, hidden, activation))
    return Composition(*maps)


def image_flow(
    shape: Sequence[int],
    scales: int = 2,
    depth: int = 3,
    width: int = 32,
    blocks: int = 2,
    context: int = 0,
    actnorm: bool = False,
    mixing: bool = False,
    activation: Callable[[], nn.Module] = nn.ELU,
) -> MultiScale:
    """Coupling steps over images: at each scale over places, then over channels of half the size; the last over places.

        scale_s = depth channel couplings . squeeze . depth checkerboard couplings,   s < S
        scale_S = depth + 1 checkerboard couplings, over channels where a single place is left

    Returns:
        a ``MultiScale`` of flat images.

    Args:
        shape: (channels, height, width) of an image, the sides multiples of 2^(scales - 1).
        scales: S; after each but the last, half of the channels are done.
        depth: couplings of a kind at a scale.
        width: maps inside the couplings' nets.
        blocks: residual blocks of these.
        context: width of the context that each of them is given; 0 for none.
        actnorm: put an ``ActNorm`` before each coupling, which ``initialise`` starts from data.
        mixing: put an ``InvertibleConv`` before each coupling over channels.
        activation: nonlinearity of the nets.

    Raises:
        ValueError: the sides cannot be halved so often, or a number is below what it can be.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> z, log_det = image_flow((1, 8, 8), width=8)(torch.randn(5, 64))
        >>> z.shape, log_det.shape
        (torch.Size([5, 64]), torch.Size([5]))
    """
    count(scales=scales, depth=depth)
    check_shape(shape, scales)
    inside: dict[str, Any] = {"width": width, "blocks": blocks, "activation": activation}

    def over_places(maps: tuple[int, ...], times: int) -> Iterator[nn.Module]:
        for t in range(times):
            yield from [ActNorm(maps[0], behind=2)] if actnorm else []
            yield CheckerboardCoupling(maps, context, bool(t % 2), **inside)

    def over_channels(channels: int, times: int) -> Iterator[nn.Module]:
        for t in range(times):
            yield from [ActNorm(channels, behind=2)] if actnorm else []
            yield from [InvertibleConv(channels)] if mixing else []
            yield ChannelCoupling(channels, context, bool(t % 2), **inside)

    made: list[nn.Module] = []
    channels, height, wide = shape
    for _ in range(scales - 1):
        first = over_places((channels, height, wide), depth)
        made.append(Composition(*first, Squeeze(), *over_channels(4 * channels, depth)))
        channels, height, wide = 2 * channels, height // 2, wide // 2
    single = height == wide == 1
    last = over_channels(channels, depth + 1) if single else over_places((channels, height, wide), depth + 1)
    return MultiScale(shape, *made, Composition(*last))
