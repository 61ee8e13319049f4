"""Inference along the model's own top-down path: the posterior reads the state that the model has reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, cat, nn
from torch import broadcast_shapes as broadcast

from dlvm.distributions import positive
from dlvm.guides.reading import draw_along
from dlvm.guides.sites.arguments import encoder_width, program
from dlvm.guides.sites.conditioning import first, parted
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent
from dlvm.nets import Bottleneck
from dlvm.nets.arguments import count


class TopDownPosterior(PyroModule):
    """Amortised guide whose every layer sees the model's state above it and the encoder's maps of the same side.

        q(z | x) = prod_{l=L..1} N(zl; loc_l, scale_l^2),   (loc_l, log scale_l) = posterior_l(s_l, maps(x) of the side)

    s_l is the state that the model itself has reached by what was drawn above, so that p and q of a layer are two
    readings of one path. The model says at each latent site what it is, by ``infer={"state": s_l}``, as ``VDVAE`` does.
    The guide runs the model down to its last latent site. Every posterior starts near N(0, I). The KL of every site is
    known in closed form.

    The model is read, never owned: its parameters are not among the guide's, and their gradient counts both uses, as
    with ``Ladder``.

    Sites:
        those of ``latents``, with the model's shapes.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``; each of (channels, side, side).
        encoder: images -> {side: maps}, as many maps as the states have channels (``out_features``), as ``Pyramid``.
        model: the Pyro program whose latents these are; the very one that is trained.
        middle: maps inside each posterior's bottleneck; half of the encoder's unless told.

    Raises:
        ValueError: a latent is no map of square sides, or global, or in more than one plate; when run, a site of the
            model without a state or with one of another width, an encoder without maps of a side, or no data.
        TypeError: the model is no program, or a function that declares parameters by ``pyro.param``; the encoder has
            no ``out_features``, or returns no maps by their sides.

    References:
        Very Deep VAEs Generalize Autoregressive Models, Child, 2021, arXiv:2011.10650.

    Example:
        >>> import torch
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.guides import latents
        >>> from dlvm.models import VDVAE
        >>> from dlvm.nets import Pyramid, Readout
        >>> x = torch.zeros(5, 64)
        >>> model = VDVAE(Bernoulli(Readout(6, 64, factor=2)), groups=[(1, 1), (4, 1)], width=6)
        >>> guide = TopDownPosterior(latents(model, x), Pyramid(64, (4, 1), width=6), model)
        >>> {site: tuple(z.shape) for site, z in guide(x).items()}
        {'z2': (5, 4, 1, 1), 'z1': (5, 4, 4, 4)}
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, model: Callable, middle: int | None = None):
        super().__init__("guide")
        program(model=model)
        check_latents(latents)
        width = encoder_width(encoder)
        middle = max(1, width // 2) if middle is None else middle
        count(middle=middle)
        for name, latent in latents.items():
            if len(latent.shape) != 3 or latent.shape[1] != latent.shape[2]:
                raise ValueError(
                    f"latents has site {name!r} of shape {tuple(latent.shape)}; expected (channels, side, side): use "
                    "Diagonal or Ladder for vectors"
                )
        self.encoder, self.latents, self.width = encoder, dict(latents), width
        self.posteriors = nn.ModuleDict(
            {
                name: Bottleneck(2 * width, middle, 2 * latent.shape[0], latent.shape[1], last=len(latents) ** -0.5)
                for name, latent in latents.items()
            }
        )
        self._model = (model,)  # in a tuple, so that it is no submodule

    @property
    def model(self) -> Callable:
        """The program that is read."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        maps, nets = self.maps(*args, **kwargs), self.posteriors  # got outside the run, as all that Pyro looks up

        def choose(name: str, msg: Mapping[str, Any], known: Mapping[str, Tensor]) -> TorchDistributionMixin:
            return posterior(nets[name], self.state_of(name, msg), maps[self.latents[name].shape[1]])

        return draw_along(self.model, tuple(self.latents), choose, args, kwargs)

    def maps(self, *args: Any, **kwargs: Any) -> Mapping[int, Tensor]:
        """{side: maps of the data, shape (batch, width, side, side)}."""
        _, args, kwargs = parted(self.latents, args, kwargs)
        if first(args, kwargs) is None:
            raise ValueError("the guide's first argument is None: q(z | x) needs the data it is conditioned on")
        found = self.encoder(*args, **kwargs)
        if not isinstance(found, Mapping):
            raise TypeError(f"encoder must return {{side: maps}}, got {type(found).__name__}; pass a Pyramid")
        if lacking := sorted({latent.shape[1] for latent in self.latents.values()} - found.keys()):
            raise ValueError(
                f"encoder has no maps of the sides {lacking} of the latents, but of {sorted(found)}; add them"
            )
        return found

    def state_of(self, name: str, msg: Mapping[str, Any]) -> Tensor:
        """What the model says that its state is at a site."""
        state = (msg["infer"] or {}).get("state")
        side = self.latents[name].shape[1]
        if not isinstance(state, Tensor) or state.shape[-3:] != (self.width, side, side):
            got = "none" if state is None else getattr(state, "shape", type(state).__name__)
            raise ValueError(
                f"latent site {name!r} needs a state of shape (*batch, {self.width}, {side}, {side}) in the model, got "
                f'{got}; write infer={{"state": state}} at the site, and let encoder and states have the same width'
            )
        return state


def posterior(net: nn.Module, state: Tensor, maps: Tensor) -> TorchDistributionMixin:
    """q(zl | s_l, x), over events of shape (channels, side, side)."""
    batch = broadcast(state.shape[:-3], maps.shape[:-3])
    both = cat([each.expand(*batch, *each.shape[-3:]) for each in (state, maps)], dim=-3)
    loc, raw = net(both).chunk(2, dim=-3)
    return dist.Normal(loc, positive(raw)).to_event(3)
