"""The amortised guide: one conditional distribution per latent site, fed by one encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from guides.latents import Latent, Plate
from guides.supports import Discrete, Reshaped, check_latents
from nets import MLP, out_features

Family = Callable[[nn.Module, int], nn.Module]

ORDERS = ("top_down", "bottom_up", "independent")


class Amortized(PyroModule):
    """A guide for any model whose latent sites lie in one plate over data.

        q(z | x) = prod_j q(z_j | Pa(z_j), h),   h = activation(encoder(x))

    Pa(z_j) are all sites before z_j in the chosen order: as the model generates them (``top_down``), reversed
    (``bottom_up``), or none (``independent``). A continuous site with a constrained support is drawn in the
    unconstrained space and mapped by ``biject_to(support)``. A discrete site has logits that are linear in the
    features: binary values are Bernoulli, one-hot vectors and classes 0..C-1 categorical; a class enters the nets of
    later sites as a one-hot vector. ``pyro.infer.config_enumerate(guide)`` lets ``TraceEnum_ELBO`` sum out sites that
    are a single binary variable or class.

    Sites:
        those of ``latents``, with the model's shapes and supports.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        encoder: called with the guide's arguments as they come; returns features (batch, H) and has ``out_features`` =
            H. If it has an ``activation`` (as MLP has), that is applied to the features.
        family: makes q at a continuous site from (net, dim), as ``DiagonalNormal`` does.
        order: "top_down", "bottom_up" or "independent".
        hidden: widths of the layers between features and a site's distribution; unless told, none for a site without
            parents and one of width H for a site with parents.
        posteriors: {site: family} for the sites whose family differs. At a discrete site, dim is the number of
            logits and the module's distribution has the site's own event shape.

    Raises:
        ValueError: an unknown order or site, or a latent that is global, in more than one plate, or discrete but
            neither binary, one-hot, nor of classes 0..C-1.
        TypeError: the encoder has no ``out_features``.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, sections 2.2 and 4.1, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> from distributions import DiagonalNormal
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
        hidden: Sequence[int] | None = None,
        posteriors: Mapping[str, Family] | None = None,
    ):
        super().__init__("guide")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
        if unknown := set(posteriors or {}) - set(latents):
            raise ValueError(f"posteriors names {sorted(unknown)}, but the latent sites are {list(latents)}")
        self.data_plate: Plate = check_latents(latents)
        self.encoder, self.order, self.width = encoder, order, out_features(encoder)
        self.names = tuple(reversed(latents) if order == "bottom_up" else latents)
        self.sites = [site_of(latents[name]) for name in self.names]
        sizes = [site.size for site in self.sites]
        before = [0] * len(sizes) if order == "independent" else [sum(sizes[:j]) for j in range(len(sizes))]
        heads = {n: s.head for n, s in zip(self.names, self.sites, strict=True) if isinstance(s, Discrete)}
        chosen = heads | dict(posteriors or {})
        families = [chosen.get(name, family) for name in self.names]
        self.posteriors = nn.ModuleList(
            make(_between(encoder, parents, hidden), size)
            for make, parents, size in zip(families, before, sizes, strict=True)
        )

    def forward(self, *args, **kwargs) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        return self.draw(self.features(*args, **kwargs))

    def draw(self, h: Tensor) -> dict[str, Tensor]:
        """Runs the program on features of the data, shape (batch, H); returns {site: value}."""
        name, dim, size = self.data_plate
        values, parents = {}, []
        with pyro.plate(name, size or len(h), subsample_size=len(h) if size else None, dim=dim):
            for site_name, site, posterior in zip(self.names, self.sites, self.posteriors, strict=True):
                values[site_name] = z = pyro.sample(site_name, site.constrain(posterior(h, *parents)))
                if self.order != "independent":
                    parents.append(site.flatten(z).to(h.dtype))
        return values

    def features(self, *args, **kwargs) -> Tensor:
        """h, shape (batch, H)."""
        if args and args[0] is None:
            raise ValueError("the guide's first argument is None: q(z | x) needs the data it is conditioned on")
        h = self.encoder(*args, **kwargs)
        if h.dim() != 2 or h.shape[1] != self.width:
            raise ValueError(
                f"encoder returned shape {tuple(h.shape)}; expected (batch, {self.width}), one row per datum"
            )
        return _activation(self.encoder)(h)


def site_of(latent: Latent) -> Reshaped | Discrete:
    """What brings a latent site to vectors and back."""
    return Discrete(latent) if latent.support.is_discrete else Reshaped(latent)


def _activation(encoder: nn.Module) -> nn.Module:
    """What is applied to the encoder's features: its own activation, if it has one and a layer before it."""
    activation = getattr(encoder, "activation", None)
    if not isinstance(activation, nn.Module) or (isinstance(encoder, MLP) and not len(encoder.layers)):
        return nn.Identity()
    return activation


def _between(encoder: nn.Module, parents: int, hidden: Sequence[int] | None) -> MLP:
    """The net from features and parents to a site's distribution."""
    if hidden is None:
        hidden = (encoder.out_features,) if parents else ()
    activation = getattr(encoder, "activation", None)
    make = partial(deepcopy, activation if isinstance(activation, nn.Module) else nn.ReLU())
    return MLP(encoder.out_features + parents, *hidden, activation=make, output=make if hidden else nn.Identity)
