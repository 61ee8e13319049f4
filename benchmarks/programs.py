"""Each case as a Pyro program: a model, a guide and an objective, as a user of the project would write them."""

from __future__ import annotations

from typing import NamedTuple

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.catalogue import Case, Sizes
from benchmarks.sequences import Smoother, StateSpace
from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.guides import IAF, Diagonal, Sequential, latents
from dlvm.inference import IWAE
from dlvm.models import VAE, DeepMarkov
from dlvm.nets import MLP, Recurrent


class Program(NamedTuple):
    """What is handed to ``SVI``."""

    model: PyroModule
    guide: PyroModule
    objective: ELBO


class Hierarchy(PyroModule):
    """A chain of latent vectors, each given the one above it.

        p(x, z) = p(z_L) prod_l p(z_l | z_{l+1}) p(x | z_1)

    Sites:
        z1..zL: shape (batch, z_dim), real; latent, z1 nearest x.
        x: shape (batch, x_dim), binary; observed, or drawn where ``x=None``.

    Args:
        sites: L.
        z_dim: dimensions of each latent.
        hidden: width of the layer between two latents.
        likelihood: p(x | z1), a module from z1 to a Pyro distribution.

    References:
        Ladder Variational Autoencoders, Sonderby, Raiko, Maaloe, Sonderby, Winther, 2016, arXiv:1602.02282; the plain
            hierarchy there.
    """

    def __init__(self, sites: int, z_dim: int, hidden: int, likelihood: nn.Module):
        super().__init__("model")
        self.prior = StandardNormal(z_dim)
        self.conditionals = nn.ModuleList(
            DiagonalNormal(MLP(z_dim, hidden, output=nn.ReLU), z_dim) for _ in range(sites - 1)
        )
        self.likelihood = likelihood

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """x, shape (batch, x_dim)."""
        below = len(self.conditionals)
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample(f"z{below + 1}", self.prior())
            for level, conditional in zip(range(below, 0, -1), self.conditionals, strict=True):
                z = pyro.sample(f"z{level}", conditional(z))
            return pyro.sample("x", self.likelihood(z), obs=x)


def make(case: Case) -> Program:
    """Modules of the case with parameters of their own."""
    sizes = case.sizes
    if case.steps:
        widths = sizes.frame_dim, sizes.state_dim, sizes.state_hidden
        if case.chain:
            return _chain(*widths)
        return Program(StateSpace(*widths), Smoother(*widths), Trace_ELBO())
    model, guide = _images(case, sizes)
    if case.num_particles > 1:
        return Program(model, guide, IWAE(case.num_particles))
    return Program(model, guide, TraceMeanField_ELBO() if case.analytic else Trace_ELBO())


def _chain(x_dim: int, z_dim: int, hidden: int) -> Program:
    transition = DiagonalNormal(MLP(z_dim, hidden, output=nn.ReLU), z_dim)
    model = DeepMarkov(z_dim, Bernoulli(MLP(z_dim, hidden, x_dim)), transition)
    guide = Sequential(latents(model, torch.zeros(2, 3, x_dim)), Recurrent(x_dim, hidden, "backward"))
    return Program(model, guide, Trace_ELBO())


def _images(case: Case, sizes: Sizes) -> tuple[PyroModule, PyroModule]:
    x_dim, hidden = sizes.x_dim, sizes.hidden
    z_dim = sizes.z_dim if case.sites == 1 else sizes.site_dim
    likelihood = Bernoulli(MLP(z_dim, hidden, hidden, x_dim))
    model = VAE(z_dim, likelihood) if case.sites == 1 else Hierarchy(case.sites, z_dim, sizes.site_hidden, likelihood)
    sites = latents(model, torch.zeros(2, x_dim))
    if case.depth:
        encoder = MLP(x_dim, hidden, hidden, sizes.context)
        return model, IAF(sites, encoder, depth=case.depth, width=sizes.made_hidden)
    encoder = MLP(x_dim, hidden, hidden)
    return model, Diagonal(sites, encoder, hidden=(sizes.site_hidden,) if case.sites > 1 else None)
