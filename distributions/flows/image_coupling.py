"""Coupling steps on images: some places, or some channels, decide by a convolutional net what happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlvm.distributions.flows.coupling import Affine, Elementwise, check_context, elementwise
from dlvm.nets import Maps, ResidualBlock
from dlvm.nets.arguments import count, whole, widths


class MapConditioner(nn.Module):
    """From maps and a context to the parameters of elementwise maps, at each place; near 0 at the start.

        out = W_2 * activation(blocks(W_1 * maps + U h + b)) + c

    Args:
        channels: of the maps.
        context: width of h; 0 for none.
        outputs: parameters at each place.
        width: maps inside.
        blocks: how many residual blocks.
        activation: makes the nonlinearity.
    """

    def __init__(
        self,
        channels: int,
        context: int,
        outputs: int,
        width: int,
        blocks: int,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        count(width=width)
        whole(blocks=blocks)
        check_context(context)
        if blocks < 0:
            raise ValueError(f"blocks must be at least 0, got {blocks}; pass 2")
        self.first = Maps(nn.Conv2d(channels, width, kernel_size=3, padding=1))
        self.context = nn.Linear(context, width, bias=False) if context else None
        inside = [ResidualBlock(width, activation) for _ in range(blocks)]
        last = nn.Conv2d(width, outputs, kernel_size=3, padding=1)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(0.01)
        self.rest = Maps(*inside, activation(), last)

    def forward(self, maps: Tensor, h: Tensor | None = None) -> Tensor:
        if (h is None) != (self.context is None):
            raise ValueError("h must be given exactly where the step was made with context > 0; give or omit both")
        out = self.first(maps)
        return self.rest(out if h is None or self.context is None else out + self.context(h)[..., None, None])


class ChannelCoupling(nn.Module):
    """One step: the first half of the channels stays, and decides with the context what happens to the others.

        z_a = y_a,   z_b = f(y_b; conditioner(y_a, h)),   log |det dz/dy| = sum_b log f'

    Args:
        channels: number of channels, 2 and more.
        context: width of the context h; 0 for none.
        reverse: the last half stays.
        bijection: f, as for ``Coupling``; ``Affine()`` unless told.
        width: maps inside the conditioner.
        blocks: residual blocks of the conditioner.
        activation: makes the conditioner's nonlinearity.

    Raises:
        ValueError: ``channels`` is below 2, another number below what it can be; when called, maps have other channels.
        TypeError: a number is no integer, or ``bijection`` no such map.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.

    Example:
        >>> z, log_det = ChannelCoupling(4, 0, width=8)(torch.randn(5, 4, 6, 6))
        >>> z.shape, log_det.shape
        (torch.Size([5, 4, 6, 6]), torch.Size([5]))
    """

    def __init__(
        self,
        channels: int,
        context: int = 0,
        reverse: bool = False,
        bijection: Elementwise | None = None,
        width: int = 32,
        blocks: int = 2,
        activation: Callable[[], nn.Module] = nn.ELU,
    ):
        super().__init__()
        count(channels=channels)
        if channels < 2:
            raise ValueError("channels must be at least 2, got 1; use a CheckerboardCoupling, or a Squeeze before")
        self.bijection = Affine() if bijection is None else elementwise(bijection)
        self.channels, self.reverse, self.kept = channels, reverse, channels // 2
        outputs = (channels - self.kept) * self.bijection.size
        self.conditioner = MapConditioner(self.kept, context, outputs, width, blocks, activation)

    def forward(self, y: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, others = self._split(y)
        others, log_slopes = self.bijection(others, self._conditions(kept, h))
        return self._joined(kept, others), log_slopes.sum((-3, -2, -1))

    def inverse(self, z: Tensor, h: Tensor | None = None) -> Tensor:
        kept, others = self._split(z)
        return self._joined(kept, self.bijection.inverse(others, self._conditions(kept, h)))

    def _conditions(self, kept: Tensor, h: Tensor | None) -> Tensor:
        return by_place(self.conditioner(kept, h), self.bijection.size)

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        check_maps(y, (self.channels,))
        sizes = [self.kept, self.channels - self.kept]
        first, last = y.split(sizes[::-1] if self.reverse else sizes, dim=-3)
        return (last, first) if self.reverse else (first, last)

    def _joined(self, kept: Tensor, others: Tensor) -> Tensor:
        kept = kept.expand(*others.shape[:-3], *kept.shape[-3:])
        return torch.cat([others, kept] if self.reverse else [kept, others], dim=-3)


class CheckerboardCoupling(nn.Module):
    """One step: the white places of a board stay, and decide with the context what happens to the black ones.

        z = y at white places,   z = f(y; conditioner(white places of y, h)) at black ones

    Args:
        shape: (channels, height, width) of the maps, of two places at least.
        context, bijection, width, blocks, activation: as for ``ChannelCoupling``.
        reverse: the black places stay.

    Raises:
        ValueError: ``shape`` is none, or has a single place; a number is below what it can be; when called, maps have
            another shape.
        TypeError: a number is no integer, or ``bijection`` no such map.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.

    Example:
        >>> z, log_det = CheckerboardCoupling((1, 5, 5), width=8)(torch.randn(7, 1, 5, 5))
        >>> z.shape, log_det.shape
        (torch.Size([7, 1, 5, 5]), torch.Size([7]))
    """

    stays: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        context: int = 0,
        reverse: bool = False,
        bijection: Elementwise | None = None,
        width: int = 32,
        blocks: int = 2,
        activation: Callable[[], nn.Module] = nn.ELU,
    ):
        super().__init__()
        widths(shape=shape)
        if len(shape) != 3 or shape[1] * shape[2] < 2:
            raise ValueError(f"shape must be (channels, height, width) of two places or more, got {tuple(shape)}")
        self.bijection = Affine() if bijection is None else elementwise(bijection)
        self.shape = channels, height, wide = tuple(shape)
        white = (torch.arange(height)[:, None] + torch.arange(wide)) % 2 == int(bool(reverse))
        self.register_buffer("stays", white, persistent=False)
        self.conditioner = MapConditioner(channels, context, channels * self.bijection.size, width, blocks, activation)

    def forward(self, y: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slopes = self.bijection(y, self._conditions(y, h))
        return torch.where(self.stays, y, z), torch.where(self.stays, 0.0, log_slopes).sum((-3, -2, -1))

    def inverse(self, z: Tensor, h: Tensor | None = None) -> Tensor:
        return torch.where(self.stays, z, self.bijection.inverse(z, self._conditions(z, h)))

    def _conditions(self, y: Tensor, h: Tensor | None) -> Tensor:
        check_maps(y, self.shape)
        return by_place(self.conditioner(torch.where(self.stays, y, 0.0), h), self.bijection.size)


def by_place(outputs: Tensor, size: int) -> Tensor:
    """Shape (*batch, channels size, height, width) -> (*batch, channels, height, width, size)."""
    return outputs.unflatten(-3, (-1, size)).movedim(-3, -1)


def check_maps(y: Tensor, shape: tuple[int, ...]) -> None:
    """Refuses what is no maps of these channels, or of these channels and sides."""
    found = y.shape[-3:][: len(shape)] if isinstance(y, Tensor) and y.dim() > 2 else None
    if found != shape:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        sides = ", height, width" if len(shape) == 1 else ""
        wanted = f"(*batch, {', '.join(map(str, shape))}{sides})"
        raise ValueError(f"y must be a tensor of shape {wanted}, got {got}; make the step for these maps")
