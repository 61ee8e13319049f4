"""Likelihoods by a word: what each is made of, what it starts from, and what its encoder sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
import tyro
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
    LogisticMixture,
    Logits,
    Missing,
    NegativeBinomial,
    Normal,
    OptimalScale,
    OrdinalColumns,
    Poisson,
    Standardise,
    StudentT,
    Units,
    ZeroInflatedNegativeBinomial,
    vector_flow,
)
from dlvm.experiments.data import Loader
from dlvm.experiments.options.columns import front_of, product_of
from dlvm.experiments.options.fitting import CLASSES, COUNTS, REAL, check_fits, classes_of, levels_of
from dlvm.experiments.options.starts import (
    dispersion_of,
    rates_of,
    robust_units_of,
    shared_units_of,
    started,
    units_of,
    within_cells,
)
from dlvm.nets import Filled, Logarithmic, OneHot, Standardised, out_features

LikelihoodWord = Literal[
    "bernoulli",
    "poisson",
    "negative_binomial",
    "zero_inflated",
    "normal",
    "normal_learned",
    "normal_fixed",
    "normal_shared",
    "normal_optimal",
    "laplace",
    "student_t",
    "flow",
    "categorical",
    "ordinal",
    "continuous_bernoulli",
    "beta",
    "grey_levels",
    "discretised_logistic",
    "logistic_mixture",
    "mixed",
]
DequantiseWord = Literal["none", "uniform", "variational"]
DENSITIES = (*REAL, "continuous_bernoulli", "beta")
LikelihoodOption = Annotated[
    LikelihoodWord,
    tyro.conf.arg(
        help="p(x | z): bernoulli for 0 and 1; poisson, negative_binomial and zero_inflated for counts; categorical "
        "and ordinal for classes; normal for real numbers, with a scale for each datum and column (per pixel), "
        "_learned: one for each column, _fixed: that of the column, _shared: one learned for all, _optimal: one for "
        "all that follows the residuals; laplace and student_t where there are outliers; flow, of any shape; "
        "continuous_bernoulli and beta between 0 and 1; grey_levels, discretised_logistic and logistic_mixture for "
        "grey and colour levels; mixed for tables, by column."
    ),
]
DequantiseOption = Annotated[
    DequantiseWord,
    tyro.conf.arg(
        help="Grey levels under a density, by noise within their cells: uniform, or learned of x. Nats are then of the "
        "levels' probability, a bound on it, and bits per dimension as well."
    ),
]
ByColumn = Annotated[
    tuple[str, ...],
    tyro.conf.arg(help="Under mixed, the likelihood of single columns, as: age=normal grade=ordinal; else as told."),
]
FLOW_STEPS = 4


def likelihood_of(
    word: LikelihoodWord, net: nn.Module, data: Loader, by_column: Sequence[str] = (), dequantise: str = "none"
) -> nn.Module:
    """p(x | z) by its word, started from the data, and for data with holes one of what is there.

    Args:
        word: of the likelihood.
        net: from z to features, with ``out_features``.
        data: give the columns, and where training starts.
        by_column: likelihoods of single columns, "name=word", under mixed.
        dequantise: a word; unless none, the likelihood is of the numbers within their cells, see ``Dequantised``.

    Raises:
        ValueError: as ``check_fits``; ``by_column`` names no such column, or the likelihood has no density.
    """
    if by_column and word != "mixed":
        raise ValueError(f"by_column (--by-column) is for --likelihood mixed, got {word}; say --likelihood mixed")
    if dequantise != "none":
        if word not in DENSITIES:
            raise ValueError(
                f"dequantise (--dequantise) is for densities, and {word} gives probabilities already; leave it out, or "
                f"take one of {', '.join(DENSITIES)}"
            )
        data = within_cells(data)
    check_fits(word, data)
    if word == "mixed":
        likelihood: nn.Module = product_of(lambda word, net, data: LIKELIHOODS[word](net, data), net, data, by_column)
    else:
        likelihood = LIKELIHOODS[word](net, data)
    return Missing(likelihood) if data.has_missing else likelihood


def encoder_of(
    word: LikelihoodWord, data: Loader, net: Callable[[int], nn.Module], by_column: Sequence[str] = ()
) -> nn.Module:
    """The net of an encoder that sees what suits it.

    Counts are seen as logarithms, all columns of numbers on one scale, classes as ones and zeros, and what is missing
    as zeros with a mask beside. Data between 0 and 1 are seen as they are.

    Args:
        word: of the likelihood.
        data: whose columns they are.
        net: width -> the net.
        by_column: as for ``likelihood_of``.
    """
    if word == "mixed":
        return front_of(encoder_of, data, net, by_column)
    if word in CLASSES:
        sizes = classes_of(data, word)
        return OneHot(net(sum(sizes)), sizes)
    made = Filled(net(2 * data.x_dim)) if data.has_missing else net(data.x_dim)
    if word not in COUNTS + REAL:
        return made
    units = units_of(data.x.log1p() if word in COUNTS else data.x)
    made = Standardised(made, units.loc, units.scale)
    return Logarithmic(made) if word in COUNTS else made


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


def _ordinal(net: nn.Module, data: Loader) -> nn.Module:
    sizes = classes_of(data, "ordinal")
    likelihood = OrdinalColumns(net, sizes)
    columns = zip(data.x.T, sizes, strict=True)
    likelihood.start_at([torch.bincount(x[~x.isnan()].long(), minlength=size) + 0.5 for x, size in columns])
    return likelihood


def _logistic_mixture(net: nn.Module, data: Loader) -> nn.Module:
    shape = data.image_shape
    channels = shape[0] if shape is not None and len(shape) == 3 else 1
    return LogisticMixture(net, data.x_dim, channels, levels=levels_of(data), units=units_of(data.x))


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
    "normal_shared": partial(_real, Normal, shared_units_of, lambda dim: LearnedScale()),
    "normal_optimal": partial(_real, Normal, shared_units_of, lambda dim: OptimalScale()),
    "laplace": partial(_real, Laplace, robust_units_of, None),
    "student_t": partial(_real, StudentT, robust_units_of, None),
    "flow": _flow,
    "categorical": _categorical,
    "ordinal": _ordinal,
    "continuous_bernoulli": partial(_bernoulli, ContinuousBernoulli),
    "beta": _beta,
    "grey_levels": _grey_levels,
    "discretised_logistic": lambda net, data: DiscretisedLogistic(net, data.x_dim, levels_of(data), units_of(data.x)),
    "logistic_mixture": _logistic_mixture,
}
