"""Guides over time: each state is inferred from the one before it and from what was read of the sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import ConditionalChain, EachStep
from dlvm.distributions.sequences.steps import Steps, chain_steps
from dlvm.guides.families import Diagonal
from dlvm.guides.over_time import (
    StepGuide,
    StepPosterior,
    combining,
    draw_steps,
    features_over_time,
    first_posterior,
    of_steps,
    step_guide,
)
from dlvm.guides.sites.arguments import encoder_width
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent
from dlvm.guides.sites.site_types import site_of
from dlvm.nets import MLP, Combiner
from dlvm.nets.arguments import made


class Sequential(PyroModule):
    """A guide for any model whose latent sites lie over time, with any family at each step.

        q(z | x) = prod_t q(z_t | z_t-1, h_t),   h_1..h_T = encoder(x, lengths),   z_0 learned

    With an encoder that reads backward, h_t tells of x_t..x_T and the guide smooths, as the true posterior of a state
    space does; with one that reads forward it filters. The model has one site with a dimension of steps, or sites
    ``z_1..z_T``, of which there may be several at each step, ``s_1, z_1, s_2, z_2``: each then depends on all of the
    step before, and on those of its own step that the model draws before it. The number of steps is that of each batch.
    Where the programs are called with lengths, steps behind a sequence's end count nothing, as in the model.

    Sites:
        those of ``latents``, with the model's shapes and supports, for as many steps as a batch has.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, x, lengths)``.
        encoder: (x, lengths) -> features of each step, (batch, T, H), with ``out_features`` = H, as ``Recurrent``;
            called with the guide's arguments as they come.
        family: makes the guide of a step from its latents and a net: an amortised guide, as ``Diagonal``, ``FullRank``,
            ``IAF``, or ``partial(IAF, depth=4)``.
        combiner: (width of the last state, H) -> the net of both, of whose features q(z_t | z_t-1, h_t) is made;
            ``Combiner`` unless told.

    Raises:
        ValueError: sites are not over time, differ from step to step, or lie in several plates; a site with a dimension
            of steps is not of real vectors; when called, the encoder returns other features.
        TypeError: the encoder has no ``out_features``, ``family`` makes no guide whose sites are drawn one by one from
            features, or ``combiner`` no net.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869.

    Example:
        >>> from dlvm.nets import Recurrent
        >>> guide = Sequential({"z": Latent(torch.Size([5, 2]))}, Recurrent(3, 8))
        >>> guide(torch.zeros(4, 7, 3), torch.tensor([7, 1, 5, 2]))["z"].shape
        torch.Size([4, 7, 2])
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        family: StepGuide = Diagonal,
        combiner: Callable[[int, int], nn.Module] | None = None,
    ):
        super().__init__("guide")
        self.data_plate = check_latents(latents)
        sites, self.whole = of_steps(latents)
        self.encoder, self.width = encoder, encoder_width(encoder)
        size = sum(site_of(latent).size for latent in sites.values())
        make = partial(Combiner, parts=getattr(encoder, "directions", 1)) if combiner is None else combiner
        self.step = step_guide(family, sites, made("combiner", make, size, self.width))
        self.start = nn.Parameter(torch.zeros(size))

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        h, lengths = features_over_time(self.encoder, self.width, args, kwargs)
        start = self.start.expand(len(h), -1)
        with self.data_plate.over(len(h)):
            if self.whole is None:
                return draw_steps(self.step, combining(self.step), start, h, lengths)
            chain = ConditionalChain(StepPosterior(self.step), start, h.shape[1], h, lengths)
            return {self.whole: pyro.sample(self.whole, chain)}

    def stepwise(self, *args: Any, **kwargs: Any) -> Steps:
        """The program one step at a time, as a particle filter needs it.

        Raises:
            ValueError: a step has several sites.
        """
        if len(self.step.sites) > 1:
            raise ValueError(
                f"a step must have one site for a particle filter, got {len(self.step.sites)}; use IWAE, which weighs "
                "whole sequences"
            )
        h, lengths = features_over_time(self.encoder, self.width, args, kwargs)
        start = self.start.expand(len(h), -1)
        return chain_steps(ConditionalChain(StepPosterior(self.step), start, h.shape[1], h, lengths))


class MeanFieldOverTime(PyroModule):
    """A guide whose states do not depend on one another, given the sequence: the plain end of ``Sequential``.

        q(z | x) = prod_t q(z_t | h_t),   h_1..h_T = encoder(x, lengths)

    It is drawn at all steps at once where the model has one site with a dimension of steps.

    Sites:
        as ``Sequential``.

    Args:
        latents, encoder, family: see ``Sequential``.

    Raises:
        ValueError, TypeError: as ``Sequential``.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869; MF-LR there.

    Example:
        >>> from dlvm.nets import Recurrent
        >>> guide = MeanFieldOverTime({"z": Latent(torch.Size([5, 2]))}, Recurrent(3, 8, "both"))
        >>> guide(torch.zeros(4, 7, 3))["z"].shape
        torch.Size([4, 7, 2])
    """

    def __init__(self, latents: Mapping[str, Latent], encoder: nn.Module, family: StepGuide = Diagonal):
        super().__init__("guide")
        self.data_plate = check_latents(latents)
        sites, self.whole = of_steps(latents)
        self.encoder, self.width = encoder, encoder_width(encoder)
        self.step = step_guide(family, sites, MLP(self.width))

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        h, lengths = features_over_time(self.encoder, self.width, args, kwargs)
        with self.data_plate.over(len(h)):
            if self.whole is None:
                return draw_steps(self.step, lambda last, seen: seen, h[:, 0], h, lengths)
            return {self.whole: pyro.sample(self.whole, EachStep(first_posterior(self.step)(h), lengths))}
