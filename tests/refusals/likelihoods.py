"""What the likelihoods of counts, of real numbers and of data with holes refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

import dlvm.distributions as room
from dlvm.distributions import FixedScale, FullRankNormal, Missing, Normal, SelfMasking, StudentT, Units
from refusals.case import NOT_COUNTS, Case
from refusals.nets import NOT_MODULES, NOT_TENSORS, NOT_WIDTHS, WIDTHLESS


def net() -> nn.Module:
    return nn.Linear(4, 8)


COUNTS = ["Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"]
BOUNDED = ["Beta", "GreyLevels", "DiscretisedLogistic"]
REAL = ["Normal", "Laplace", "StudentT"]
NOT_GIVEN_MODULES = NOT_MODULES.filter(lambda v: v is not None)
NOT_POSITIVE = st.sampled_from(
    [torch.ones(s) for s in ((3,), (1, 2), (), (0,))]
    + [torch.full((2,), v) for v in (0.0, -1.0, float("nan"), float("inf"))]
)
NOT_LOCS = st.sampled_from(
    [torch.zeros(s) for s in ((1, 2), ())] + [torch.full((2,), v) for v in (float("nan"), float("inf"))]
)
NOT_UNITS = st.sampled_from([3, (0.0, 1.0), torch.ones(2), nn.ReLU(), Units, Units(torch.zeros(3), torch.ones(3))])
NOT_RATES = st.sampled_from(
    [3, 0.5, "x", [0.5, 0.5], torch.ones(3), torch.ones(2, 1), torch.tensor([0.5, 1.1]), torch.tensor([0.5, torch.nan])]
)
NOT_TOTALS = st.sampled_from([3, 2.5, "x", [5.0], torch.zeros(5), torch.full((5,), -1.0)])

NOT_COLUMNS = st.sampled_from(
    [None, 3, [], [(0, 1), (2,)], ["ab"], [(0, 0)], [(1, 2)], [(0, -1)], [(0, 1.0)], [0, 1], [()], "x", [(True, 0)]]
)
NOT_SIZES = st.one_of(NOT_WIDTHS, st.just(()))

CASES = [
    *(Case(f, "dim", lambda v, f=f: getattr(room, f)(net(), v), NOT_COUNTS) for f in BOUNDED),
    *(Case(f, "net", lambda v, f=f: getattr(room, f)(v, 2), WIDTHLESS) for f in BOUNDED),
    *(
        Case(f, "levels", lambda v, f=f: getattr(room, f)(net(), 2, v), st.one_of(NOT_COUNTS, st.just(1)))
        for f in BOUNDED[1:]
    ),
    Case(
        "Beta",
        "concentration",
        lambda v: room.Beta(net(), 2, v),
        st.one_of(NOT_TENSORS.filter(lambda v: v is not None), NOT_POSITIVE),
    ),
    Case("DiscretisedLogistic", "units", lambda v: room.DiscretisedLogistic(net(), 2, units=v), NOT_UNITS),
    Case("DiscretisedLogistic", "scale", lambda v: room.DiscretisedLogistic(net(), 2, scale=v), NOT_GIVEN_MODULES),
    Case("LogisticNoise", "net", lambda v: room.LogisticNoise(v, 2), WIDTHLESS),
    Case("LogisticNoise", "dim", lambda v: room.LogisticNoise(net(), v), NOT_COUNTS),
    Case("LogisticMixture", "net", lambda v: room.LogisticMixture(v, 6), WIDTHLESS),
    *(
        Case("LogisticMixture", n, lambda v, n=n: room.LogisticMixture(net(), **{"dim": 6, n: v}), NOT_COUNTS)
        for n in ("dim", "channels", "components", "levels")
    ),
    Case("LogisticMixture", "channels", lambda v: room.LogisticMixture(net(), 6, v), st.sampled_from([4, 5, 12])),
    Case("LogisticMixture", "units", lambda v: room.LogisticMixture(net(), 2, units=v), NOT_UNITS),
    Case("OrdinalColumns", "net", lambda v: room.OrdinalColumns(v, (2, 3)), WIDTHLESS),
    Case("OrdinalColumns", "sizes", lambda v: room.OrdinalColumns(net(), v), st.one_of(NOT_SIZES, st.just((3, 1)))),
    Case("Shared", "out_features", room.Shared, NOT_COUNTS),
    Case("Product", "net", lambda v: room.Product(v, [Normal(room.Shared(8), 2)], [(0, 1)]), WIDTHLESS),
    Case("Product", "parts", lambda v: room.Product(net(), v, [(0, 1)]), st.sampled_from([None, 3, [], (), "x"])),
    Case("Product", "parts", lambda v: room.Product(net(), [v], [(0, 1)]), NOT_MODULES),
    Case("Product", "columns", lambda v: room.Product(net(), [Normal(room.Shared(8), 2)], v), NOT_COLUMNS),
    Case(
        "Product.forward",
        "parts",
        lambda v: room.Product(net(), [v], [(0, 1)])(torch.zeros(5, 4)),
        st.sampled_from([Normal(room.Shared(8), 3), FullRankNormal(room.Shared(8), 2)]),
    ),
    Case("ContinuousBernoulli", "net", room.ContinuousBernoulli, NOT_MODULES),
    Case("CategoricalColumns", "net", lambda v: room.CategoricalColumns(v, (2, 3)), WIDTHLESS),
    Case("CategoricalColumns", "sizes", lambda v: room.CategoricalColumns(net(), v), NOT_SIZES),
    *(Case(f, "dim", lambda v, f=f: getattr(room, f)(net(), v), NOT_COUNTS) for f in COUNTS + REAL),
    *(Case(f, "net", lambda v, f=f: getattr(room, f)(v, 2), WIDTHLESS) for f in COUNTS + REAL),
    *(Case(f, "mean", lambda v, f=f: getattr(room, f)(net(), 2, v), NOT_POSITIVE) for f in COUNTS),
    *(
        Case(f, "mean", lambda v, f=f: getattr(room, f)(net(), 2, v), NOT_TENSORS.filter(lambda v: v is not None))
        for f in COUNTS
    ),
    *(
        Case(f, "dispersion", lambda v, f=f: getattr(room, f)(net(), 2, dispersion=v), NOT_GIVEN_MODULES)
        for f in COUNTS[1:]
    ),
    *(
        Case(f"{f}.forward", "total", lambda v, f=f: getattr(room, f)(net(), 2)(torch.zeros(5, 4), total=v), NOT_TOTALS)
        for f in COUNTS
    ),
    *(Case(f, "units", lambda v, f=f: getattr(room, f)(net(), 2, v), NOT_UNITS) for f in REAL),
    *(Case(f, "scale", lambda v, f=f: getattr(room, f)(net(), 2, scale=v), NOT_GIVEN_MODULES) for f in REAL),
    Case(
        "Normal.forward",
        "scale",
        lambda v: Normal(net(), 4, scale=FixedScale(1.0, v))(torch.zeros(5, 4)),
        st.sampled_from([2, 3, 5]),
    ),
    Case("StudentT", "df", lambda v: StudentT(net(), 2, df=v), NOT_GIVEN_MODULES),
    Case("Units", "loc", lambda v: Units(v, torch.ones(2)), st.one_of(NOT_TENSORS, NOT_LOCS)),
    Case("Units", "scale", lambda v: Units(torch.zeros(2), v), st.one_of(NOT_TENSORS, NOT_POSITIVE)),
    Case("Missing", "likelihood", Missing, NOT_MODULES),
    Case("SelfMasking", "dim", SelfMasking, NOT_COUNTS),
    Case("SelfMasking", "rates", lambda v: SelfMasking(2, v), NOT_RATES),
    Case("SelfMasking", "units", lambda v: SelfMasking(2, units=v), NOT_UNITS),
    Case("SelfMasking.forward", "x", SelfMasking(4), st.sampled_from([3, "x", None, torch.zeros(5, 3)])),
    Case(
        "Missing.forward",
        "likelihood",
        lambda v: Missing(v)(torch.zeros(5, 4)),
        st.sampled_from(
            [
                net(),
                FullRankNormal(net(), 2),
                room.LowRankNormal(net(), 2),
                room.MixtureNormal(net(), 2),
                room.OneHotCategorical(net()),
                room.VonMisesFisherDirection(net()),
            ]
        ),
    ),
]
