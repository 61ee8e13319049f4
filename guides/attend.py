"""Inference object by object: is there one more, where, and what is seen there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides.reading import draw_along
from dlvm.guides.sites.arguments import program
from dlvm.guides.sites.conditioning import first, parted
from dlvm.guides.sites.latents import Latent
from dlvm.nets import MLP
from dlvm.nets.arguments import count, real, widths
from dlvm.nets.windows.placing import seen

KINDS = ("present", "where", "what")
NEVER = -50.0  # the logit of what cannot be, as in ``AIR``


class Attend(PyroModule):
    """Amortised guide of objects one after the other, which looks at the data and at what is not yet explained of them.

        h_t = net(x, x - E p(x | objects before t)),   q(present_t | h_t) = present_(t-1) Bernoulli(logit(h_t)),
        q(where_t | h_t) Gaussian,   q(what_t | see(x, where_t), see(x - E p(x | ...), where_t)) Gaussian

    The place and the content of an absent object are drawn from the prior, so that they cost nothing. The model says
    what it has drawn so far, by ``infer={"mean": function, "there": present_(t-1)}`` at each site, as ``AIR`` does; it
    is read, never owned.

    Sites:
        present_t, where_t, what_t for t = 1..T, with the model's shapes.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``: those three kinds by turns.
        model: the Pyro program whose latents these are; the very one that is trained.
        sides: (height, width) of the images.
        size: on a side, of the picture that is seen of an object.
        hidden: units of the two hidden layers of the net, and half of them in that of what is seen.
        presence: the probability that training starts from.

    Raises:
        ValueError: latents are others, a number is below 1, ``presence`` is not inside (0, 1), the sides are
            not two; when run, the data are of other sides, or a site has no mean.
        TypeError: the model is no program, or a number no integer.

    References:
        Attend, Infer, Repeat: Fast Scene Understanding with Generative Models, Eslami, Heess, Weber, Tassa, Szepesvari,
            Kavukcuoglu, Hinton, 2016, arXiv:1603.08575.

    Example:
        >>> from dlvm.guides import latents
        >>> from dlvm.models import AIR
        >>> from dlvm.nets import MLP
        >>> x, model = torch.zeros(5, 144), AIR(MLP(4, 16, 25), (12, 12), what_dim=4, steps=1)
        >>> {site: tuple(z.shape) for site, z in Attend(latents(model, x), model, (12, 12), 5)(x).items()}
        {'present_1': (5,), 'where_1': (5, 3), 'what_1': (5, 4)}
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        model: Callable,
        sides: tuple[int, int],
        size: int,
        hidden: int = 200,
        presence: float = 0.8,
    ):
        super().__init__("guide")
        program(model=model)
        if not isinstance(latents, Mapping):
            raise TypeError(f"latents must be a mapping, got {type(latents).__name__}; pass latents(model, x)")
        count(size=size, hidden=hidden)
        widths(sides=sides)
        real(presence=presence)
        if len(sides) != 2:
            raise ValueError(f"sides must be (height, width) of the images, got {tuple(sides)}")
        if not 0 < presence < 1:
            raise ValueError(f"presence must be between 0 and 1, got {presence}")
        expected = [f"{kind}_{step}" for step in range(1, len(latents) // 3 + 1) for kind in KINDS]
        if not latents or list(latents) != expected:
            raise ValueError(f"latents must be present_1, where_1, what_1, present_2, ..., got {[*latents]}; see AIR")
        self.latents, self.sides, self.size = dict(latents), (int(sides[0]), int(sides[1])), size
        pixels, half = sides[0] * sides[1], max(hidden // 2, 1)
        self.net = MLP(2 * pixels, hidden, hidden)
        self.presence = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.presence.bias.copy_(torch.logit(torch.tensor(float(presence))))
        self.where = DiagonalNormal(MLP(hidden), 3)
        self.what = DiagonalNormal(MLP(2 * size * size, half), latents["what_1"].shape[-1])
        self._model = (model,)  # in a tuple, so that it is no submodule

    @property
    def model(self) -> Callable:
        """The program that is read."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        _, others, named = parted(self.latents, args, kwargs)
        x = first(others, named)
        if not isinstance(x, Tensor):
            raise ValueError("the guide's first argument is None: q(z | x) needs the data it is conditioned on")
        if x.shape[-1] != self.sides[0] * self.sides[1]:
            raise ValueError(f"x must be flat images of {self.sides} pixels, got {tuple(x.shape)}; pass x.flatten(1)")
        net, presence, where, what = self.net, self.presence, self.where, self.what  # got outside the run
        both = h = x

        def choose(name: str, msg: Mapping[str, Any], known: Mapping[str, Tensor]) -> TorchDistributionMixin:
            nonlocal both, h
            kind, there = name.rpartition("_")[0], _said(name, msg)[1]
            if kind == "present":
                mean = _said(name, msg)[0]
                both = torch.stack(torch.broadcast_tensors(x, x - mean), dim=-2)
                h = net(both.flatten(-2))
                logits = presence(h).squeeze(-1)
                return dist.Bernoulli(logits=logits * there + NEVER * (1 - there))
            if kind == "where":
                return _or_prior(where(h), msg["fn"], there)
            place = known[f"where_{name.rpartition('_')[2]}"]
            glimpse = seen(both.unflatten(-1, self.sides), place.unsqueeze(-2), self.size)
            return _or_prior(what(glimpse.flatten(-3)), msg["fn"], there)

        return draw_along(self.model, tuple(self.latents), choose, args, kwargs)


def _said(name: str, msg: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """E p(x | objects so far), and whether there may be this one."""
    words = msg["infer"] or {}
    mean, there = words.get("mean"), words.get("there")
    if not callable(mean) or not isinstance(there, Tensor):
        raise ValueError(
            f"latent site {name!r} needs a mean and a presence in the model, got {type(mean).__name__} and "
            f'{type(there).__name__}; write infer={{"mean": function, "there": tensor}} at the site, as AIR does'
        )
    return mean(), there


def _or_prior(found: Any, prior: Any, there: Tensor) -> TorchDistributionMixin:
    """A Gaussian where the object is there, and the model's own where it is not."""
    q, p, there = found.base_dist, prior.base_dist, there.unsqueeze(-1)
    loc, scale = (there * ours + (1 - there) * theirs for ours, theirs in ((q.loc, p.loc), (q.scale, p.scale)))
    return dist.Normal(loc, scale).to_event(1)
