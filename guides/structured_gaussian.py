"""A guide over time whose states are one joint Gaussian with a block-tridiagonal precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import GaussianChain, positive
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.distributions.sequences.steps import Steps, chain_steps
from dlvm.guides.over_time import features_over_time, of_steps
from dlvm.guides.sites.arguments import encoder_width
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent


class StructuredGaussian(PyroModule):
    """A guide that draws all states at once, as linear dynamics with evidence at each step, both read of the sequence.

        q(z | x) = N(z_1; .) prod_t N(z_t; A_t z_t-1, 1 / d_t) prod_t exp(l_t . z_t - z_t . M_t M_t' z_t / 2) / Z,
        A_t, d_t, l_t, M_t linear in h_t,   h_1..h_T = encoder(x, lengths)

    The posterior of a linear-Gaussian state space has this form with l_t linear in x_t and all else constant: the gap
    is 0 there. The state before and the one behind enter each state's distribution whatever the encoder reads, so that
    features of each step alone, as of an MLP, will do. It has T matrices of z_dim^2 numbers to produce and to factor.

    Sites:
        that of ``latents``, real, shape (batch, T, z_dim), for as many steps as a batch has.

    Args:
        latents: {site: Latent} of one real site with a dimension of steps, see ``latents(model, x, lengths)``.
        encoder: see ``Sequential``.

    Raises:
        ValueError, TypeError: as ``Sequential``; the steps are sites of their own.

    References:
        Black Box Variational Inference for State Space Models, Archer, Park, Buesing, Cunningham, Paninski, 2015,
            arXiv:1511.07367.

    Example:
        >>> from dlvm.nets import Recurrent
        >>> guide = StructuredGaussian({"z": Latent(torch.Size([5, 2]))}, Recurrent(3, 8, "both"))
        >>> guide(torch.zeros(4, 7, 3), torch.tensor([7, 1, 5, 2]))["z"].shape
        torch.Size([4, 7, 2])
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module):
        super().__init__("guide")
        self.data_plate = check_latents(latents)
        sites, whole = of_steps(latents)
        if whole is None:
            raise ValueError(
                f"latent sites {list(latents)[:3]} are one for each step; a Gaussian of all steps takes one real site "
                "of shape (T, D): take Sequential, or write the model with one site"
            )
        self.whole, (self.dim,) = whole, sites[whole].shape
        self.encoder, self.width = encoder, encoder_width(encoder)
        self.linear, self.root = nn.Linear(self.width, self.dim), nn.Linear(self.width, self.dim**2)
        self.moves, self.drift = nn.Linear(self.width, self.dim**2), nn.Linear(self.width, self.dim)
        self.first_linear, self.first = nn.Parameter(torch.zeros(self.dim)), nn.Parameter(torch.zeros(self.dim))
        with torch.no_grad():  # the same dynamics at each step at first
            self.moves.weight.zero_()
            self.drift.weight.zero_()
            self.moves.bias.copy_(torch.eye(self.dim).flatten() / 2)
            self.drift.bias.zero_()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        chain = self.chain(*args, **kwargs)
        with self.data_plate.over(chain.batch_shape[0]):
            return {self.whole: pyro.sample(self.whole, chain)}

    def chain(self, *args: Any, **kwargs: Any) -> GaussianChain:
        """q(z | x), event shape (T, z_dim)."""
        h, lengths = features_over_time(self.encoder, self.width, args, kwargs)
        later, shape = h[:, 1:], (self.dim, self.dim)
        root, moves = self.root(h).unflatten(-1, shape), self.moves(later).unflatten(-1, shape)
        drift = positive(self.drift(later))
        if lengths is not None:  # nothing follows the last step of a sequence
            drift = torch.where(steps_within(lengths, h.shape[1])[:, 1:, None], drift, 0)
        coupling = -drift.unsqueeze(-1) * moves
        first = positive(self.first).expand(len(h), 1, -1)
        own = torch.cat([first, positive(self.drift(later))], 1).diag_embed()
        followed = nn.functional.pad(-moves.mT @ coupling, (0, 0, 0, 0, 0, 1))
        linear = self.linear(h) + nn.functional.pad(self.first_linear.unsqueeze(0), (0, 0, 0, h.shape[1] - 1))
        return GaussianChain(linear, own + root @ root.mT + followed, coupling, lengths)

    def stepwise(self, x: Tensor, lengths: Tensor | None = None) -> Steps:
        """The guide one step at a time, for a particle filter."""
        return chain_steps(self.chain(x, lengths))
