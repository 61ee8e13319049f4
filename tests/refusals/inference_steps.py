"""What SVI, check, evaluate and the like refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from dlvm.guides import Diagonal
from dlvm.inference import (
    ELBO,
    SVI,
    Evaluation,
    check,
    described,
    evaluate,
    joined,
    linear,
    log_weights,
    tempered,
    verdict,
)
from dlvm.models import VAE
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_DATA, NOT_DEVICES, NOT_SEEDS, Case
from refusals.odd_pairs import (
    ADAM,
    ELSEWHERE,
    NOT_ARGUMENTS,
    NOT_BATCHES,
    NOT_ENGINES,
    NOT_FIT,
    NOT_GUIDES,
    NOT_MODELS,
    NOT_NORMS,
    NOT_OBJECTIVES,
    NOT_OPTIMIZERS,
    SAID,
    STRANGERS,
    WIDE,
    draws_nothing,
    fails_in_the_middle,
    takes_two,
)
from refusals.pairs import GUIDE, MODEL, X

NOT_RESULTS = st.sampled_from([None, 3, "good", {}, {"log_px": 1.0}, [], X, Evaluation, evaluate, -1.5])
NOT_NAMES = st.sampled_from([3, 1.5, "", [1], ("x", 2), object(), X, {3: 1}])
STRANGE_NAMES = st.sampled_from(["y", ("x", "tabel"), {"tabel": 0}])
NOT_AXES = st.sampled_from([-1, 1.5, True, None, "1", (0,), X])
NOT_HISTORIES = st.sampled_from([3, None, "ab", [1, 2], [None], {"valid": 1.0}, X, [X], 2.5])


def svi(**changed):
    given = dict(model=MODEL, guide=GUIDE, optimizer=ADAM, objective=ELBO(2), engine="eager") | changed
    return SVI(**given)


def stepped(*args, **changed):
    return svi(**changed).step(*(args or (X,)))


def stepped_twice(batch):
    made = svi()
    made.step(X)
    return made.step(batch)


def result():
    bounds = dict(elbo=-2.0, elbo_se=0.01, log_px=-1.9, log_px_se=0.01, rate=1.0, distortion=1.0)
    weights = dict(ess=90.0, khat=0.2, khat_bad=0.3, bits_per_dim=0.3, num_particles=100, num_data=50)
    return Evaluation(**bounds, **weights, active_units=2, units=2)


def join(device):
    with joined(device):
        pass


CASES = [
    Case("SVI", "model", lambda v: stepped(model=v), NOT_CALLABLE),
    Case("SVI", "model", lambda v: stepped(model=v), st.sampled_from([VAE, fails_in_the_middle, takes_two]), SAID),
    Case("SVI", "guide", lambda v: stepped(guide=v), NOT_CALLABLE),
    Case(
        "SVI",
        "guide",
        lambda v: stepped(guide=v),
        st.sampled_from([Diagonal, WIDE, ELSEWHERE, takes_two, draws_nothing]),
        SAID,
    ),
    Case("SVI", "optimizer", lambda v: stepped(optimizer=v), st.one_of(NOT_OPTIMIZERS, STRANGERS)),
    Case("SVI", "objective", lambda v: svi(objective=v), NOT_OBJECTIVES),
    Case("SVI", "clip_norm", lambda v: svi(clip_norm=v), NOT_NORMS),
    Case("SVI", "skip_norm", lambda v: svi(skip_norm=v), NOT_NORMS),
    Case("SVI", "engine", lambda v: svi(engine=v), NOT_ENGINES),
    Case(
        "SVI",
        "precision",
        lambda v: svi(precision=v),
        st.sampled_from([None, 32, "fp16", "FP32", torch.float32, "", True]),
    ),
    Case("SVI", "steps", lambda v: svi(steps=v), NOT_COUNTS.filter(lambda v: v is not None)),
    Case("SVI", "steps", lambda v: svi(objective=tempered(ELBO(), linear(0, 1, 99)), steps=v), st.integers(1, 98)),
    Case("SVI.step", "args", stepped, NOT_ARGUMENTS, SAID),
    Case("SVI.step", "args", stepped_twice, NOT_ARGUMENTS, SAID),
    Case("SVI.step", "args", lambda v: svi().step(), st.none(), SAID),
    Case("SVI.step", "args", lambda v: svi().step(X, X, X, v), NOT_DATA, SAID),
    Case("SVI.step", "kwargs", lambda v: svi().step(x=v), NOT_ARGUMENTS, SAID),
    Case("SVI.step", "kwargs", lambda v: svi().step(X, y=v), NOT_DATA, "y"),
    Case("SVI.evaluate_loss", "args", lambda v: svi().evaluate_loss(v), NOT_ARGUMENTS, SAID),
    Case("log_weights", "model", lambda v: log_weights(v, GUIDE, X), NOT_CALLABLE),
    Case("log_weights", "guide", lambda v: log_weights(MODEL, v, X), NOT_CALLABLE),
    Case(
        "log_weights",
        "guide",
        lambda v: log_weights(MODEL, v, X, num_particles=2),
        st.sampled_from([WIDE, ELSEWHERE, draws_nothing, takes_two]),
        SAID,
    ),
    Case("log_weights", "args", lambda v: log_weights(MODEL, GUIDE, v, num_particles=2), NOT_ARGUMENTS, SAID),
    Case("log_weights", "num_particles", lambda v: log_weights(MODEL, GUIDE, X, num_particles=v), NOT_COUNTS),
    Case("check", "model", lambda v: check(v, GUIDE, ELBO(), X), NOT_MODELS),
    Case("check", "guide", lambda v: check(MODEL, v, ELBO(), X), NOT_GUIDES),
    Case("check", "objective", lambda v: check(MODEL, GUIDE, v, X), NOT_OBJECTIVES),
    Case("check", "args", lambda v: check(MODEL, GUIDE, ELBO(), v), NOT_ARGUMENTS, SAID),
    Case("check", "args", lambda v: check(MODEL, GUIDE, ELBO(), x=v), NOT_ARGUMENTS, SAID),
    Case("check", "args", lambda v: check(MODEL, GUIDE, ELBO(), X, X, X), st.none(), "model"),
    Case("evaluate", "model", lambda v: evaluate(v, GUIDE, X, 5), NOT_CALLABLE),
    Case("evaluate", "guide", lambda v: evaluate(MODEL, v, X, 5), NOT_CALLABLE),
    Case(
        "evaluate",
        "guide",
        lambda v: evaluate(MODEL, v, X, 5),
        st.sampled_from([WIDE, ELSEWHERE, draws_nothing, takes_two, Diagonal]),
        SAID,
    ),
    Case("evaluate", "data", lambda v: evaluate(MODEL, GUIDE, v), NOT_DATA, "batch"),
    Case("evaluate", "data", lambda v: evaluate(MODEL, GUIDE, v, 5), NOT_FIT, SAID),
    Case("evaluate", "data", lambda v: evaluate(MODEL, GUIDE, [v], 5), NOT_BATCHES, SAID),
    Case("evaluate", "num_particles", lambda v: evaluate(MODEL, GUIDE, X, v), NOT_COUNTS),
    Case(
        "evaluate", "chunk", lambda v: evaluate(MODEL, GUIDE, X, 5, chunk=v), NOT_COUNTS.filter(lambda v: v is not None)
    ),
    Case("evaluate", "seed", lambda v: evaluate(MODEL, GUIDE, X, 5, seed=v), st.one_of(NOT_SEEDS, st.integers(-9, -1))),
    Case("evaluate", "engine", lambda v: evaluate(MODEL, GUIDE, X, 5, engine=v), NOT_ENGINES),
    Case("joined", "device", join, NOT_DEVICES),
    Case("verdict", "result", verdict, NOT_RESULTS),
    Case("verdict", "history", lambda v: verdict(result(), v), NOT_HISTORIES),
    Case("described", "model", described, st.sampled_from([1, 2.5, "model", [], X, VAE])),
    Case("described", "data_plate", lambda v: described(MODEL, data_plate=v), NOT_NAMES),
    Case("described", "shared", lambda v: described(MODEL, shared=v), st.one_of(NOT_NAMES, STRANGE_NAMES)),
    Case("described", "per_datum", lambda v: described(MODEL, per_datum=v), st.one_of(NOT_NAMES, STRANGE_NAMES)),
    Case("described", "per_datum", lambda v: described(MODEL, per_datum={"x": v}), NOT_AXES),
    Case(
        "described", "per_datum", lambda v: described(MODEL, shared="x", per_datum=v), st.sampled_from(["x", {"x": 1}])
    ),
]
ANY = {"evaluate(progress)": "any truth value"}
