"""Likelihoods by a word: what each is made of, what it starts from, and what its encoder sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dlvm.distributions import (
    Bernoulli,
    Beta,
    CategoricalColumns,
    Composition,
    ContinuousBernoulli,
    DiscretisedLogistic,
    FixedScale,
    FlowDensity,
    GreyLevels,
    Laplace,
    LearnedScale,
    Logits,
    Missing,
    NegativeBinomial,
    Normal,
    Poisson,
    Standardise,
    StudentT,
    Units,
    ZeroInflatedNegativeBinomial,
    vector_flow,
)
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import COUNTS, REAL, check_fits, classes_of, levels_of
from dlvm.nets import Filled, Logarithmic, OneHot, Standardised, out_features

LikelihoodWord = Literal[
    "bernoulli",
    "poisson",
    "negative_binomial",
    "zero_inflated",
    "normal",
    "normal_learned",
    "normal_fixed",
    "laplace",
    "student_t",
    "flow",
    "categorical",
    "continuous_bernoulli",
    "beta",
    "grey_levels",
    "discretised_logistic",
]
MOST_AT_ONCE = 10_000_000
FLOW_STEPS = 4


def likelihood_of(word: LikelihoodWord, net: nn.Module, data: Loader) -> nn.Module:
    """p(x | z) by its word, started from the data, and for data with holes one of what is there.

    Args:
        word: of the likelihood.
        net: from z to features, with ``out_features``.
        data: give the columns, and where training starts.

    Raises:
        ValueError: as ``check_fits``.
    """
    check_fits(word, data)
    likelihood = LIKELIHOODS[word](net, data)
    return Missing(likelihood) if data.has_missing else likelihood


def encoder_of(word: LikelihoodWord, data: Loader, net: Callable[[int], nn.Module]) -> nn.Module:
    """The net of an encoder that sees what suits it.

    Counts are seen as logarithms, all columns of numbers on one scale, classes as ones and zeros, and what is missing
    as zeros with a mask beside. Data between 0 and 1 are seen as they are.

    Args:
        word: of the likelihood.
        data: whose columns they are.
        net: width -> the net.
    """
    if word == "categorical":
        sizes = classes_of(data)
        return OneHot(net(sum(sizes)), sizes)
    made = Filled(net(2 * data.x_dim)) if data.has_missing else net(data.x_dim)
    if word not in COUNTS + REAL:
        return made
    units = units_of(data.x.log1p() if word in COUNTS else data.x)
    made = Standardised(made, units.loc, units.scale)
    return Logarithmic(made) if word in COUNTS else made


# What training starts from


def units_of(x: Tensor) -> Units:
    """Mean and standard deviation of each column, of what is there; a column that is constant has scale 1."""
    dtype, x = x.dtype, x.double()
    there = (~x.isnan()).sum(0).clamp_min(1)
    loc = x.nansum(0) / there
    scale = ((x - loc).square().nansum(0) / there).sqrt()
    scale = torch.where(scale > 1e-6 * loc.abs().clamp_min(1e-30), scale, 1.0)
    return Units(loc.to(dtype), scale.to(dtype))


def robust_units_of(x: Tensor) -> Units:
    """Median and interquartile range over 1.35 of each column; those of ``units_of`` where that is 0."""
    usual, quartiles = units_of(x), torch.tensor([0.25, 0.5, 0.75], device=x.device).double()
    columns = x.split(max(1, MOST_AT_ONCE // len(x)), 1)  # torch sorts 16 million numbers at most
    low, middle, high = torch.cat([part.double().nanquantile(quartiles, 0) for part in columns], 1).to(x.dtype)
    wide = high > low
    return Units(torch.where(wide, middle, usual.loc), torch.where(wide, (high - low) / 1.35, usual.scale))


def rates_of(x: Tensor) -> Tensor:
    """Mean of each column of counts, with half a count and a datum more, so that none is 0."""
    return ((x.double().nansum(0) + 0.5) / ((~x.isnan()).sum(0) + 1)).to(x.dtype)


def dispersion_of(x: Tensor) -> LearnedScale:
    """By moments of each column, (variance - mean) / mean^2, between 0.01 and 100."""
    units = units_of(x)
    excess = (units.scale.square() - units.loc) / units.loc.square().clamp_min(1e-12)
    learned = LearnedScale(dim=x.shape[1])
    with torch.no_grad():
        learned.log_scale.copy_(excess.clamp(0.01, 100).log())
    return learned


def started(head: nn.Linear, raw: Tensor) -> None:
    """Starts the first numbers that a layer gives at ``raw``."""
    with torch.no_grad():
        head.bias[: raw.numel()] = raw.flatten()


# Likelihoods


def _counts(kind: Callable[..., nn.Module], net: nn.Module, data: Loader) -> nn.Module:
    return kind(net, data.x_dim, rates_of(data.x), dispersion_of(data.x))


def _real(
    kind: Callable[..., nn.Module],
    units: Callable[[Tensor], Units],
    scale: Callable[[int], nn.Module] | None,
    net: nn.Module,
    data: Loader,
) -> nn.Module:
    return kind(net, data.x_dim, units(data.x), None if scale is None else scale(data.x_dim))


def _bernoulli(kind: Callable[..., nn.Module], net: nn.Module, data: Loader) -> nn.Module:
    logits = Logits(net, data.x_dim)
    started(logits.head, torch.logit(units_of(data.x).loc, eps=1e-3))
    return kind(logits)


def _categorical(net: nn.Module, data: Loader) -> nn.Module:
    sizes = classes_of(data)
    likelihood = CategoricalColumns(net, sizes)
    columns = zip(data.x.T, sizes, strict=True)
    counts = [torch.bincount(x[~x.isnan()].long(), minlength=size) for x, size in columns]
    started(likelihood.head, torch.cat([((n + 0.5) / (n + 0.5).sum()).log() for n in counts]))
    return likelihood


def _flow(net: nn.Module, data: Loader) -> nn.Module:
    steps = vector_flow(data.x_dim, FLOW_STEPS, context=out_features(net))
    units = units_of(data.x)
    return FlowDensity(Composition(Standardise(units.loc, units.scale), steps), data.x_dim, net)


def _beta(net: nn.Module, data: Loader) -> nn.Module:
    units = units_of(data.x)
    size = units.loc * (1 - units.loc) / units.scale.square() - 1
    likelihood = Beta(net, data.x_dim, size.clamp(0.1, 1e4))
    started(likelihood.head, torch.logit(units.loc, eps=1e-3))
    return likelihood


def _grey_levels(net: nn.Module, data: Loader) -> nn.Module:
    levels = levels_of(data)
    likelihood = GreyLevels(net, data.x_dim, levels)
    every = torch.arange(levels, device=data.device)
    number = (data.x * (levels - 1)).round()
    counts = torch.stack([(number == k).sum(0) for k in every], -1) + 0.5
    started(likelihood.head, (counts / counts.sum(-1, keepdim=True)).log())
    return likelihood


LIKELIHOODS: dict[str, Callable[[nn.Module, Loader], nn.Module]] = {
    "bernoulli": partial(_bernoulli, Bernoulli),
    "poisson": lambda net, data: Poisson(net, data.x_dim, rates_of(data.x)),
    "negative_binomial": partial(_counts, NegativeBinomial),
    "zero_inflated": partial(_counts, ZeroInflatedNegativeBinomial),
    "normal": partial(_real, Normal, units_of, None),
    "normal_learned": partial(_real, Normal, units_of, lambda dim: LearnedScale(dim=dim)),
    "normal_fixed": partial(_real, Normal, units_of, lambda dim: FixedScale(1.0)),
    "laplace": partial(_real, Laplace, robust_units_of, None),
    "student_t": partial(_real, StudentT, robust_units_of, None),
    "flow": _flow,
    "categorical": _categorical,
    "continuous_bernoulli": partial(_bernoulli, ContinuousBernoulli),
    "beta": _beta,
    "grey_levels": _grey_levels,
    "discretised_logistic": lambda net, data: DiscretisedLogistic(net, data.x_dim, levels_of(data), units_of(data.x)),
}
