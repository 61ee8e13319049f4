"""What a guide says of one site, handed out to others: to a prior that is made of posteriors, for example."""

from __future__ import annotations

from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from dlvm.guides.amortized import Amortized, activation_of
from dlvm.guides.sites.site_types import Site


class SitePosterior(nn.Module):
    """q(z | x) of one site, by the very nets of a guide, which owns them: none is a parameter of this module.

    Args:
        encoder, posterior: the guide's.
        site: what brings vectors to the site's events.
    """

    def __init__(self, encoder: nn.Module, posterior: nn.Module, site: Site):
        super().__init__()
        self._read = encoder, posterior, site  # in a tuple, so that none is a submodule

    def forward(self, *args: Any) -> TorchDistributionMixin:
        """Data as the encoder takes them -> a distribution of the site's events for each of them."""
        encoder, posterior, site = self._read
        return site.constrain(posterior(activation_of(encoder)(encoder(*args))))


def posterior_of(guide: nn.Module, site: str) -> nn.Module:
    """q(z | x) of a guide's site as a module from data to a distribution, which reads the guide and owns nothing.

    Where a model holds it, both programs' gradients reach the guide's nets; they are trained and counted with the
    guide, and ``save`` and ``load`` keep the two together. A model that is copied, or moved to another
    device, needs its guide copied or moved along: ``deepcopy((model, guide))``.

    Returns:
        a module for ``VampPrior``, for example.

    Args:
        guide: an amortised guide, as ``Diagonal``, ``FullRank`` or ``IAF``.
        site: that is inferred from x alone: the first in the guide's order, or any where the order is "independent".

    Raises:
        TypeError: the guide is not amortised, or draws in a way of its own, as ``Ladder`` and ``Joint``.
        ValueError: it has no such site, or infers it from other sites.

    Example:
        >>> import torch
        >>> from dlvm.guides import Diagonal, Latent
        >>> from dlvm.nets import MLP
        >>> guide = Diagonal({"z": Latent(torch.Size([2]))}, MLP(4, 8))
        >>> posterior_of(guide, "z")(torch.zeros(5, 4)).batch_shape
        torch.Size([5])
    """
    if not isinstance(guide, Amortized):
        raise TypeError(
            f"guide must be an amortised guide, got {guide if isinstance(guide, type) else type(guide).__name__}; as "
            "Diagonal(latents(model, x), encoder)"
        )
    if any(getattr(type(guide), name) is not getattr(Amortized, name) for name in ("forward", "draw", "features")):
        raise TypeError(
            f"guide must draw each site from the distribution that its nets make of x, which {type(guide).__name__} "
            "does not; take Diagonal, FullRank, a flow or another guide with one family for each site"
        )
    if site not in guide.names:
        raise ValueError(f"site must be one of {', '.join(guide.names)}, got {site!r}")
    place = guide.names.index(site)
    if place and guide.order != "independent":
        raise ValueError(
            f"site {site!r} is inferred from {', '.join(guide.names[:place])} besides x, and no net gives "
            f"q({site} | x) by itself; give the guide order='top_down', or 'independent'"
        )
    return SitePosterior(guide.encoder, guide.posteriors[place], guide.sites[place])
