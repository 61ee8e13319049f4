"""Likelihoods by a word: what each is made of and starts from, and which data can come from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dlvm.distributions import (
    Bernoulli,
    FixedScale,
    Laplace,
    LearnedScale,
    Logits,
    Missing,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    Units,
    ZeroInflatedNegativeBinomial,
)
from dlvm.experiments.data import Loader
from dlvm.inference.console import say
from dlvm.nets import Filled, Logarithmic, Standardised

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
]
LOOKED_AT = 10_000  # rows that tell what kind of numbers data are


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


def check_fits(word: LikelihoodWord, data: Loader) -> None:
    """Refuses data that cannot have come from a likelihood, and says which one would fit.

    Raises:
        ValueError: with the option that helps.
    """
    seen = data.first(LOOKED_AT)
    seen = seen[~seen.isnan()]
    if not seen.numel():
        raise ValueError(f"data has no number that is not missing in its first {LOOKED_AT} rows; change --missing")
    whole, low, high = bool((seen == seen.round()).all()), seen.min().item(), seen.max().item()
    binary = whole and low >= 0 and high <= 1
    found = f"got numbers from {low:g} to {high:g}"
    if word == "bernoulli" and not binary:
        raise ValueError(f"likelihood bernoulli is of 0 and 1 alone, {found}: {_for_others(data, whole, low, high)}")
    if word in COUNTS and not (whole and low >= 0):
        raise ValueError(f"likelihood {word} is of counts 0, 1, 2, ..., {found}: {_for_others(data, whole, low, high)}")
    if word in REAL and whole:
        kind, fit = ("0 and 1", "bernoulli") if binary else ("whole numbers", "negative_binomial")
        say(f"data are {kind} alone: under {word} the nats are of a density; --likelihood {fit} gives probabilities")


COUNTS = ("poisson", "negative_binomial", "zero_inflated")
REAL = ("normal", "normal_learned", "normal_fixed", "laplace", "student_t")


def _for_others(data: Loader, whole: bool, low: float, high: float) -> str:
    """What such numbers look like, and the option for them."""
    if low < 0 or (not whole and high > 1):
        return "these look like real numbers: --likelihood normal, or student_t where there are outliers"
    if not whole:
        return "these look like grey levels: --binarize dynamic with bernoulli, or --likelihood normal"
    if high == 255 or (data.image_shape is not None and high < 256):
        return "these look like 8-bit grey levels: --scale 255"
    return "these look like counts: --likelihood negative_binomial"


def units_of(x: Tensor) -> Units:
    """Mean and standard deviation of each column, of what is there; a column that is constant has scale 1."""
    dtype, x = x.dtype, x.double()
    there = (~x.isnan()).sum(0).clamp_min(1)
    loc = x.nansum(0) / there
    scale = ((x - loc).square().nansum(0) / there).sqrt()
    scale = torch.where(scale > 1e-6 * loc.abs().clamp_min(1e-30), scale, 1.0)
    return Units(loc.to(dtype), scale.to(dtype))


def moments_of(data: Loader) -> Units:
    """Mean and standard deviation of the columns of a loader."""
    return units_of(data.x)


def robust_units_of(data: Loader) -> Units:
    """Median and interquartile range over 1.35 of each column; those of ``units_of`` where that is 0."""
    usual, quartiles = units_of(data.x), torch.tensor([0.25, 0.5, 0.75], device=data.device).double()
    low, middle, high = data.x.double().nanquantile(quartiles, 0).to(data.x.dtype)
    wide = high > low
    return Units(torch.where(wide, middle, usual.loc), torch.where(wide, (high - low) / 1.35, usual.scale))


def rates_of(data: Loader) -> Tensor:
    """Mean of each column of counts; half a count in all where there is none."""
    there = (~data.x.isnan()).sum(0)
    return ((data.x.double().nansum(0) + 0.5) / (there + 1)).to(data.x.dtype)


def dispersion_of(data: Loader) -> LearnedScale:
    """By moments of each column, (variance - mean) / mean^2, between 0.01 and 100."""
    units = units_of(data.x)
    excess = (units.scale.square() - units.loc) / units.loc.square().clamp_min(1e-12)
    learned = LearnedScale(dim=data.x_dim)
    with torch.no_grad():
        learned.log_scale.copy_(excess.clamp(0.01, 100).log())
    return learned


def _counts(kind: Callable[..., nn.Module], net: nn.Module, data: Loader) -> nn.Module:
    return kind(net, data.x_dim, rates_of(data), dispersion_of(data))


def _real(
    kind: Callable[..., nn.Module],
    units: Callable[[Loader], Units],
    scale: Callable[[int], nn.Module] | None,
    net: nn.Module,
    data: Loader,
) -> nn.Module:
    return kind(net, data.x_dim, units(data), None if scale is None else scale(data.x_dim))


LIKELIHOODS: dict[str, Callable[[nn.Module, Loader], nn.Module]] = {
    "bernoulli": lambda net, data: Bernoulli(Logits(net, data.x_dim)),
    "poisson": lambda net, data: Poisson(net, data.x_dim, rates_of(data)),
    "negative_binomial": partial(_counts, NegativeBinomial),
    "zero_inflated": partial(_counts, ZeroInflatedNegativeBinomial),
    "normal": partial(_real, Normal, moments_of, None),
    "normal_learned": partial(_real, Normal, moments_of, lambda dim: LearnedScale(dim=dim)),
    "normal_fixed": partial(_real, Normal, moments_of, lambda dim: FixedScale(1.0)),
    "laplace": partial(_real, Laplace, robust_units_of, None),
    "student_t": partial(_real, StudentT, robust_units_of, None),
}


def encoder_of(word: LikelihoodWord, data: Loader, net: Callable[[int], nn.Module]) -> nn.Module:
    """The net of an encoder that sees what suits it: counts as logs, columns of one scale, zeros and a mask for holes.

    Args:
        word: of the likelihood; data of 0 and 1 are seen as they are.
        data: whose columns they are.
        net: width -> the net.
    """
    made = Filled(net(2 * data.x_dim)) if data.has_missing else net(data.x_dim)
    if word == "bernoulli":
        return made
    counts = word in COUNTS
    units = units_of(data.x.log1p() if counts else data.x)
    made = Standardised(made, units.loc, units.scale)
    return Logarithmic(made) if counts else made
