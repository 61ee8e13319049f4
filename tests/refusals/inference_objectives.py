"""What objectives, estimators, aids and schedules refuse."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from pyro.infer import TraceGraph_ELBO

import dlvm.inference as room
from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    FIVO,
    IWAE,
    MAP,
    MIWAE,
    NVIL,
    PIWAE,
    REBAR,
    RELAX,
    RWS,
    STL,
    TVO,
    VIMCO,
    DReG,
    Enumeration,
    GumbelRao,
    GumbelSoftmax,
    MovingAverage,
    Renyi,
    Resampling,
    ScoreFunction,
    Separate,
    StraightThrough,
    VRMax,
    WakeSleep,
    capacity,
    constant,
    cosine,
    cyclical,
    free_bits,
    linear,
    supervised,
    tempered,
    total_correlation,
)
from dlvm.nets import MLP
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.pairs import GUIDE, MODEL, X

BELOW_0 = st.floats(-1e9, -1e-9)
UNLIKE_NUMBERS = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, torch.zeros(2), [0.5], ELBO, MODEL]))
NOT_OBJECTIVES = st.sampled_from(
    [None, 3, "elbo", IWAE, ELBO, GUIDE, MODEL, X, STL(), linear(0, 1, 5), TraceGraph_ELBO(), lambda log_w: log_w]
)
NOT_ESTIMATORS = st.sampled_from([3, "dreg", True, DReG, VIMCO, ELBO(), GUIDE, X, MovingAverage(), lambda log_w: log_w])
AIDED = st.sampled_from([tempered(ELBO(), 0.5), free_bits(ELBO(), 1.0)])
NOT_WEIGHTS = st.one_of(
    UNLIKE_NUMBERS, BELOW_0, st.just(True), st.sampled_from([torch.tensor(float("nan")), 1j, linear])
)
BOUND, UPPER = room.Bound(torch.mean), room.Bound(torch.mean, "upper")
NOT_FORMULAS = st.sampled_from([0, 1, 2.5, "mean", False, [], torch.zeros(2), X])
NOT_SIDES = st.sampled_from([None, True, 1, "", "above", "LOWER", [], ("lower",)])
NOT_SITES = st.sampled_from([{}, {3: 0.5}, {"": 0.5}, {None: 1.0}, {("z",): 1.0}])

BOUNDS = {
    "ELBO": ELBO,
    "IWAE": IWAE,
    "VRMax": VRMax,
    "Objective": lambda *a, **k: room.Objective(BOUND, *a, **k),
    "Renyi": lambda *a, **k: Renyi(0.5, *a, **k),
    "CUBO": lambda *a, **k: CUBO(2.0, *a, **k),
    "CIWAE": lambda *a, **k: CIWAE(0.5, *a, **k),
    "MIWAE": lambda *a, **k: MIWAE(2, *a, **k),
    "PIWAE": lambda *a, **k: PIWAE(2, *a, **k),
    "TVO": TVO,
}
AIDS = {
    "tempered": lambda v: tempered(v, 0.5),
    "free_bits": lambda v: free_bits(v, 0.5),
    "capacity": lambda v: capacity(v, 0.5),
    "total_correlation": lambda v: total_correlation(v, 2.0),
    "MAP": lambda v: MAP(v, dist.Normal(0.0, 1.0), 6),
    "supervised": supervised,
}
WARM_UPS = {"linear": linear, "cosine": cosine, "cyclical": cyclical}
NORMAL = dist.Normal(0.0, 1.0)

CASES = [
    *(Case(n, "num_particles", make, NOT_COUNTS) for n, make in BOUNDS.items()),
    *(Case(n, "estimator", lambda v, m=make: m(2, estimator=v), NOT_ESTIMATORS) for n, make in BOUNDS.items()),
    *(Case(n, "num_particles", make, NOT_COUNTS) for n, make in {"RWS": RWS, "WakeSleep": WakeSleep}.items()),
    *(Case(n, "groups", make, NOT_COUNTS) for n, make in {"MIWAE": MIWAE, "PIWAE": PIWAE}.items()),
    Case("Bound", "value", room.Bound, st.one_of(NOT_CALLABLE, NOT_FORMULAS, st.just(MLP(4, 1)))),
    Case("Bound", "side", lambda v: room.Bound(torch.mean, v), NOT_SIDES),
    *(
        Case("Bound", n, lambda v, n=n: room.Bound(torch.mean, **{n: v}), NOT_FORMULAS)
        for n in ("curvature", "without", "signal")
    ),
    Case("Bound", "name", lambda v: room.Bound(torch.mean, name=v), st.sampled_from([None, 3, True, ["a"], b"IWAE"])),
    Case("Objective", "bound", room.Objective, st.one_of(NOT_CALLABLE, NOT_OBJECTIVES, st.just(ELBO()))),
    Case("Objective", "estimator", lambda v: room.Objective(UPPER, 2, v), st.builds(GumbelSoftmax), "GumbelSoftmax"),
    *(Case(n, "objective", make, NOT_OBJECTIVES) for n, make in AIDS.items()),
    *(Case(n, "objective", AIDS[n], AIDED, n) for n in AIDS if n not in ("MAP", "supervised")),
    *(
        Case(n, "start", lambda v, m=make: m(v, 1.0, 9), st.one_of(UNLIKE_NUMBERS, BELOW_0))
        for n, make in WARM_UPS.items()
    ),
    *(
        Case(n, "end", lambda v, m=make: m(0.0, v, 9), st.one_of(UNLIKE_NUMBERS, BELOW_0))
        for n, make in WARM_UPS.items()
    ),
    *(Case(n, "steps", lambda v, m=make: m(0.0, 1.0, v), NOT_COUNTS) for n, make in WARM_UPS.items()),
    Case("cyclical", "cycles", lambda v: cyclical(0.0, 1.0, 8, v), st.one_of(NOT_COUNTS, st.integers(9, 99))),
    Case(
        "cyclical",
        "rise",
        lambda v: cyclical(0.0, 1.0, 8, 2, v),
        st.one_of(UNLIKE_NUMBERS, BELOW_0, st.sampled_from([0, 1.01])),
    ),
    Case("constant", "value", constant, st.one_of(UNLIKE_NUMBERS, BELOW_0, st.just(torch.tensor(1j)))),
    Case(
        "ELBO", "analytic_kl", lambda v: ELBO(2, v, analytic_kl=True), st.sampled_from([STL(), DReG(), GumbelSoftmax()])
    ),
    Case("ELBO", "strict", lambda v: ELBO(strict=v), st.sampled_from([True, 1, "yes"])),
    Case("VRMax", "estimator", lambda v: VRMax(2, v), st.builds(DReG), "DReG"),
    Case("IWAE", "estimator", lambda v: IWAE(1, v), st.builds(VIMCO), "VIMCO"),
    Case(
        "CUBO", "estimator", lambda v: CUBO(2, 9, v), st.sampled_from([GumbelSoftmax(), StraightThrough(1.0)]), "CUBO"
    ),
    Case("Renyi", "alpha", Renyi, st.one_of(UNLIKE_NUMBERS, st.floats(1.001, 1e9))),
    Case("CUBO", "order", CUBO, st.one_of(UNLIKE_NUMBERS, st.floats(-9, 0.99))),
    Case("CIWAE", "beta", CIWAE, st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1.001, 9))),
    Case("FIVO", "num_particles", FIVO, NOT_COUNTS),
    Case("FIVO", "resampling", lambda v: FIVO(2, v), st.sampled_from([3, "systematic", 0.5, True, Resampling])),
    Case("FIVO", "score", lambda v: FIVO(2, None, v), st.sampled_from([True, 1, "yes"])),
    Case("FIVO", "truncate", lambda v: FIVO(2, truncate=v), NOT_COUNTS.filter(lambda v: v is not None)),
    Case("Resampling", "scheme", Resampling, st.sampled_from([None, 1, "", "residual", "MULTINOMIAL", True])),
    Case(
        "Resampling",
        "below",
        lambda v: Resampling(below=v),
        st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1.001, 9), st.none()),
    ),
    Case("TVO", "intervals", lambda v: TVO(2, v), NOT_COUNTS),
    Case("TVO", "first", lambda v: TVO(2, 3, v), st.one_of(UNLIKE_NUMBERS, BELOW_0, st.sampled_from([0, 1, 1.5]))),
    Case("RWS", "sleep", lambda v: RWS(2, v), st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1.001, 9))),
    Case("RWS", "sleep", lambda v: RWS(1, v), st.sampled_from([0, 0.0])),
    Case("RWS", "doubly", lambda v: RWS(2, 1.0, v), st.sampled_from([True, 1])),
    Case("supervised", "weight", lambda v: supervised(ELBO(), v), st.one_of(UNLIKE_NUMBERS, BELOW_0)),
    Case("IWAE", "estimator", lambda v: IWAE(4, v), st.builds(Enumeration), "Enumeration"),
    Case("REBAR", "temperature", REBAR, st.one_of(UNLIKE_NUMBERS, BELOW_0, st.just(0))),
    Case("REBAR", "decay", lambda v: REBAR(0.5, v), st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1, 9))),
    Case("RELAX", "net", RELAX, st.sampled_from([None, 3, "net", MLP, X, lambda x: x, [MLP(4, 1)]])),
    Case(
        "RELAX",
        "temperature",
        lambda v: RELAX(MLP(4, 1), v),
        st.one_of(UNLIKE_NUMBERS.filter(lambda v: v is not None), BELOW_0, st.just(0)),
    ),
    Case("RELAX", "decay", lambda v: RELAX(MLP(4, 1), 0.5, v), st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1, 9))),
    Case("GumbelRao", "temperature", GumbelRao, st.one_of(UNLIKE_NUMBERS, BELOW_0, st.just(0))),
    Case("GumbelRao", "num_samples", lambda v: GumbelRao(0.5, v), NOT_COUNTS),
    Case("GumbelSoftmax", "temperature", GumbelSoftmax, st.one_of(UNLIKE_NUMBERS, BELOW_0, st.just(0))),
    Case(
        "StraightThrough",
        "temperature",
        StraightThrough,
        st.sampled_from([torch.tensor(-1.0), torch.tensor(1j), torch.ones(1, 2)]),
    ),
    Case("MovingAverage", "decay", MovingAverage, st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1, 9))),
    Case("NVIL", "decay", lambda v: NVIL(MLP(4, 1), v), st.one_of(UNLIKE_NUMBERS, BELOW_0, st.floats(1, 9))),
    Case("NVIL", "net", NVIL, st.sampled_from([None, 3, "net", MLP, X, lambda x: x, [MLP(4, 1)]])),
    Case(
        "ScoreFunction", "baseline", ScoreFunction, st.sampled_from([3, 0.9, True, MovingAverage, NVIL, MLP(4, 1), X])
    ),
    Case("Separate", "model", lambda v: Separate(v, IWAE(5)), NOT_OBJECTIVES),
    Case("Separate", "guide", lambda v: Separate(IWAE(5), v), NOT_OBJECTIVES),
    Case(
        "Separate",
        "model",
        lambda v: Separate(v, IWAE(5)),
        st.sampled_from([CUBO(2, 5), IWAE(5, DReG()), IWAE(4), tempered(IWAE(5)), WakeSleep(5)]),
    ),
    Case(
        "Separate",
        "guide",
        lambda v: Separate(IWAE(5), v),
        st.sampled_from([IWAE(4), RWS(5), ELBO(5, analytic_kl=True), PIWAE(1, 5), IWAE(5, GumbelSoftmax())]),
    ),
    Case("tempered", "beta", lambda v: tempered(ELBO(), v), st.one_of(NOT_WEIGHTS, NOT_SITES)),
    Case("tempered", "beta", lambda v: tempered(ELBO(), {"z": v}), NOT_WEIGHTS),
    Case("free_bits", "nats", lambda v: free_bits(ELBO(), v), st.one_of(UNLIKE_NUMBERS, BELOW_0, NOT_SITES)),
    Case("free_bits", "nats", lambda v: free_bits(ELBO(), {"z": v}), st.one_of(UNLIKE_NUMBERS, BELOW_0)),
    Case(
        "free_bits",
        "groups",
        lambda v: free_bits(ELBO(), 1.0, v),
        st.one_of(NOT_COUNTS.filter(lambda v: v is not False), NOT_SITES),
    ),
    Case("capacity", "nats", lambda v: capacity(ELBO(), v), st.one_of(NOT_WEIGHTS, st.just({"z": 1.0}))),
    Case("capacity", "gamma", lambda v: capacity(ELBO(), 1.0, v), st.one_of(UNLIKE_NUMBERS, BELOW_0)),
    Case("total_correlation", "beta", lambda v: total_correlation(ELBO(), v), NOT_WEIGHTS),
    Case(
        "total_correlation",
        "site",
        lambda v: total_correlation(ELBO(), 2.0, v),
        st.sampled_from([3, ["z"], X, 1.5, b"z"]),
    ),
    Case(
        "MAP",
        "prior",
        lambda v: MAP(ELBO(), v, 6),
        st.sampled_from(
            [
                None,
                1.0,
                "normal",
                dist.Normal,
                torch.distributions.Normal(0.0, 1.0),
                dist.Normal(torch.zeros(3), 1.0),
                NORMAL.expand([2]).to_event(1),
                GUIDE,
                {},
                {3: NORMAL},
                {"*": 1.0},
            ]
        ),
    ),
    Case("MAP", "num_data", lambda v: MAP(ELBO(), NORMAL, v), NOT_COUNTS),
]
TRUTH, PYTHON = "any truth value", "takes no argument, as Python itself says"
ANY = {
    "VIMCO(everywhere)": TRUTH,
    "ScoreFunction(everywhere)": TRUTH,
    **{f"Bound({name})": TRUTH for name in ("linear", "smooth")},
    **{f"{name}(args)": PYTHON for name in ("STL", "DReG", "DisARM", "Enumeration", "Total", "Estimator")},
}
