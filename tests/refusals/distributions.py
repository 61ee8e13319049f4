"""What the distributions refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

import dlvm.distributions as room
from dlvm.distributions import Bernoulli, ConstantScaleNormal, LearnedScale, StandardNormal, SylvesterNormal
from refusals import data_flows, diffusion, likelihoods, semi_supervised, sequences, text
from refusals import distributions_parts as parts
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.distributions_parts import NOT_SCALES, NOT_STEPS, net
from refusals.nets import NOT_MAKERS, NOT_MODULES, NOT_TENSORS, NOT_WIDTHS, WIDTHLESS

ROOM = room
FAMILIES = [
    "DiagonalNormal",
    "FullRankNormal",
    "LowRankNormal",
    "MixtureNormal",
    "DiagonalStudentT",
    "InverseAutoregressiveNormal",
    "PlanarNormal",
    "RadialNormal",
    "HouseholderNormal",
    "SylvesterNormal",
]
DRAWN = [*FAMILIES, "PointMass"]
HEADS = ["Bernoulli", "Binary", "Categorical", "OneHotCategorical", "ConstantScaleNormal"]
SCALES = {"LearnedScale": "initial", "FixedScale": "value", "OptimalScale": "initial"}
NOT_MEANS = st.sampled_from(
    [3, 0.5, "mean", [0.5] * 8, torch.full((7,), 0.5), torch.full((1, 8), 0.5), torch.tensor(0.5), torch.zeros(0)]
    + [torch.full((8,), v) for v in (-0.1, 1.1, 255.0, float("nan"), float("inf"))]
)
NOT_BASES = st.one_of(
    NOT_STEPS.filter(lambda v: v is not nn.ReLU), st.just(lambda width, dim, t: nn.Linear(width, dim))
)


def of(family: str, **settings: object) -> nn.Module:
    return getattr(room, family)(net(), 2, **settings)


CASES = [
    Case("StandardNormal", "dim", StandardNormal, NOT_COUNTS),
    *(Case(f, "dim", lambda v, f=f: getattr(room, f)(net(), v), NOT_COUNTS) for f in DRAWN),
    *(Case(f, "net", lambda v, f=f: getattr(room, f)(v, 2), WIDTHLESS) for f in DRAWN),
    *(Case(f, "depth", lambda v, f=f: of(f, depth=v), NOT_COUNTS) for f in FAMILIES[5:]),
    Case("LowRankNormal", "rank", lambda v: of("LowRankNormal", rank=v), NOT_COUNTS),
    Case("MixtureNormal", "components", lambda v: of("MixtureNormal", components=v), st.one_of(NOT_COUNTS, st.just(1))),
    Case(
        "DiagonalStudentT", "start", lambda v: of("DiagonalStudentT", start=v), st.one_of(NOT_SCALES, st.floats(-9, 2))
    ),
    *(Case(f, "net", lambda v, f=f: getattr(room, f)(v), NOT_MODULES) for f in HEADS),
    *(
        Case(
            f, "event_dim", lambda v, f=f: getattr(room, f)(net(), v), NOT_COUNTS.filter(lambda v: v is False or v != 0)
        )
        for f in HEADS[1:4]
    ),
    Case("OneHotCategorical", "event_dim", lambda v: room.OneHotCategorical(net(), v), NOT_COUNTS),
    Case("Bernoulli", "mean", lambda v: Bernoulli(net(), v), NOT_MEANS),
    Case("Bernoulli", "mean", lambda v: Bernoulli(v, torch.zeros(8)), st.builds(nn.Identity)),
    Case("Logits", "net", lambda v: room.Logits(v, 3), WIDTHLESS),
    Case("Logits", "shape", lambda v: room.Logits(net(), 2, v), NOT_COUNTS),
    Case(
        "ConstantScaleNormal",
        "scale",
        lambda v: ConstantScaleNormal(net(), v),
        NOT_MODULES.filter(lambda v: v is not None),
    ),
    Case(
        "ConstantScaleNormal.forward",
        "scale",
        lambda v: ConstantScaleNormal(net(), LearnedScale(dim=v))(torch.zeros(4)),
        st.integers(2, 7),
    ),
    *(Case(s, "dim", lambda v, s=s: getattr(room, s)(1.0, dim=v), NOT_COUNTS) for s in SCALES),
    Case(
        "OptimalScale",
        "rate",
        lambda v: room.OptimalScale(rate=v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([0, -0.1, 1.5])),
    ),
    *(Case(s, name, getattr(room, s), NOT_SCALES) for s, name in SCALES.items()),
    Case("positive", "raw", room.positive, NOT_TENSORS),
    Case("InverseAutoregressiveNormal", "hidden", lambda v: of("InverseAutoregressiveNormal", hidden=v), NOT_WIDTHS),
    Case("InverseAutoregressiveNormal", "hidden", lambda v: of("InverseAutoregressiveNormal", hidden=v), st.just((1,))),
    Case(
        "InverseAutoregressiveNormal",
        "bias",
        lambda v: of("InverseAutoregressiveNormal", bias=v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 1e3, -1e3, -11, 11.0, 10**400])),
    ),
    Case(
        "InverseAutoregressiveNormal",
        "activation",
        lambda v: of("InverseAutoregressiveNormal", activation=v),
        NOT_MAKERS,
    ),
    Case("SylvesterNormal", "basis", lambda v: SylvesterNormal(net(), 2, basis=v), NOT_BASES),
    *parts.CASES,
    *likelihoods.CASES,
    *semi_supervised.DISTRIBUTIONS,
    *data_flows.CASES,
    *diffusion.DISTRIBUTIONS,
    *sequences.CHAINS,
    *text.DISTRIBUTIONS,
]
ANY = {
    "Coupling(reverse)": "any truth value",
    "Autoregressive(reverse)": "any truth value",
    "BernoulliPrior(learned)": "any truth value",
    "CategoricalPrior(learned)": "any truth value",
    "ReparametrisedMixture(validate_args)": "as in every distribution of torch",
    "ConditionalChain(validate_args)": "as in every distribution of torch",
    "EachStep(validate_args)": "as in every distribution of torch",
    "FactorialChain(validate_args)": "as in every distribution of torch",
    "GaussianChain(validate_args)": "as in every distribution of torch",
    "MarkovChain(validate_args)": "as in every distribution of torch",
    "MarkovChain(by_step)": "any truth value",
    "SphericalUniform(validate_args)": "as in every distribution of torch",
    "VonMisesFisher(validate_args)": "as in every distribution of torch",
    **dict.fromkeys(data_flows.FLAGS, "any truth value"),
}
RECORDS: set[str] = set()
