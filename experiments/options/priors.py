"""Priors by a word, and what those that are made of posteriors start from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import (
    Affine,
    ARDNormal,
    Autoregressive,
    Coupling,
    FixedInputs,
    FlowPrior,
    LearnedInputs,
    MixturePrior,
    RationalQuadratic,
    SphericalPrior,
    StandardNormal,
    VampPrior,
)
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import CLASSES, COUNTS, REAL
from dlvm.experiments.options.likelihoods import LikelihoodWord
from dlvm.experiments.options.starts import units_of
from dlvm.guides import posterior_of

PriorWord = Literal["standard", "ard", "mixture", "vamp", "vamp_data", "real_nvp", "spline", "maf", "sphere"]
MANY = ("mixture", "vamp", "vamp_data")
USUAL = 100
MADE_WIDTH = 64

PRIORS: dict[str, Callable[[int, int], nn.Module]] = {
    "standard": lambda dim, components: StandardNormal(dim),
    "ard": lambda dim, components: ARDNormal(dim),
    "mixture": MixturePrior,
    "vamp": lambda dim, components: StandardNormal(dim),
    "vamp_data": lambda dim, components: StandardNormal(dim),
    "real_nvp": lambda dim, components: FlowPrior(dim),
    "spline": lambda dim, components: FlowPrior(dim, partial(Coupling, bijection=RationalQuadratic())),
    "maf": lambda dim, components: FlowPrior(
        dim, partial(Autoregressive, bijection=Affine(), hidden=(max(MADE_WIDTH, 2 * dim),))
    ),
    "sphere": lambda dim, components: SphericalPrior(dim),
}


def prior_of(word: PriorWord, dim: int, components: int | None = None) -> nn.Module:
    """p(z) by its word, over so many dimensions; in place of one of posteriors, which needs the guide, N(0, I).

    Args:
        word: of the prior.
        dim: of z.
        components: of a mixture; 100 unless told.

    Raises:
        ValueError: ``components`` are given, and the prior has none.
    """
    if components is not None and word not in MANY:
        raise ValueError(
            f"components are Gaussians of the prior mixture, or pseudo-inputs of vamp and vamp_data, got {components} "
            f"for the prior {word}, which has none; leave out --components"
        )
    return PRIORS[word](dim, USUAL if components is None else components)


def join(
    model: nn.Module,
    guide: nn.Module,
    site: str,
    word: PriorWord,
    likelihood: LikelihoodWord,
    data: Loader,
    components: int | None = None,
) -> None:
    """Puts a prior of the guide's posteriors in the place of the model's prior, if the word says so.

    Args:
        model: with a ``prior``.
        guide: of the model.
        site: that the prior is of.
        word: of the prior.
        likelihood: of the data, by its word.
        data: whose like the pseudo-inputs are.
        components: how many pseudo-inputs; 100 unless told.

    Raises:
        ValueError: pseudo-inputs cannot be learned for these data.
        TypeError, ValueError: as ``posterior_of``.
    """
    if word not in ("vamp", "vamp_data"):
        return
    rows = some_rows(data, USUAL if components is None else components)
    if word == "vamp_data":
        inputs: nn.Module = FixedInputs(rows.bernoulli() if data.dynamic else rows)
    elif likelihood in (*CLASSES, "mixed"):
        raise ValueError(
            "prior vamp learns pseudo-inputs by their gradient, which classes and tables with columns of them do not "
            "have; use --prior vamp_data, with rows of the data"
        )
    else:
        inputs = LearnedInputs(_filled(rows, data), support_of(likelihood))
    model.prior = VampPrior(posterior_of(guide, site), inputs.to(data.device))


def support_of(likelihood: LikelihoodWord) -> constraints.Constraint:
    """Where pseudo-inputs of data of such a likelihood lie."""
    if likelihood in COUNTS:
        return constraints.positive
    return constraints.real if likelihood in REAL else constraints.unit_interval


def some_rows(data: Loader, count: int) -> Tensor:
    """So many rows of the data, by chance, none twice as long as there are others."""
    order = torch.randperm(len(data.x))
    return data.x[order.repeat(-(-count // len(order)))[:count].to(data.x.device)]


def _filled(rows: Tensor, data: Loader) -> Tensor:
    """The rows with the column's mean where a number is missing."""
    return torch.where(rows.isnan(), units_of(data.x).loc, rows) if data.has_missing else rows
