"""A small convolutional hierarchy: latent maps of growing resolution along one top-down path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Bernoulli, positive
from dlvm.models.arguments import distribution_of, fitting, size
from dlvm.nets import Maps, Readout, ResidualBlock
from dlvm.nets.arguments import is_count, made, whole
from dlvm.nets.conv import side_of


class TopDown(PyroModule):
    """L latent maps per image, each generated from a state that has gathered all maps above it.

        p(x, z1, ..., zL) = prod_{l=L..1} N(zl; loc_l(s_l), scale_l(s_l)^2) prod_d Bernoulli(x_d; sigmoid(f_d(s_0)))
        s_L = a learned constant,   s_(l-1) = up_l(block_l(s_l + project_l(zl)))

    Every state has ``width`` channels; block is a residual one, project has one pixel, and up is a transposed
    convolution from the side of zl to that of z(l-1); f gives each place of s_0 its pixels. A map changes the state
    where it lies: what zL holds is about the whole image, what z1 holds about details.

    Sites:
        zL, ..., z1: shape (batch, channels, side, side) as in ``maps``, real, z1 nearest x; latent.
        x: shape (batch, x_dim), 0 or 1, rows of the image one after the other; observed, or drawn where ``x=None``.

    Args:
        x_dim: pixels of a square image.
        maps: (channels, side) of z1, ..., zL; each side a multiple of the next, the image's a multiple of the first.
            Unless told, 2 maps of half the image's side, 4 of a quarter, and 8 single numbers.
        width: channels of the states.
        mean: shape (x_dim,), mean of the data; see ``Bernoulli``.
        likelihood: makes p(x | s_0) from a net of states, whose last layer keeps the places of pixels, as
            ``partial(Normal, dim=x_dim)``; a Bernoulli unless told.
        prior: p(zL), a module without inputs; unless told, the Gaussian above, whose parameters s_L gives.

    Raises:
        TypeError: ``prior`` is no module that returns a distribution.
        ValueError: the prior's event shape is not that of zL; the image is no square; ``maps`` is empty, not positive,
            or sides are no multiples; ``maps`` is not given for an image whose side is no multiple of 4; ``width`` is
            below 1; ``mean`` has another shape.

    References:
        Ladder Variational Autoencoders, Sonderby, Raiko, Maaloe, Sonderby, Winther, 2016, arXiv:1602.02282.
        NVAE: A Deep Hierarchical Variational Autoencoder, Vahdat, Kautz, 2020, arXiv:2007.03898.
        Very Deep VAEs Generalize Autoregressive Models, Child, 2021, arXiv:2011.10650.

    Example:
        >>> model = TopDown(64, maps=[(2, 4), (8, 1)])
        >>> model(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        x_dim: int = 784,
        maps: Sequence[tuple[int, int]] | None = None,
        width: int = 24,
        mean: Tensor | None = None,
        likelihood: Callable[[nn.Module], nn.Module] | None = None,
        prior: nn.Module | None = None,
    ):
        super().__init__("model")
        side = side_of(x_dim, "x_dim")
        maps = default_maps(side) if maps is None else checked_maps(maps, side)
        whole(width=width)
        if width < 1:
            raise ValueError(f"width must be at least 1, the channels of the states, got {width}")
        channels, sides = zip(*maps, strict=True)
        factors = [1, *(below // above for below, above in pairwise(sides))]
        self.start = nn.Parameter(torch.randn(width, sides[-1], sides[-1]))
        layers = [Layer(each, width, factor) for each, factor in zip(channels, factors, strict=True)]
        self.layers = nn.ModuleList(layers[::-1])
        if likelihood is None:
            self.likelihood: nn.Module = Bernoulli(Readout(width, x_dim, side // sides[0]), mean)
        else:
            self.likelihood = made("likelihood", likelihood, Pixels(width, x_dim, side // sides[0]))
        self.prior = prior
        if prior is not None:
            top, found = (channels[-1], sides[-1], sides[-1]), distribution_of(prior).event_shape
            if found != top:
                raise ValueError(
                    f"prior has event shape {tuple(found)} where the top map has {top}; wrap it as "
                    f"ReshapedPrior(prior, {top})"
                )
            self.layers[0].head = nn.Identity()  # which nobody asks for its Gaussian

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        state: Tensor = self.start
        number = len(self.layers)
        with pyro.plate("data", size(x, n)):
            for layer in self.layers:
                given = None if number < len(self.layers) else self.prior
                z = pyro.sample(f"z{number}", layer(state) if given is None else given())
                state, number = cast(Layer, layer).below(state, z), number - 1
            likelihood = self.likelihood(state)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))


class Layer(nn.Module):
    """One latent map: its distribution given the state, and the state that follows from both.

        N(z; loc(s), scale(s)^2),   below = up(block(s + project(z)))

    Args:
        channels: of z.
        width: channels of the states.
        factor: how many times the side of z the state below has.
    """

    def __init__(self, channels: int, width: int, factor: int):
        super().__init__()
        self.head = Maps(nn.ELU(), nn.Conv2d(width, 2 * channels, kernel_size=1))
        self.project = Maps(nn.Conv2d(channels, width, kernel_size=1))
        self.block = ResidualBlock(width)
        self.up = Maps(nn.ConvTranspose2d(width, width, factor, stride=factor)) if factor > 1 else nn.Identity()

    def forward(self, state: Tensor) -> dist.Distribution:
        """State, shape (*batch, width, side, side) -> a distribution over (channels, side, side)."""
        loc, raw = self.head(state).chunk(2, dim=-3)
        return dist.Normal(loc, positive(raw)).to_event(3)

    def below(self, state: Tensor, z: Tensor) -> Tensor:
        """The next state, shape (*batch, width, factor * side, factor * side)."""
        return self.up(self.block(state + self.project(z)))


class PixelReadout(Readout):
    """A readout whose numbers stand together for each pixel, if that is wanted.

    Args:
        width, x_dim, factor, numbers: see ``Readout``.
        last: whether they do.
    """

    def __init__(self, width: int, x_dim: int, factor: int, numbers: int, last: bool):
        super().__init__(width, x_dim, factor, numbers)
        self.numbers = numbers if last else 1

    def forward(self, maps: Tensor) -> Tensor:
        """Maps, shape (*batch, width, side, side) -> shape (*batch, x_dim * numbers)."""
        found = nn.functional.pixel_shuffle(self.net(maps), self.factor).flatten(-3)
        return found.unflatten(-1, (self.numbers, -1)).transpose(-1, -2).flatten(-2) + self.bias


class Pixels(nn.Module):
    """Stands for the net of a likelihood: hands on the state, and has a last layer that keeps the places of pixels.

    Args:
        width, x_dim, factor: see ``Readout``.
    """

    def __init__(self, width: int, x_dim: int, factor: int):
        super().__init__()
        self.out_features, self.x_dim, self.factor = width, x_dim, factor

    def forward(self, state: Tensor) -> Tensor:
        return state

    def readout(self, dim: int, per: int, last: bool) -> PixelReadout:
        """The layer from a state to ``per`` numbers of each of ``dim`` pixels, see ``last_layer``.

        Raises:
            ValueError: ``dim`` is no number of pixels.
        """
        if dim != self.x_dim:
            raise ValueError(
                f"likelihood must have dim={self.x_dim} numbers, the pixels of the image, got {dim}; take one whose "
                "numbers are pixels, as normal, grey_levels or logistic_mixture"
            )
        return PixelReadout(self.out_features, dim, self.factor, per, last)


def default_maps(side: int) -> tuple[tuple[int, int], ...]:
    """(channels, side) of three latent maps for an image of this side; refuses one that is no multiple of 4."""
    if side % 4:
        raise ValueError(
            f"x_dim is an image of {side} x {side}, whose side is no multiple of 4; give maps, as [(2, {side}), (8, 1)]"
        )
    return (2, side // 2), (4, side // 4), (8, 1)


def checked_maps(maps: Sequence[tuple[int, int]], side: int) -> tuple[tuple[int, int], ...]:
    """The maps; refuses what are no pairs of positive numbers, and sides that do not divide one another."""
    if not isinstance(maps, Sequence) or not maps or not all(_is_pair(each) for each in maps):
        raise ValueError(f"maps must be one or more pairs (channels, side) of positive numbers, z1 first, got {maps}")
    for below, above in pairwise([side, *(each for _, each in maps)]):
        if below % above:
            raise ValueError(
                f"maps has a side of {above} below which comes one of {below}, no multiple of it; write sides of which "
                f"each divides the one before it, the first the image's {side}, as [(2, {side}), (8, 1)]"
            )
    return tuple(maps)


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(is_count, value))
