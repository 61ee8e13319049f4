"""A guide set free from its encoder: what is amortised becomes parameters of each datum's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeGuard

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.guides.amortized import Amortized
from dlvm.guides.sites.latents import Latent
from dlvm.nets import out_features
from dlvm.nets.arguments import made


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
        _check(guide, h)
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

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on all the data; returns {site: value}."""
        with self.twin.masked(*args, **kwargs):
            return self.twin.draw(self.h, self.twin.known(*args, **kwargs))


def is_plain(guide: object) -> TypeGuard[Amortized]:
    """Whether a guide draws from its features alone, so that it can be set free."""
    return isinstance(guide, Amortized) and type(guide).forward is Amortized.forward


def free(guide: Callable[..., Amortized]) -> Callable[..., Freed]:
    """A factory of local guides, (latents, num_data) -> guide, from what makes an amortised one.

    Args:
        guide: (latents, encoder) -> amortised guide, as ``FullRank``, ``Joint`` or ``partial(IAF, depth=4)``.

    Example:
        >>> from dlvm.guides import FullRank, Latent
        >>> free(FullRank)({"z": Latent(torch.Size([2]))}, 5)(torch.zeros(5, 4))["z"].shape
        torch.Size([5, 2])
    """

    if isinstance(guide, nn.Module) or not callable(guide):
        raise TypeError(
            f"guide must make an amortised guide from (latents, encoder), got {type(guide).__name__}; pass a class, as "
            "FullRank, or partial(IAF, depth=4)"
        )

    def local(latents: Mapping[str, Latent], num_data: int) -> Freed:
        amortised = made("guide", guide, latents, nn.Linear(1, 1))
        if not is_plain(amortised):
            raise TypeError(
                f"guide makes a {type(amortised).__name__}, which draws from more than features; pass a factory of "
                "your own, (latents, num_data) -> guide"
            )
        return Freed(amortised, torch.zeros(num_data, 1), weights=True)

    return local


def _check(guide: object, h: object) -> None:
    if not is_plain(guide):
        raise TypeError(
            f"guide must be an amortised guide that draws from features alone, got {guide!r}; pass one such as "
            "Diagonal(latents(model, x), encoder)"
        )
    width = out_features(guide.encoder)
    if not isinstance(h, Tensor) or not h.is_floating_point():
        raise TypeError(f"h must be a tensor of floats, got {type(h).__name__}; pass guide.features(x)")
    if h.dim() != 2 or not len(h) or h.shape[1] != width:
        raise ValueError(f"h must have shape (num_data, {width}), got {tuple(h.shape)}; pass guide.features(x)")


def _fix(module: nn.Module) -> None:
    """Makes buffers of all parameters: Pyro's store lets every parameter that it meets require a gradient."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                delattr(part, name)
                part.register_buffer(name, parameter.detach().clone())
