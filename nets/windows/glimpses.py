"""What a net reads of an image through a window, and what it writes on one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, widths
from dlvm.nets.windows.attention import Attention


class ReadAll(nn.Module):
    """All of an image and of what is still wrong with it, side by side.

        out = [x, error]

    Args:
        x_dim: numbers of an image.

    Raises:
        ValueError: ``x_dim`` is below 1.
        TypeError: it is no integer.

    Example:
        >>> ReadAll(784)(torch.zeros(3, 784), torch.zeros(3, 784), torch.zeros(3, 8)).shape
        torch.Size([3, 1568])
    """

    def __init__(self, x_dim: int):
        super().__init__()
        count(x_dim=x_dim)
        self.x_dim, self.out_features = x_dim, 2 * x_dim

    def forward(self, x: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """Images and errors, shape (*batch, x_dim) -> shape (*batch, 2 x_dim), whatever the state is."""
        fits(x=(x, self.x_dim), error=(error, self.x_dim), state=(state, None))
        return torch.cat(torch.broadcast_tensors(x, error), dim=-1)


class Read(nn.Module):
    """What a window shows of an image and of what is still wrong with it; the state says where the window lies.

        out = strength [F_Y x F_X', F_Y error F_X']

    Args:
        in_features: width of the state.
        shape: (height, width) or (channels, height, width) of the images.
        size: of the window, see ``Attention``.

    Raises:
        ValueError: a number is below 1, or ``shape`` is that of no image.
        TypeError: one is no integer.

    References:
        as ``Attention``.

    Example:
        >>> Read(8, (28, 28), size=5)(torch.zeros(3, 784), torch.zeros(3, 784), torch.zeros(8)).shape
        torch.Size([3, 50])
    """

    def __init__(self, in_features: int, shape: Sequence[int], size: int):
        super().__init__()
        self.shape = image_shape(shape)
        self.attention = Attention(in_features, self.shape[1:], size)
        self.in_features, self.out_features = in_features, 2 * self.shape[0] * size**2

    def forward(self, x: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """
        Args:
            x, error: shape (*batch, x_dim).
            state: shape (*batch, in_features); all three are broadcast.

        Returns:
            shape (*batch, out_features).
        """
        x_dim = math.prod(self.shape)
        fits(x=(x, x_dim), error=(error, x_dim), state=(state, self.in_features))
        rows, columns, strength = (part.unsqueeze(-3) for part in self.attention(state))
        seen = [
            (strength * (rows @ each.unflatten(-1, self.shape) @ columns.mT)).flatten(-3)
            for each in torch.broadcast_tensors(x, error)
        ]
        return torch.cat(seen, dim=-1)


class Write(nn.Module):
    """A small picture put on an empty image through a window; the state says what it is, and where.

        out = vec(F_Y' (W state + b) F_X) / strength

    Args:
        in_features: width of the state.
        shape: (height, width) or (channels, height, width) of the images.
        size: of the picture, see ``Attention``.

    Raises:
        ValueError: a number is below 1, or ``shape`` is that of no image.
        TypeError: one is no integer.

    References:
        as ``Attention``.

    Example:
        >>> Write(8, (28, 28), size=5)(torch.zeros(3, 8)).shape
        torch.Size([3, 784])
    """

    def __init__(self, in_features: int, shape: Sequence[int], size: int):
        super().__init__()
        self.shape, self.size = image_shape(shape), size
        self.attention = Attention(in_features, self.shape[1:], size)
        self.net = nn.Linear(in_features, self.shape[0] * size**2)
        self.in_features, self.out_features = in_features, math.prod(self.shape)

    def forward(self, state: Tensor) -> Tensor:
        """State, shape (*batch, in_features) -> images, shape (*batch, out_features)."""
        fits(state=(state, self.in_features))
        rows, columns, strength = (part.unsqueeze(-3) for part in self.attention(state))
        picture = self.net(state).unflatten(-1, (self.shape[0], self.size, self.size))
        return (rows.mT @ picture @ columns / strength).flatten(-3)


def fits(**values: tuple[Tensor, int | None]) -> None:
    """Refuses, by its name, what is no tensor whose last dimension has this width, or any where that is None.

    Raises:
        TypeError: one is no tensor.
        ValueError: one has another width.
    """
    for name, (value, width) in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}; pass torch.as_tensor({name})")
        if width is not None and value.shape[-1:] != (width,):
            raise ValueError(
                f"{name} must have shape (*batch, {width}), got {tuple(value.shape)}; pass flat images, and the state "
                "that the net was made for"
            )


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width), one channel where there are two numbers.

    Raises:
        ValueError: there are neither two nor three, or one is below 1.
        TypeError: it is no sequence of integers.
    """
    widths(shape=shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"shape must be (height, width) or (channels, height, width) of images, got {tuple(shape)}")
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    return channels, height, width
