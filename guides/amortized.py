"""The amortised guide: one conditional distribution per latent site, fed by one encoder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Any, TypedDict, TypeVar

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.guides.sites.arguments import encoder_width, family_of, function
from dlvm.guides.sites.conditioning import Arguments, check_given, check_rows, first, parted
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent, Plate
from dlvm.guides.sites.masks import masking
from dlvm.guides.sites.site_types import site_of
from dlvm.nets import MLP
from dlvm.nets.arguments import made, widths

Family = Callable[[nn.Module, int], nn.Module]
Hidden = Sequence[int] | Mapping[str, Sequence[int] | None] | None
Part = TypeVar("Part")  # Tensor or int

Present = Callable[..., Collection[str]]

ORDERS = ("top_down", "bottom_up", "independent")


class SiteSettings(TypedDict, total=False):
    """What every guide passes on to ``Amortized``."""

    posteriors: Mapping[str, Family] | None
    present: Present | None


class Settings(SiteSettings, total=False):
    """What a guide of one family passes on to ``Amortized``."""

    order: str
    hidden: Hidden


class Amortized(PyroModule):
    """A guide for any model whose latent sites lie in one plate over data.

        q(z | x) = prod_j q(z_j | Pa(z_j), h),   h = activation(encoder(x))

    Pa(z_j) are all sites before z_j in the chosen order: as the model generates them (``top_down``), reversed
    (``bottom_up``), or none (``independent``). A continuous site with a constrained support is drawn in the
    unconstrained space and mapped by ``biject_to(support)``. A discrete site has logits that are linear in the
    features: binary values are Bernoulli, one-hot vectors and classes 0..C-1 categorical; a class enters the nets of
    later sites as a one-hot vector. ``pyro.infer.config_enumerate(guide)`` lets ``TraceEnum_ELBO`` sum out sites that
    are a single binary variable or class. A direction is von Mises-Fisher.

    A site that is given, as y in guide(x, y=labels), is not drawn; its value enters the nets of later sites as a drawn
    one would, q(z | x, y), and, with the order ``independent``, nothing.

    Sites:
        those of ``latents``, with the model's shapes and supports, but for those that are given or absent.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        encoder: called with the guide's arguments as they come, without those named after a latent site; returns
            features (batch, H) and has ``out_features`` = H. If it has an ``activation`` (as MLP has), that is applied
            to the features.
        family: makes q at a continuous site from (net, dim), as ``DiagonalNormal`` does.
        order: "top_down", "bottom_up" or "independent".
        hidden: widths of the layers between features and a site's distribution, or {site: widths}; unless told, none
            for a site without parents and one of width H for a site with parents.
        posteriors: {site: family} for the sites whose family differs. At a discrete site, dim is the number of
            logits, at a direction d, and the module's distribution has the site's own event shape.
        present: called with the guide's arguments, returns the names of the sites that the model has then; the others
            are not drawn, and enter the nets of later sites as zeros. Unless told, the model has all sites always. A
            dict {site: mask}, with one bool per datum, says for which data a site counts that the model masks; it is
            not needed where the mask is an argument or a part of one, see ``Latent.mask``.

    Raises:
        ValueError: an unknown order or site; a latent that is global, in more than one plate, discrete but neither
            binary, one-hot, nor of classes 0..C-1, or of another support to which no map is known; when called, no
            data, more than the plate holds, features or given values of another shape, or ``present`` names an unknown
            site.
        TypeError: an argument is of another type, the encoder has no ``out_features``; when called, what is given for a
            site or returned by the encoder is no tensor, or what ``present`` returns no collection.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, sections 2.2 and 4.1, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> from dlvm.distributions import DiagonalNormal
        >>> guide = Amortized({"z": Latent(torch.Size([2]))}, MLP(4, 8), DiagonalNormal)
        >>> guide(torch.zeros(5, 4))["z"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        family: Family,
        order: str = "top_down",
        hidden: Hidden = None,
        posteriors: Mapping[str, Family] | None = None,
        present: Present | None = None,
    ):
        super().__init__("guide")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.data_plate: Plate = check_latents(latents)
        layers = hidden if isinstance(hidden, Mapping) else dict.fromkeys(latents, hidden)
        for word, named in (("posteriors", {} if posteriors is None else posteriors), ("hidden", layers)):
            if not isinstance(named, Mapping):
                raise TypeError(
                    f"{word} must be a dict of sites, got {named!r}; write {{{next(iter(latents))!r}: ...}}"
                )
            if unknown := set(named) - set(latents):
                raise ValueError(f"{word} names {sorted(unknown, key=str)}, but the latent sites are {list(latents)}")
        family_of(family=family, **{f"posteriors[{name!r}]": make for name, make in (posteriors or {}).items()})
        function(present=present)
        self.encoder, self.order, self.width, self.present = encoder, order, encoder_width(encoder), present
        self.names = tuple(latents)[:: -1 if order == "bottom_up" else 1]
        self.sites = [site_of(latents[name]) for name in self.names]
        self.latents = dict(latents)
        heads = {name: site.head for name, site in zip(self.names, self.sites, strict=True) if site.head}
        chosen = heads | dict(posteriors or {})
        sizes = [site.size for site in self.sites]
        self.posteriors = nn.ModuleList(
            made(_named(name, posteriors), chosen.get(name, family), self._between(sizes[:j], layers.get(name)), size)
            for j, (name, size) in enumerate(zip(self.names, sizes, strict=True))
        )

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        with self.masked(*args, **kwargs):
            return self.draw(self.features(*args, **kwargs), self.known(*args, **kwargs))

    def draw(self, h: Tensor, known: Mapping[str, Tensor | None] | None = None) -> dict[str, Tensor]:
        """Runs the program on features of the data, shape (batch, H); returns {site: value}, of drawn sites alone.

        ``known``: the sites that are not drawn, see ``known(*args)``.
        """
        values: dict[str, Tensor] = {}
        before: list[Tensor] = []
        known = known or {}
        with self.data_plate.over(len(h)):
            for site_name, site, posterior in zip(self.names, self.sites, self.posteriors, strict=True):
                q = None
                if site_name in known:
                    z = known[site_name]
                    check_rows(site_name, z, h)
                else:
                    q = site.constrain(posterior(*self.inputs(h, before)))
                    z = values[site_name] = pyro.sample(site_name, q)
                before.append(h.new_zeros(len(h), site.size) if z is None else site.flatten(z, q).to(h.dtype))
        return values

    def inputs(self, h: Part, before: Sequence[Part]) -> Sequence[Part]:
        """What the net of a site sees, of the features and the sites before it: of their values or of their widths."""
        return [h] if self.order == "independent" else [h, *before]

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """h, shape (batch, H)."""
        _, args, kwargs = self._parted(args, kwargs)
        if (args or kwargs) and first(args, kwargs) is None:
            raise ValueError("the guide's first argument is None: q(z | x) needs the data it is conditioned on")
        try:
            h = self.encoder(*args, **kwargs)
        except ValueError as error:
            if len(args) < 2:
                raise
            raise ValueError(
                f"{error}; the encoder gets all {len(args)} arguments of the guide: write one whose forward takes them "
                'and uses what it needs, or let batches hold x alone, as by loader.giving("x")'
            ) from error
        if not isinstance(h, Tensor):
            raise TypeError(f"encoder returned {type(h).__name__}; expected a tensor, (batch, {self.width})")
        if h.dim() != 2 or h.shape[1] != self.width or not len(h):
            raise ValueError(
                f"encoder returned shape {tuple(h.shape)}; expected (batch, {self.width}), one row per datum, and at "
                "least one; pass data of shape (batch, ...)"
            )
        if self.data_plate.size is not None and len(h) > self.data_plate.size:
            raise ValueError(
                f"a batch of {len(h)} data does not fit the plate {self.data_plate.name!r}, whose size is "
                f"{self.data_plate.size}; pass no more data than that, or build latents from a model of the right size"
            )
        return activation_of(self.encoder)(h)

    def known(self, *args: Any, **kwargs: Any) -> Mapping[str, Tensor | None]:
        """The sites that are not drawn for these arguments: {site: given value, or None where the model lacks it}."""
        given = self._parted(args, kwargs).given
        check_given(self.latents, given)
        if self.present is None:
            return given
        there = self.present(*args, **kwargs)
        if not isinstance(there, Collection) or isinstance(there, str | Tensor):
            raise TypeError(f"present must return names of sites, got {there!r}; return a list, as ['z']")
        if unknown := set(there) - set(self.names):
            raise ValueError(
                f"present returned {sorted(unknown, key=str)}, but the latent sites are {sorted(self.names)}"
            )
        return {name: None for name in self.names if name not in there} | given

    def masked(self, *args: Any, **kwargs: Any) -> AbstractContextManager:
        """Inside, ``draw`` counts each site for the data for which the model counts it."""
        masks = self.masks(*args, **kwargs)
        return masking(masks) if masks else nullcontext()

    def masks(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """{site: which data it counts for, (batch,) bools}, of the sites that the model masks or ``present`` does."""
        there = self.present(*args, **kwargs) if self.present else {}
        said = dict(there) if isinstance(there, Mapping) else {}
        for name, mask in said.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
                raise TypeError(
                    f"present must give {name!r} a mask of one bool per datum, got {_told(mask)}; write mask[:, 0]"
                )
        found = {n: latent.mask for n, latent in self.latents.items() if latent.mask and n not in said}
        if self.present:
            found = {name: mask for name, mask in found.items() if name in there}
        return said | {name: mask(args, kwargs) for name, mask in found.items()}

    def _parted(self, args: tuple, kwargs: dict) -> Arguments:
        return parted(self.latents, args, kwargs)

    def _between(self, before: Sequence[int], hidden: Sequence[int] | None) -> MLP:
        """The net from what a site sees to its distribution, given the widths of the sites before it."""
        if hidden is None:
            hidden = (self.width,) if before and self.order != "independent" else ()
        widths(hidden=hidden)
        activation = getattr(self.encoder, "activation", None)
        make = partial(deepcopy, activation if isinstance(activation, nn.Module) else nn.ReLU())
        inputs = self.inputs(self.width, before)
        return MLP(sum(inputs), *hidden, activation=make, output=make if hidden else nn.Identity)


def _told(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _named(site: str, posteriors: Mapping[str, Family] | None) -> str:
    """The argument that a site's family comes from."""
    return f"posteriors[{site!r}]" if posteriors and site in posteriors else "family"


def activation_of(encoder: nn.Module) -> nn.Module:
    """What is applied to the encoder's features: its own activation, if it has one and a layer before it."""
    activation = getattr(encoder, "activation", None)
    if not isinstance(activation, nn.Module) or (isinstance(encoder, MLP) and not len(encoder.layers)):
        return nn.Identity()
    return activation
