"""Pieces of flows on images: places folded into channels, channels mixed, and several scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlvm.distributions.flows.density import check_inverse, initialised
from dlvm.distributions.flows.flow_normal import Bijection
from dlvm.nets.arguments import count, widths


class Squeeze(nn.Module):
    """Each square of 2 x 2 places becomes four channels of one place.

        (channels, height, width) -> (4 channels, height / 2, width / 2),   log |det| = 0

    Raises:
        ValueError: when called, a side is odd.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.

    Example:
        >>> Squeeze()(torch.zeros(5, 3, 8, 6))[0].shape
        torch.Size([5, 12, 4, 3])
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy| = 0 of shape (*batch,)."""
        *batch, channels, height, width = y.shape
        check_even((height, width))
        z = y.reshape(*batch, channels, height // 2, 2, width // 2, 2)
        z = z.movedim((-3, -1), (-4, -3)).reshape(*batch, 4 * channels, height // 2, width // 2)
        return z, y.new_zeros(batch)

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        *batch, channels, height, width = z.shape
        y = z.reshape(*batch, channels // 4, 2, 2, height, width).movedim((-4, -3), (-3, -1))
        return y.reshape(*batch, channels // 4, 2 * height, 2 * width)


class InvertibleConv(nn.Module):
    """All channels of a place mixed by one matrix, which is kept invertible by its triangular factors.

        z = W y at each place,   W = P L (U + diag(s)),   log |det dz/dy| = height width sum_c log |s_c|

    P is a fixed permutation, L has ones and U zeros on its diagonal. At the start W is a random rotation; the signs of
    s stay as they are then, and log |s| is trained.

    Args:
        channels: number of channels.

    Raises:
        ValueError: ``channels`` is below 1.
        TypeError: it is no integer.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018, arXiv:1807.03039, section 3.2.

    Example:
        >>> z, log_det = InvertibleConv(3)(torch.randn(5, 3, 4, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 4, 4]), torch.Size([5]))
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int):
        super().__init__()
        count(channels=channels)
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(diagonal.abs().log())

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U + diag(s)."""
        one = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        return self.lower.tril(-1) + one, self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy| of shape (*batch,)."""
        lower, upper = self.factors()
        z = torch.einsum("ij,...jhw->...ihw", self.permutation @ lower @ upper, y)
        return z, (math.prod(y.shape[-2:]) * self.log_scale.sum()).expand(y.shape[:-3])

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        lower, upper = self.factors()
        columns = self.permutation.T @ z.flatten(-2)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, columns, upper=True).unflatten(-1, z.shape[-2:])


class MultiScale(nn.Module):
    """Flat images to noise by several scales: after each but the last, half of the channels are done.

        (z_1, y_1) = f_1(y),   (z_2, y_2) = f_2(y_1), ...,   z_S = f_S(y_(S-1)),   z = (z_1, ..., z_S)

    Each f of a scale but the last must halve the sides (``Squeeze`` among its maps); the first half of what it makes
    goes on, the other is noise. So the flow is cheap where images are large, and noise has a part for each scale.

    Args:
        shape: (channels, height, width) of an image, the sides multiples of 2^(S - 1).
        *scales: modules (maps, *context) -> (maps, log |det|) with an ``inverse``, S of them.

    Raises:
        ValueError: there is no scale; ``shape`` is none, or its sides cannot be halved so often; when called, y has
            another width.
        TypeError: a scale is no module, or has no inverse.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803, section 3.6.

    Example:
        >>> flow, y = MultiScale((1, 4, 6), Squeeze(), InvertibleConv(2)), torch.randn(5, 24)
        >>> flow.inverse(flow(y)[0]).allclose(y, atol=1e-5)
        True
    """

    def __init__(self, shape: Sequence[int], *scales: nn.Module):
        super().__init__()
        check_shape(shape, len(scales))
        for i, scale in enumerate(scales):
            check_inverse(f"scales[{i}]", scale)
        if not scales:
            raise ValueError("scales must be one or more; write MultiScale((1, 28, 28), Composition(...))")
        self.shape, self.scales = tuple(shape), nn.ModuleList(scales)

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy|."""
        maps, total, done = self._maps(y), cast(Any, 0.0), []
        for i, scale in enumerate(self.scales):
            maps, log_det = scale(maps, *context)
            total = total + log_det
            if i + 1 < len(self.scales):
                maps, others = maps.chunk(2, dim=-3)
                done.append(others.flatten(-3))
        return torch.cat([*done, maps.flatten(-3)], dim=-1), total

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        pixels, times = math.prod(self.shape), len(self.scales) - 1
        *parts, last = z.split([pixels // 2**i for i in range(1, times + 1)] + [pixels // 2**times], dim=-1)
        channels, height, width = self.shape
        maps = last.unflatten(-1, (2**times * channels, height // 2**times, width // 2**times))
        for i, scale in reversed(list(enumerate(self.scales))):
            if i < times:
                maps = torch.cat([maps, parts[i].unflatten(-1, maps.shape[-3:])], dim=-3)
            maps = cast(Bijection, scale).inverse(maps, *context)
        return maps.flatten(-3)

    @torch.no_grad()
    def initialise(self, y: Tensor, *context: Tensor) -> Tensor:
        """Lets each map that starts from data see those that reach it, in order; returns z."""
        maps = self._maps(y)
        for i, scale in enumerate(self.scales):
            maps = initialised(scale, maps, *context)
            maps = maps if i + 1 == len(self.scales) else maps.chunk(2, dim=-3)[0]
        return self(y, *context)[0]

    def _maps(self, y: Tensor) -> Tensor:
        pixels = math.prod(self.shape)
        if not isinstance(y, Tensor) or y.shape[-1:] != (pixels,):
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"y must be a tensor of shape (*batch, {pixels}), got {got}; flatten images of {self.shape}"
            )
        return y.unflatten(-1, self.shape)


def check_shape(shape: Sequence[int], scales: int) -> None:
    """Refuses what is no (channels, height, width), or has sides that so many scales cannot halve."""
    widths(shape=shape)
    if len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width), got {tuple(shape)}; write (1, 28, 28)")
    factor = 2 ** max(scales - 1, 0)
    if any(side % factor for side in shape[1:]):
        most = 1 + min((side & -side).bit_length() - 1 for side in shape[1:])
        raise ValueError(
            f"shape has sides {shape[1]} and {shape[2]}, which {scales} scales halve {scales - 1} times; use "
            f"{'1 scale' if most == 1 else f'at most {most} scales'}, or pad the images to multiples of {factor}"
        )


def check_even(sides: tuple[int, int]) -> None:
    """Refuses a side that is odd."""
    if sides[0] % 2 or sides[1] % 2:
        raise ValueError(f"y has sides {sides[0]} and {sides[1]}, which must be even to be halved; pad the images")
