"""Inference from the bottom up in which each site sees the one before it, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from typing_extensions import Unpack

from dlvm.distributions import DiagonalNormal
from dlvm.guides.amortized import Amortized, Family, Hidden, Part, SiteSettings
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent


class Chain(Amortized):
    """Amortised guide whose sites form a Markov chain away from the data.

        q(z | x) = q(z1 | h) q(z2 | z1) ... q(zL | z_(L-1)),   h = activation(encoder(x))

    z1 is the site nearest x, the last in generation order. The true posterior of a model that is itself a chain,
    p(zL) ... p(z1 | z2) p(x | z1), has this form. Unlike ``Amortized`` with the order ``bottom_up``, later sites see
    neither the features nor any site but the last.

    Sites:
        those of ``latents``, with the model's shapes and supports, but for those that are given or absent.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        encoder: see ``Amortized``; its activation is that of the later nets as well.
        family: makes q at a continuous site from (net, dim), as ``DiagonalNormal`` does.
        hidden: widths of the layers between a site and the next, or {site: widths}; one of the encoder's width unless
            told.
        settings: ``posteriors``, ``present``, see ``Amortized``.

    Raises:
        ValueError, TypeError: as ``Amortized``.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> import torch
        >>> from dlvm.nets import MLP
        >>> sites = {"z2": Latent(torch.Size([50])), "z1": Latent(torch.Size([100]))}
        >>> guide = Chain(sites, MLP(784, 200, 200, activation=nn.Tanh), hidden={"z2": (100, 100)})
        >>> list(guide(torch.zeros(5, 784)))
        ['z1', 'z2']
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        family: Family = DiagonalNormal,
        hidden: Hidden = None,
        **settings: Unpack[SiteSettings],
    ):
        check_latents(latents)
        layers = hidden if isinstance(hidden, Mapping) else dict.fromkeys(list(latents)[:-1], hidden)
        super().__init__(latents, encoder, family, order="bottom_up", hidden=layers, **settings)

    def inputs(self, h: Part, before: Sequence[Part]) -> Sequence[Part]:
        """The last of the sites before; the features where there is none."""
        return before[-1:] or [h]
