"""AIR: an image as a sum of objects, of which there are several, one or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import StandardNormal
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count, module, out_features, real, widths
from dlvm.nets.windows.placing import placed

NEVER = -50.0  # the logit of what cannot be: its probability is not 0, so that a KL from others stays finite


class AIR(PyroModule):
    """Up to T objects, each somewhere on the canvas; behind the first that is absent there are no others.

        present_t ~ Bernoulli(present_(t-1) pi),   where_t ~ N(mu, diag(sigma^2)),   what_t ~ N(0, I),   t = 1..T,
        p(x | present, where, what) = N(x; sum_t present_t place(sigmoid(glyph(what_t)), where_t), scale^2 I)

    so that the number of objects is geometric, cut at T. An absent object has a place and a content as well, drawn from
    the prior, which x does not depend on: a guide that draws them from the prior too, as ``Attend``, pays nothing for
    them, and every other guide is held to a density that is one. At each site the model says, by ``infer={"mean":
    E p(x | objects so far), "there": present_(t-1)}``, how far it has come; the mean is a function without arguments.

    Sites:
        present_1, ..., present_T: shape (batch,), 0 or 1; latent.
        where_t: shape (batch, 3), log extent and centre, as ``placed`` takes them; latent.
        what_t: shape (batch, what_dim), real; latent.
        x: shape (batch, height width), real; observed, or drawn where ``x=None``.

    Args:
        glyph: the net from what, shape (*batch, what_dim), to the logits of a picture's pixels, size^2 of them.
        sides: (height, width) of the images.
        what_dim: numbers that say what an object looks like.
        steps: T, the most objects.
        presence: pi, the probability of one object more.
        extent: exp of the mean of a log extent: the share of the longer side that an object takes.
        spread: standard deviations (of the log extent, of either coordinate of the centre).
        scale: of the noise, not trained.

    Raises:
        ValueError: a number is below 1, ``presence`` or ``extent`` is not inside (0, 1), a scale is not positive, or
            the glyph has no square of pixels.
        TypeError: the glyph is no module or has no ``out_features``, or a number is none.

    References:
        Attend, Infer, Repeat: Fast Scene Understanding with Generative Models, Eslami, Heess, Weber, Tassa, Szepesvari,
            Kavukcuoglu, Hinton, 2016, arXiv:1603.08575.

    Example:
        >>> from dlvm.nets import MLP
        >>> model = AIR(MLP(4, 16, 25), (12, 12), what_dim=4)
        >>> model(n=3).shape
        torch.Size([3, 144])
    """

    where_loc: Tensor
    where_scale: Tensor

    def __init__(
        self,
        glyph: nn.Module,
        sides: Sequence[int],
        what_dim: int = 20,
        steps: int = 3,
        presence: float = 0.5,
        extent: float = 0.4,
        spread: tuple[float, float] = (0.2, 0.5),
        scale: float = 0.3,
    ):
        super().__init__("model")
        module(glyph=glyph)
        count(what_dim=what_dim, steps=steps)
        widths(sides=sides)
        widest, farthest = _two(spread)
        real(presence=presence, extent=extent, scale=scale)
        if len(sides) != 2:
            raise ValueError(f"sides must be (height, width) of the images, got {tuple(sides)}")
        for name, share in (("presence", presence), ("extent", extent)):
            if not 0 < share < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share}")
        for name, width in (("spread", widest), ("spread", farthest), ("scale", scale)):
            if not 0 < width < math.inf:
                raise ValueError(f"{name} must be positive, got {width}")
        try:
            pixels = out_features(glyph)
        except TypeError as error:
            raise TypeError(f"glyph is no net from what to pixels: {error}") from None
        self.size = math.isqrt(pixels)
        if self.size**2 != pixels:
            raise ValueError(f"glyph must have a square of pixels, got {pixels}; let its net end in size * size")
        self.glyph, self.sides, self.steps, self.scale = glyph, (int(sides[0]), int(sides[1])), steps, scale
        self.presence, self.prior = math.log(presence / (1 - presence)), StandardNormal(what_dim)
        self.register_buffer("where_loc", torch.tensor([math.log(extent), 0.0, 0.0]))
        self.register_buffer("where_scale", torch.tensor([widest, farthest, farthest]))

    def extra_repr(self) -> str:
        return f"sides={self.sides}, steps={self.steps}, presence={self.presence:.3g} (logit), scale={self.scale}"

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, height width), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, height width).
        """
        there, canvas = self.where_loc.new_ones(()), self.where_loc.new_zeros(math.prod(self.sides))
        place = dist.Normal(self.where_loc, self.where_scale).to_event(1)
        with pyro.plate("data", size(x, n)):
            for step in range(1, self.steps + 1):
                said: Any = {"mean": partial(_kept, canvas), "there": there}  # any words may stand there
                logits = self.presence * there + NEVER * (1 - there)
                there = pyro.sample(f"present_{step}", dist.Bernoulli(logits=logits), infer={**said})
                said["there"] = there
                where = pyro.sample(f"where_{step}", place, infer={**said})
                what = pyro.sample(f"what_{step}", self.prior(), infer={**said})
                canvas = canvas + there.unsqueeze(-1) * self.drawn(where, what)
            likelihood = dist.Normal(canvas, self.scale).to_event(1)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def drawn(self, where: Tensor, what: Tensor) -> Tensor:
        """An object on an empty canvas, shape (*batch, height width), greys in [0, 1]."""
        picture = self.glyph(what).sigmoid().unflatten(-1, (self.size, self.size))
        return placed(picture, where, self.sides).flatten(-2)


def _two(spread: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(spread, tuple | list) or len(spread) != 2:
        raise ValueError(f"spread must be two numbers, of the log extent and of the centre, got {spread!r}; (0.2, 0.5)")
    real(**{f"spread[{i}]": width for i, width in enumerate(spread)})
    return float(spread[0]), float(spread[1])


def _kept(canvas: Tensor) -> Tensor:
    return canvas
