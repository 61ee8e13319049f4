"""A guide set free from its encoder: what is amortised becomes parameters of each datum's own."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from guides.amortized import Amortized


class Freed(PyroModule):
    """An amortised guide's family for some data, with an offset of its own per datum at every linear layer.

        q(z | x_i) = prod_j q(z_j | Pa(z_j), h_i; layers + offset_i)

    All offsets start at zero, where it is the given guide. A family whose parameters are linear in the features, as
    every Gaussian at one site, has each datum's parameters free: the family as it is. In a flow, and in the nets
    between sites, the offsets are those of biases, and the data share the weights, which train as well; they are each
    datum's own where h has one row.

    Sites:
        those of ``guide``.

    Args:
        guide: an amortised guide, of which a copy is kept.
        h: features of the data, shape (num_data, H).
        weights: train the layers' own weights as well; unless told, where offsets alone are not the whole family.
    """

    def __init__(self, guide: Amortized, h: Tensor, weights: bool | None = None):
        super().__init__("guide")
        self.twin = deepcopy(guide, {id(guide.encoder): nn.Identity()})
        self.register_buffer("h", h.detach().clone())
        linear = [part for part in self.twin.posteriors.modules() if isinstance(part, nn.Linear)]
        self.offsets = nn.ParameterList(part.weight.new_zeros(len(h), part.out_features) for part in linear)
        alone = len(linear) == len(guide.posteriors) and (len(linear) == 1 or guide.order == "independent")
        if not (weights or (weights is None and not alone)):
            _fix(self.twin)
        for part, offset in zip(linear, list(self.offsets), strict=True):
            part.register_forward_hook(lambda _, inputs, out, offset=offset: out + offset)

    @property
    def shared(self) -> list[nn.Parameter]:
        """Parameters that the data have in common."""
        return list(self.twin.parameters())

    def forward(self, *args, **kwargs) -> dict[str, Tensor]:
        """Runs the program on all the data; returns {site: value}."""
        return self.twin.draw(self.h, self.twin.known(*args, **kwargs))


def is_plain(guide: object) -> bool:
    """Whether a guide draws from its features alone, so that it can be set free."""
    return isinstance(guide, Amortized) and type(guide).forward is Amortized.forward


def free(guide: Callable[..., Amortized]) -> Callable[..., Freed]:
    """A factory of local guides, (latents, num_data) -> guide, from what makes an amortised one.

    Args:
        guide: (latents, encoder) -> amortised guide, as ``FullRank``, ``Joint`` or ``partial(IAF, depth=4)``.

    Example:
        >>> from guides import FullRank, Latent
        >>> free(FullRank)({"z": Latent(torch.Size([2]))}, 5)(torch.zeros(5, 4))["z"].shape
        torch.Size([5, 2])
    """

    def local(latents, num_data: int) -> Freed:
        made = guide(latents, nn.Linear(1, 1))
        if not is_plain(made):
            raise TypeError(
                f"{type(made).__name__} draws from more than features; pass a factory of your own, (latents, "
                "num_data) -> guide"
            )
        return Freed(made, torch.zeros(num_data, 1), weights=True)

    return local


def _fix(module: nn.Module) -> None:
    """Makes buffers of all parameters: Pyro's store lets every parameter that it meets require a gradient."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                delattr(part, name)
                part.register_buffer(name, parameter.detach().clone())
