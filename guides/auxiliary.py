"""Auxiliary latent variables: a guide made richer by a variable that only it and a reverse model know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides.amortized import Family
from dlvm.guides.sites.arguments import encoder_width, family_of, program
from dlvm.guides.sites.conditioning import first, parted
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent, Node
from dlvm.guides.sites.site_types import site_of
from dlvm.nets import MLP
from dlvm.nets.arguments import count, made, widths


class Augmented(PyroModule):
    """A model with an auxiliary site after all others, whose distribution leaves that of the model as it was.

        p(x, z, a) = p(x, z) r(a | x, z)

    A guide q(a | x) q(z | a, x) of it has the marginal q(z | x) = int q(z | a, x) q(a | x) da, as rich a mixture as a
    allows. Its bound is below that of the marginal by E KL(q(a | x, z) || r(a | x, z)), and below log p(x). The reverse
    model r is trained with the rest, by any objective. ``augmented.latents`` has a before all other sites, as the guide
    is to draw it: ``Diagonal(augmented.latents, encoder)``, or any other family.

    Sites:
        those of the model; and a: shape (batch, dim), real; latent.

    Args:
        model: a Pyro program whose latent sites lie in one plate over data.
        latents: its latent sites, from ``latents(model, *args)``.
        encoder: of the reverse model, called with the program's arguments without those named after a latent site;
            returns (batch, H), ``out_features`` = H. A site that the model lacks for some arguments enters r as zeros.
        dim: number of dimensions of a.
        family: of r(a | x, z), from (net, dim).
        hidden: widths of the layers between (features, z) and r; one layer of width H unless told, () for none.

    Raises:
        ValueError: the model has a site named a, or latent sites that a guide cannot be built for; a size is below 1;
            when run, there are no data.
        TypeError: an argument is of another type.

    References:
        Auxiliary Deep Generative Models, Maaloe, Sonderby, Sonderby, Winther, 2016, arXiv:1602.05473.
        Hierarchical Variational Models, Ranganath, Tran, Blei, 2016, arXiv:1511.02386.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> augmented = Augmented(model, latents(model, x), MLP(3, 8), dim=1)
        >>> list(Diagonal(augmented.latents, MLP(3, 8))(x))
        ['a', 'z']
    """

    def __init__(
        self,
        model: Callable,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        dim: int,
        family: Family = DiagonalNormal,
        hidden: tuple[int, ...] | None = None,
    ):
        super().__init__("augmented")
        program(model=model)
        plate = check_latents(latents)
        if "a" in latents:
            raise ValueError("latents has a site named 'a' already; rename it, since that is the auxiliary one's name")
        count(dim=dim)
        family_of(family=family)
        width = encoder_width(encoder)
        hidden = (width,) if hidden is None else hidden
        widths(hidden=hidden)
        self.model, self.encoder, self.plate = model, encoder, plate
        self.latents = {"a": Latent(torch.Size([dim]), plates=(plate,)), **latents}
        self.sites = {name: site_of(latent) for name, latent in latents.items()}
        net = MLP(width + sum(site.size for site in self.sites.values()), *hidden, activation=nn.Tanh, output=nn.Tanh)
        self.reverse = made("family", family, net if hidden else MLP(net.in_features), dim)

    def forward(self, *args: Any, **kwargs: Any) -> object:
        """Runs the model, then draws a; returns what the model returns."""
        if first(args, kwargs) is None:
            raise ValueError("the augmented model needs data, since r(a | x, z) is given them; draw from the model")
        with poutine.trace() as traced:
            result = self.model(*args, **kwargs)
        _, args, kwargs = parted(self.latents, args, kwargs)
        h = self.encoder(*args, **kwargs)
        nodes: Mapping[str, Node] = traced.trace.nodes
        z = [
            site.flatten(nodes[name]["value"]) if name in nodes else h.new_zeros(1, site.size)
            for name, site in self.sites.items()
        ]
        name, dim, size, *_ = self.plate
        rows = nodes[name]["value"]
        with poutine.block(hide=[name]):  # a plate of the same name and rows, not a second one
            plate = pyro.plate(name, size or len(rows), subsample=rows, dim=dim)
        with plate:
            pyro.sample("a", self.reverse(h, *z))
        return result
