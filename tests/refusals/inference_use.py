"""What the calls on a trained pair refuse."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import strategies as st

from dlvm.guides import Diagonal
from dlvm.inference import decode, encode, generate, impute, interpolate, log_px, predict, reconstruct, traverse
from dlvm.models import VAE
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_DATA, NOT_SEEDS, Case
from refusals.odd_pairs import ELSEWHERE, NOT_FIT, SAID, WIDE, draws_nothing, fails_in_the_middle, takes_two
from refusals.pairs import GUIDE, MODEL, X

Z = torch.zeros(6, 2)
SEEDS = st.one_of(NOT_SEEDS, st.integers(-9, -1))
NOT_ARRAYS = st.one_of(NOT_DATA, st.sampled_from([[], "x", (), [X], [(X,)], None, {"x": X}]))
STRANGE_GUIDES = st.sampled_from([ELSEWHERE, WIDE, takes_two, Diagonal])
STRANGE_MODELS = st.sampled_from([VAE, fails_in_the_middle, takes_two])
NOT_Z = st.one_of(NOT_DATA, st.sampled_from([Z[:, :1], Z[:0], Z[0], torch.zeros(6, 3), None, [], {}, {0: Z}, {"w": Z}]))
NOT_GIVEN = st.sampled_from([3, "z", [Z], {0: Z}, {"z": 3}, {"z": Z[:5]}, {"w": Z}, {"z": Z[0]}, {"z": "a"}, Z])


def of_data(function, name: str | None = None) -> list[Case]:
    """What all of those take that are called with a pair and its data."""
    name = name or function.__name__
    return [
        Case(name, "model", lambda v: function(v, GUIDE, X), NOT_CALLABLE),
        Case(name, "model", lambda v: function(v, GUIDE, X), STRANGE_MODELS, SAID),
        Case(name, "guide", lambda v: function(MODEL, v, X), NOT_CALLABLE),
        Case(name, "guide", lambda v: function(MODEL, v, X), STRANGE_GUIDES, SAID),
        Case(name, "x", lambda v: function(MODEL, GUIDE, v), NOT_ARRAYS, SAID),
        Case(name, "x", lambda v: function(MODEL, GUIDE, v), NOT_FIT, SAID),
        Case(name, "num_particles", lambda v: function(MODEL, GUIDE, X, num_particles=v), NOT_COUNTS),
        Case(name, "seed", lambda v: function(MODEL, GUIDE, X, seed=v), SEEDS),
    ]


CASES = [
    *of_data(encode),
    *of_data(reconstruct),
    *of_data(log_px),
    *of_data(partial(predict, site="z"), "predict"),
    *of_data(impute),
    Case("predict", "site", lambda v: predict(MODEL, GUIDE, X, v), st.sampled_from([None, 3, "w", "", ["z"], X])),
    Case("predict", "num_draws", lambda v: predict(MODEL, GUIDE, X, "z", num_draws=v), NOT_COUNTS),
    Case("impute", "num_draws", lambda v: impute(MODEL, GUIDE, X, num_draws=v), NOT_COUNTS),
    *(Case(f.__name__, "guide", lambda v, f=f: f(MODEL, v, X), st.just(draws_nothing)) for f in (encode, reconstruct)),
    Case("encode", "num_particles", lambda v: encode(MODEL, GUIDE, X, num_particles=v), st.just(1)),
    Case("encode", "num_draws", lambda v: encode(MODEL, GUIDE, X, num_draws=v), st.one_of(NOT_COUNTS, st.just(101))),
    Case("decode", "model", lambda v: decode(v, Z), NOT_CALLABLE),
    Case("decode", "model", lambda v: decode(v, Z), STRANGE_MODELS, SAID),
    Case("decode", "z", lambda v: decode(MODEL, v), NOT_Z, SAID),
    Case("decode", "seed", lambda v: decode(MODEL, Z, seed=v), SEEDS),
    Case("generate", "model", lambda v: generate(v, 2), NOT_CALLABLE),
    Case("generate", "model", lambda v: generate(v, 2), STRANGE_MODELS, SAID),
    Case("generate", "n", lambda v: generate(MODEL, v), NOT_COUNTS),
    Case("generate", "given", lambda v: generate(MODEL, 6, given=v), NOT_GIVEN, SAID),
    Case("generate", "given", lambda v: generate(MODEL, 6, given={"x": v}), st.just(X)),
    Case(
        "generate",
        "num_particles",
        lambda v: generate(MODEL, 6, num_particles=v),
        NOT_COUNTS.filter(lambda v: v is not None),
    ),
    Case("generate", "seed", lambda v: generate(MODEL, 2, seed=v), SEEDS),
]
WAYS = [
    Case("interpolate", "model", lambda v: interpolate(v, GUIDE, X, X), NOT_CALLABLE),
    Case("interpolate", "guide", lambda v: interpolate(MODEL, v, X, X), NOT_CALLABLE),
    Case("interpolate", "a", lambda v: interpolate(MODEL, GUIDE, v, X), st.one_of(NOT_ARRAYS, NOT_FIT), SAID),
    Case("interpolate", "b", lambda v: interpolate(MODEL, GUIDE, X, v), st.one_of(NOT_ARRAYS, NOT_FIT), SAID),
    Case("interpolate", "b", lambda v: interpolate(MODEL, GUIDE, X, v), st.just(X[:2])),
    Case("interpolate", "steps", lambda v: interpolate(MODEL, GUIDE, X, X, v), st.one_of(NOT_COUNTS, st.just(1))),
    Case("interpolate", "num_particles", lambda v: interpolate(MODEL, GUIDE, X, X, num_particles=v), NOT_COUNTS),
    Case("interpolate", "seed", lambda v: interpolate(MODEL, GUIDE, X, X, seed=v), SEEDS),
    Case("traverse", "model", lambda v: traverse(v, "z"), NOT_CALLABLE),
    Case("traverse", "site", lambda v: traverse(MODEL, v), st.sampled_from([None, 3, "w", "x", "", ["z"], X])),
    Case("traverse", "dims", lambda v: traverse(MODEL, "z", v), st.sampled_from([3, "0", [], [2], [-1], ["0"], [0.5]])),
    Case("traverse", "values", lambda v: traverse(MODEL, "z", values=v), st.sampled_from([3, "0", [], ["0"], [None]])),
    Case(
        "traverse",
        "at",
        lambda v: traverse(MODEL, "z", at=v),
        NOT_Z.filter(lambda v: not (v is None or (isinstance(v, dict) and not v))),
        SAID,
    ),
    Case("traverse", "at", lambda v: traverse(MODEL, "z", at=v), st.sampled_from([Z, {"z": Z[:2]}])),
    Case("traverse", "seed", lambda v: traverse(MODEL, "z", seed=v), SEEDS),
]
CASES += WAYS


def without_n(x):
    return MODEL(x)


NOT_EXAMPLES = st.one_of(NOT_ARRAYS, st.sampled_from([X[:, :3], X * 0.5, X[:0], (X, X)]))
CASES += [
    Case("decode", "example", lambda v: decode(without_n, Z, example=v), NOT_EXAMPLES, SAID),
    Case("generate", "example", lambda v: generate(without_n, 2, example=v), NOT_EXAMPLES, SAID),
    Case("traverse", "example", lambda v: traverse(without_n, "z", example=v), NOT_EXAMPLES, SAID),
]
ANY = {"decode(draw)": "any truth value", "impute(progress)": "any truth value"}
