"""A very deep hierarchy: many groups of latent maps along one top-down path, after VDVAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import positive
from dlvm.models.arguments import fitting, size
from dlvm.nets import Bottleneck, Maps
from dlvm.nets.arguments import count, is_count, module
from dlvm.nets.residual import start_at


class VDVAE(PyroModule):
    """L groups of latent maps, each generated from a state that has gathered all maps above it.

        p(x, z1, ..., zL) = prod_{l=L..1} N(zl; loc_l(s_l), scale_l(s_l)^2) p(x | s_0)
        (loc_l, log scale_l, change_l) = prior_l(s_l),   h_l = s_l + change_l + project_l(zl),
        s_(l-1) = unpool(h_l + block_l(h_l)),   s_L = unpool(0)

    prior and block are bottlenecks of four convolutions. Where the side grows, unpool repeats each pixel and adds a
    learned bias to every place; elsewhere it leaves the state as it is. Blocks and projections start at 1 / sqrt(L) of
    their usual size, so that the state's variance does not grow with L, and every prior starts as N(0, I).

    A guide may read a group's state where it is drawn: ``infer={"state": s_l}`` at each latent site, see
    ``TopDownPosterior``.

    Sites:
        zL, ..., z1: shape (batch, channels, side, side), side as in ``groups``, real, z1 nearest x; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        likelihood: p(x | s_0), a module from the last state, shape (*batch, width, side, side), to a Pyro distribution.
        groups: (side, how many groups of this side), from the top down; each side a multiple of the one before it.
        channels: of each latent map.
        width: channels of the states.
        middle: channels inside a bottleneck; half the width unless told.

    Raises:
        ValueError: ``groups`` is empty, or sides are no multiples; a number is below 1.
        TypeError: the likelihood is no module, or a number no integer.

    References:
        Very Deep VAEs Generalize Autoregressive Models, Child, 2021, arXiv:2011.10650.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import Readout
        >>> model = VDVAE(Bernoulli(Readout(6, 64, factor=2)), groups=[(1, 1), (4, 2)], width=6)
        >>> model(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        likelihood: nn.Module,
        groups: Sequence[tuple[int, int]] = ((1, 3), (7, 5), (14, 2)),
        channels: int = 4,
        width: int = 32,
        middle: int | None = None,
    ):
        super().__init__("model")
        module(likelihood=likelihood)
        count(channels=channels, width=width)
        middle = max(1, width // 2) if middle is None else middle
        count(middle=middle)
        sides = [side for side, number in checked_groups(groups) for _ in range(number)]
        self.start = nn.Parameter(torch.zeros(width, sides[0], sides[0]))
        self.biases = nn.ParameterDict({str(s): torch.zeros(width, s, s) for s in dict.fromkeys(sides) if s > sides[0]})
        self.groups = nn.ModuleList(Group(channels, width, middle, side, len(sides) ** -0.5) for side in sides)
        self.likelihood, self.width = likelihood, width

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        state: Tensor = self.start
        number = len(self.groups)
        with pyro.plate("data", size(x, n)):
            for group in self.groups:
                state = self.unpooled(state, cast(Group, group).side)
                prior, change = group(state)
                z = pyro.sample(f"z{number}", prior, infer=dict(state=state))  # type: ignore[arg-type]  # any words may stand there
                state, number = cast(Group, group).below(state + change, z), number - 1
            likelihood = self.likelihood(state)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def unpooled(self, state: Tensor, side: int) -> Tensor:
        """The state at this side: every pixel repeated, and a bias for every place; as it is where it has this side."""
        factor = side // state.shape[-1]
        if factor == 1:
            return state
        return state.repeat_interleave(factor, -1).repeat_interleave(factor, -2) + self.biases[str(side)]


class Group(nn.Module):
    """One group of latents: its distribution given the state, and the state that follows from both.

    Args:
        channels: of z.
        width, middle: channels of the states, and inside a bottleneck.
        side: of both.
        last: the size that block and projection start with.
    """

    def __init__(self, channels: int, width: int, middle: int, side: int, last: float):
        super().__init__()
        self.side, self.sizes = side, (channels, channels, width)
        self.prior = Bottleneck(width, middle, 2 * channels + width, side, last=0.0)
        project = nn.Conv2d(channels, width, kernel_size=1)
        start_at(project, last)
        self.project, self.block = Maps(project), Bottleneck(width, middle, width, side, last)

    def forward(self, state: Tensor) -> tuple[dist.Distribution, Tensor]:
        """State, shape (*batch, width, side, side) -> p(z | state), and how the state changes before z is told."""
        loc, raw, change = self.prior(state).split(self.sizes, dim=-3)
        return dist.Normal(loc, positive(raw)).to_event(3), change

    def below(self, state: Tensor, z: Tensor) -> Tensor:
        """The next state, of the same shape."""
        state = state + self.project(z)
        return state + self.block(state)


def checked_groups(groups: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """The groups; refuses what are no pairs of positive numbers, and sides that are no multiples of one another."""
    pairs = isinstance(groups, Sequence) and all(
        isinstance(each, Sequence) and len(each) == 2 and all(map(is_count, each)) for each in groups
    )
    if not groups or not pairs:
        raise ValueError(f"groups must be pairs (side, how many) of positive numbers, the top first, got {groups}")
    for (above, _), (below, _) in zip(groups, groups[1:], strict=False):
        if below % above or below == above:
            raise ValueError(
                f"groups has a side of {above} above one of {below}, no multiple of it; write growing sides, each a "
                "multiple of the one before it, as [(1, 3), (7, 5), (14, 2)]"
            )
    return groups
