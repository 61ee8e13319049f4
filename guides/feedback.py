"""Inference step by step, with feedback: a recurrent net sees the data, and what the model has made of them so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, cat, nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides.amortized import Family
from dlvm.guides.reading import draw_along
from dlvm.guides.sites.arguments import encoder_width, family_of, program
from dlvm.guides.sites.conditioning import first, parted
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent
from dlvm.guides.sites.site_types import site_of
from dlvm.nets import MLP
from dlvm.nets.arguments import count, made
from dlvm.nets.sequences.recurrent import LSTMCell


class Feedback(PyroModule):
    """Amortised guide that reads, before each latent, the data, their error under the model so far, and its state.

        q(z | x) = prod_t q(z_t | e_t),   e_t = LSTM([encoder(x, x - E p(x | z_<t), h_(t-1)), h_(t-1)], e_(t-1))

    h_(t-1) and E p(x | z_<t) are what the model itself has reached by what was drawn before, so that both programs
    have one canvas. The model says them at each latent site, by ``infer={"state": h, "mean": function}``, as ``DRAW``
    does. The guide runs the model down to its last latent site. A step whose latent is given is no step of the guide's.

    The model is read, never owned: its parameters are not among the guide's, and their gradient counts both uses, as
    with ``Ladder``.

    Sites:
        those of ``latents``, with the model's shapes.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``; all of one shape and support.
        encoder: (x, error, state) -> features, shape (*batch, out_features), as ``Read`` and ``ReadAll``.
        model: the Pyro program whose latents these are; the very one that is trained.
        state: width of the model's state.
        width: of the guide's own, e_t.
        family: makes q(z_t | e_t) from (net, dim), ``DiagonalNormal`` unless told.

    Raises:
        ValueError: latents differ, or are global, or in more than one plate; a number is below 1; when run, a site of
            the model without a state of this width or without a mean, or no data.
        TypeError: the model is no program, or a function that declares parameters by ``pyro.param``; the encoder has
            no ``out_features``; ``family`` makes no module.

    References:
        DRAW: A Recurrent Neural Network For Image Generation, Gregor, Danihelka, Graves, Rezende, Wierstra, 2015,
            arXiv:1502.04623.

    Example:
        >>> import torch
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.guides import latents
        >>> from dlvm.models import DRAW
        >>> from dlvm.nets import MLP, Read, Write
        >>> x, model = torch.zeros(5, 64), DRAW(Bernoulli(MLP(64)), Write(8, (8, 8), 3), z_dim=2, steps=2, width=8)
        >>> guide = Feedback(latents(model, x), Read(8, (8, 8), 3), model, state=8, width=16)
        >>> {site: tuple(z.shape) for site, z in guide(x).items()}
        {'z_1': (5, 2), 'z_2': (5, 2)}
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        model: Callable,
        state: int,
        width: int = 128,
        family: Family = DiagonalNormal,
    ):
        super().__init__("guide")
        program(model=model)
        check_latents(latents)
        count(state=state, width=width)
        family_of(family=family)
        name, one = next(iter(latents.items()))
        for other, latent in latents.items():
            if (latent.shape, repr(latent.support)) != (one.shape, repr(one.support)):
                raise ValueError(
                    f"latents has sites {name!r} and {other!r} of different kinds; expected one shape and support for "
                    "all steps: use Amortized"
                )
        self.site, self.latents, self.state = site_of(one), dict(latents), state
        self.encoder, self.cell = encoder, LSTMCell(encoder_width(encoder) + state, width)
        self.posterior = made("family", self.site.head or family, MLP(width), self.site.size)
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
        encoder, cell, posterior = self.encoder, self.cell, self.posterior  # got outside the run, as all Pyro looks up
        reached = cell.start()

        def choose(name: str, msg: Mapping[str, Any], known: Mapping[str, Tensor]) -> TorchDistributionMixin:
            nonlocal reached
            h, mean = self.said(name, msg, x)
            r = encoder(x.to(mean.dtype), x - mean, h)
            reached = cell(cat([r, h.expand(*r.shape[:-1], -1)], dim=-1), reached)
            return self.site.constrain(posterior(reached[0]))

        return draw_along(self.model, tuple(self.latents), choose, args, kwargs)

    def said(self, name: str, msg: Mapping[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
        """What the model says at a site: its state, and the mean of the data by what was drawn before."""
        words = msg["infer"] or {}
        h, mean = words.get("state"), words.get("mean")
        if not isinstance(h, Tensor) or h.shape[-1:] != (self.state,) or not callable(mean):
            got = "none" if h is None else f"{getattr(h, 'shape', type(h).__name__)}"
            raise ValueError(
                f"latent site {name!r} needs a state of width {self.state} and a mean in the model, got {got} and "
                f'{type(mean).__name__}; write infer={{"state": state, "mean": function}} at the site, as DRAW does'
            )
        found: Tensor = mean()
        if found.shape[found.dim() - x.dim() + 1 :] != x.shape[1:]:
            raise ValueError(
                f"the model's mean at {name!r} has shape {tuple(found.shape)}, the data have {tuple(x.shape)}; pass "
                "data as the likelihood has them, as x.flatten(1)"
            )
        return h, found
