"""All latent sites as one vector, so that a family reaches across layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import register_kl

from dlvm.distributions import FullRankNormal
from dlvm.guides.amortized import Amortized, Family
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent
from dlvm.guides.sites.site_types import Reshaped, site_of

WHOLE = "joint"


class Joint(Amortized):
    """Amortised guide that draws all latent sites at once, as parts of one vector.

        u ~ q(u | h),   z_j = f_j(u_j),   log q(z | x) = log q(u | h) - sum_j log |df_j / du_j|

    u is the concatenation of all sites, flattened and unconstrained, in generation order; f_j reshapes its part and
    maps it to the site's support. A full-rank Gaussian or a flow over u has no independence between layers, nor an
    order of them. In the program, u is an auxiliary site that holds the density, and every latent site follows from it;
    a site by itself therefore has no KL in closed form.

    Sites:
        joint: u, shape (batch, D), real; auxiliary.
        those of ``latents``, with the model's shapes and supports.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        encoder: see ``Amortized``.
        family: makes q(u | h) from (net, D), as ``FullRankNormal`` does.
        hidden: widths of the layers between features and q(u | h), none unless told.

    Raises:
        ValueError: a latent is discrete, on a sphere, masked, global, in more than one plate, or named "joint"; when
            called, an argument observes a latent site: all are drawn at once, always.
        TypeError: the encoder has no ``out_features``.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, sections 2.5.1 and 4.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.nets import MLP
        >>> guide = Joint({"z2": Latent(torch.Size([2])), "z1": Latent(torch.Size([3]))}, MLP(4, 8))
        >>> guide(torch.zeros(5, 4))["z1"].shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        family: Family = FullRankNormal,
        hidden: Sequence[int] | None = None,
    ):
        plate = check_latents(latents)
        for name, latent in latents.items():
            if site_of(latent).head:
                kind = "discrete" if latent.support.is_discrete else "a direction"
                raise ValueError(
                    f"latent site {name!r} is {kind} and has no place in one real vector; use Amortized, where it "
                    "has a head of its own"
                )
            if latent.mask is not None:
                raise ValueError(
                    f"latent site {name!r} is masked in the model, and a vector of all sites has no density without "
                    "it; use Amortized, as Diagonal or FullRank, where each site is left out for the data that lack it"
                )
        if WHOLE in latents:
            raise ValueError(f"a latent site is named {WHOLE!r}, as the vector of all sites is; rename it in the model")
        parts = {name: Reshaped(latent) for name, latent in latents.items()}
        whole = Latent(torch.Size([sum(part.size for part in parts.values())]), plates=(plate,))
        super().__init__({WHOLE: whole}, encoder, family, hidden=hidden)
        self.parts, self.latents = parts, dict(latents)
        self.event_dims = {name: len(latent.shape) for name, latent in latents.items()}

    def draw(self, h: Tensor, known: Mapping[str, Tensor | None] | None = None) -> dict[str, Tensor]:
        """Runs the program on features of the data, shape (batch, H); returns {site: value}."""
        if known:
            raise ValueError(
                f"latent sites {sorted(known)} are given, and this guide draws all its sites at once; use Amortized, "
                "where they enter the distributions of the others, or make a Joint of the others alone"
            )
        with self.data_plate.over(len(h)):
            whole = pyro.sample(WHOLE, self.posteriors[0](h), infer={"is_auxiliary": True})
            pieces = whole.split([part.size for part in self.parts.values()], dim=-1)
            return {
                site: pyro.sample(site, placed_at(piece, part, self.event_dims[site]))
                for piece, (site, part) in zip(pieces, self.parts.items(), strict=True)
            }


class Placed(dist.Delta):
    """A value that another site's draw has fixed, with a log-density of its own."""


@register_kl(Placed, dist.Distribution)
def placed_to_any(q: Placed, p: dist.Distribution) -> Tensor:
    """log q - log p at the value, shape (*batch), nats; the divergence that Pyro has for a Delta leaves out log q."""
    return q.log_density - p.log_prob(q.v)


def placed_at(flat: Tensor, part: Reshaped, event_dim: int) -> Placed:
    """The site's value for its part of the vector; its log-density is what the map adds to that of the vector."""
    value, volume = part.moved(flat)
    return Placed(value, log_density=-volume, event_dim=event_dim)
