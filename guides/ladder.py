"""Top-down inference that corrects what the model itself expects of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.distributions.normal import SelfScoredNormal
from dlvm.distributions.supports import is_real
from dlvm.guides.amortized import Amortized, Family
from dlvm.guides.reading import draw_along
from dlvm.guides.sites.arguments import program
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent
from dlvm.guides.sites.site_types import Site

Gaussian = dist.Normal | dist.MultivariateNormal


class Ladder(Amortized):
    """Amortised guide that merges the model's own p(z_l | z_(l+1)) with what the encoder says of the layer.

        q(z | x) = q(zL | x) prod_l q(z_l | z_(l+1), x)
        precision:  q(z_l | ...) = N(z_l; loc_p, scale_p^2) N(z_l; loc_q, scale_q^2) / normaliser
                    loc = (loc_q / scale_q^2 + loc_p / scale_p^2) / (1 / scale_q^2 + 1 / scale_p^2)
        residual:   q(z_l | ...) = N(z_l; loc_p + loc_q, (scale_p scale_q)^2)

    (loc_p, scale_p) are those of the model for the values drawn so far: the guide runs the model down to its last
    latent site, each draw being the guide's. (loc_q, scale_q) depend on the features of x, and with ``residual`` on the
    draws above as well. The KL of every site is known in closed form. Sites that the run finds
    observed, or absent, are not drawn.

    The model is read, never owned: its parameters are not among the guide's. Their gradient counts both uses of p, in
    the model and in the guide; an objective that treats the two apart, as ``Separate``, ``CUBO`` and ``RWS`` do, treats
    the second use as it treats the guide.

    Sites:
        those of ``latents``, with the model's shapes.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        encoder: see ``Amortized``.
        model: the Pyro program whose latents these are, a diagonal Gaussian each; the very one that is trained.
        merge: "precision" (the ladder VAE) or "residual" (the NVAE).
        family: makes the encoder's Gaussian, ``DiagonalNormal`` or ``FullRankNormal``.
        hidden: widths of the layers between features and a site's Gaussian, see ``Amortized``.

    Raises:
        ValueError: an unknown merge; a latent that is not real, global, or in more than one plate; when run, a site
            that is no diagonal Gaussian in the model or another family in the guide.
        TypeError: the model is no program, or a function that declares parameters by ``pyro.param``; the encoder has
            no ``out_features``.

    References:
        Ladder Variational Autoencoders, Sonderby, Raiko, Maaloe, Sonderby, Winther, 2016, arXiv:1602.02282.
        NVAE: A Deep Hierarchical Variational Autoencoder, Vahdat, Kautz, 2020, arXiv:2007.03898.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from dlvm.guides import latents
        >>> from dlvm.nets import MLP
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z2 = pyro.sample("z2", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        ...         z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)
        >>> x = torch.zeros(5, 3)
        >>> Ladder(latents(model, x), MLP(3, 8), model)(x)["z1"].shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        model: Callable,
        merge: str = "precision",
        family: Family = DiagonalNormal,
        hidden: Sequence[int] | None = None,
    ):
        if merge not in tuple(MERGES):
            raise ValueError(f"merge must be one of {', '.join(MERGES)}, got {merge!r}")
        if not isinstance(latents, Mapping) or (
            hasattr(model, "out_features") and not hasattr(encoder, "out_features")
        ):
            got = ", ".join(type(each).__name__ for each in (latents, encoder, model))
            raise TypeError(
                f"Ladder takes latents, encoder and model in this order, got {got}; write Ladder(latents(model, x), "
                "encoder, model)"
            )
        program(model=model)
        check_latents(latents)
        for name, latent in latents.items():
            if not is_real(latent.support):
                raise ValueError(
                    f"latent site {name!r} has support {latent.support}; a ladder merges Gaussians over real values: "
                    "use Amortized(..., order='top_down')"
                )
        super().__init__(latents, encoder, family, order=MERGES[merge].order, hidden=hidden)
        self.merge = merge
        self._model = (model,)  # in a tuple, so that it is no submodule

    @property
    def model(self) -> Callable:
        """The program that is read."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        h, posteriors = (
            self.features(*args, **kwargs),
            self.posteriors,
        )  # got outside the run, as all that Pyro looks up

        def choose(name: str, msg: Mapping[str, Any], known: Mapping[str, Tensor]) -> TorchDistributionMixin:
            j = self.names.index(name)
            q = posteriors[j](*self.inputs(h, [self._vector(before, known, h) for before in range(j)]))
            return merged(self.merge, q, name, msg["fn"], self.sites[j])

        return draw_along(self.model, self.names, choose, args, kwargs)

    def _vector(self, j: int, known: Mapping[str, Tensor], h: Tensor) -> Tensor:
        """Value of a site before as a vector; zeros where the model lacks it."""
        name, site = self.names[j], self.sites[j]
        return site.flatten(known[name]) if name in known else h.new_zeros(len(h), site.size)


def merged(
    merge: str, q: TorchDistributionMixin, name: str, prior: TorchDistributionMixin, site: Site
) -> TorchDistributionMixin:
    """The guide's distribution at a site.

    Returns:
        distribution over events of the site; its batch shape is that of ``q`` and ``prior`` broadcast.

    Args:
        merge: a key of ``MERGES``.
        q: the encoder's Gaussian over vectors of ``site.size`` numbers.
        name: of the site.
        prior: the model's distribution over its events.
        site: between vectors and events.

    Raises:
        ValueError: ``prior`` is no diagonal Gaussian, or ``q`` neither diagonal nor full-rank.
    """
    both = MERGES[merge].function(q, *_flat(name, prior))
    if isinstance(both, dist.MultivariateNormal):
        return site.constrain(both)
    loc, scale = (value.reshape(*both.batch_shape[:-1], *prior.event_shape) for value in (both.loc, both.scale))
    return dist.Normal(loc, scale).to_event(prior.event_dim)


def _flat(name: str, prior: TorchDistributionMixin) -> tuple[Tensor, Tensor]:
    """Location and scale of a diagonal Gaussian as vectors, shape (*batch, size)."""
    base: object = prior
    while isinstance(base, dist.Independent):
        base = base.base_dist
    if not isinstance(base, dist.Normal):
        raise ValueError(
            f"latent site {name!r} is {type(base).__name__} in the model; a ladder merges with a diagonal Gaussian: "
            "write dist.Normal(loc, scale).to_event(1) there, or use Amortized(..., order='top_down')"
        )
    size = math.prod(prior.event_shape)
    return base.loc.reshape(*prior.batch_shape, size), base.scale.reshape(*prior.batch_shape, size)


def _precision(q: TorchDistributionMixin, loc: Tensor, scale: Tensor) -> Gaussian:
    """The normalised product of q and N(loc, scale^2)."""
    if isinstance(q, dist.MultivariateNormal):
        found = q.precision_matrix
        upper = torch.linalg.cholesky((found + scale.pow(-2).diag_embed()).flip(-2, -1)).flip(-2, -1)
        identity = torch.eye(scale.shape[-1], dtype=upper.dtype, device=upper.device)
        tril = torch.linalg.solve_triangular(upper.mT, identity, upper=False)
        pull = tril @ (tril.mT @ (found @ (q.loc - loc).unsqueeze(-1)))
        return SelfScoredNormal(loc + pull.squeeze(-1), scale_tril=tril)
    base = _diagonal(q)
    share = scale.square() / (scale.square() + base.scale.square())
    return dist.Normal(torch.lerp(*torch.broadcast_tensors(loc, base.loc, share)), base.scale * share.sqrt())


def _residual(q: TorchDistributionMixin, loc: Tensor, scale: Tensor) -> Gaussian:
    """q moved by loc and stretched by scale about its own mean."""
    if isinstance(q, dist.MultivariateNormal):
        return SelfScoredNormal(loc + q.loc, scale_tril=scale.unsqueeze(-1) * q.scale_tril)
    base = _diagonal(q)
    return dist.Normal(loc + base.loc, scale * base.scale)


def _diagonal(q: TorchDistributionMixin) -> dist.Normal:
    base = q.base_dist if isinstance(q, dist.Independent) else q
    if not isinstance(base, dist.Normal):
        raise ValueError(
            f"family makes {type(q).__name__}, which a ladder cannot merge; use DiagonalNormal or FullRankNormal"
        )
    return base


class Merge(NamedTuple):
    """A way to merge, and the order in which the encoder's Gaussians see the draws before them."""

    function: Callable[[TorchDistributionMixin, Tensor, Tensor], Gaussian]
    order: str


MERGES = {"precision": Merge(_precision, "independent"), "residual": Merge(_residual, "top_down")}
