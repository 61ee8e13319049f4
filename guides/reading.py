"""A model run as a guide: what it says of a latent site, and of all above, is known where the site is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

Choose = Callable[[str, Mapping[str, Any], Mapping[str, Tensor]], TorchDistributionMixin]


def draw_along(
    model: Callable, names: Sequence[str], choose: Choose, args: tuple, kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Runs the model down to its last latent site, each drawn from what is chosen for it; its other sites are hidden.

        z_l ~ choose(p(z_l | z_(l+1)), z_(l+1), ..., zL),   l = L..1

    Returns:
        {site: value} of those that were drawn; a site that the run finds observed, or absent, is not.

    Args:
        model: a Pyro program; read, and never owned.
        names: of its latent sites.
        choose: (site's name, the model's message there, {site: value} so far) -> the distribution it is drawn from.
        args, kwargs: what the model is called with.

    Raises:
        TypeError: the model is a function that declares a parameter by ``pyro.param``.
    """
    reading = _Reading(model, names, choose)
    try:
        with reading:
            model(*args, **kwargs)
    except _AllDrawn as drawn:
        if drawn.reading is not reading:
            raise
    return reading.values


class _AllDrawn(Exception):
    """What ends the model's run where its last latent site is drawn: the likelihood is not needed."""

    def __init__(self, reading: _Reading):
        super().__init__("every latent site is drawn")
        self.reading = reading


class _Reading(Messenger):
    """Latent sites are drawn from what is chosen for them, all others are hidden."""

    def __init__(self, model: Callable, names: Sequence[str], choose: Choose):
        super().__init__()
        self.model, self.names, self.choose = model, names, choose
        self.known: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.names and not msg["is_observed"]:
            msg["fn"] = self.choose(msg["name"], msg, self.known)
        elif not site_is_subsample(cast(Message, msg)):
            msg["stop"] = True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name not in self.names:
            return
        self.known[name] = msg["value"]
        if not msg["is_observed"]:
            self.values[name] = msg["value"]
        if len(self.known) == len(self.names):
            raise _AllDrawn(self)

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(
                f"the model is a function that declares the parameter {msg['name']!r}, which guide and model would "
                "keep apart; write the model as a PyroModule that owns it"
            )
