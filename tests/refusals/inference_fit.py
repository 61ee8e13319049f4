"""What fit refuses."""

from __future__ import annotations

from functools import partial
from inspect import signature
from pathlib import Path

import torch
from hypothesis import strategies as st
from pyro.infer import ReweightedWakeSleep
from torch.optim import lr_scheduler as schedules
from torch.utils.data import TensorDataset

from dlvm.experiments.data import Loader
from dlvm.inference import CUBO, ELBO, fit, linear
from refusals import mixtures
from refusals.case import NOT_COUNTS, NOT_DEVICES, NOT_SEEDS, ROOT, Case
from refusals.odd_pairs import (
    NOT_BATCHES,
    NOT_ENGINES,
    NOT_GUIDES,
    NOT_MODELS,
    NOT_NORMS,
    NOT_OBJECTIVES,
    NOT_OPTIMIZERS,
    SAID,
    STRANGERS,
)
from refusals.pairs import GUIDE, MODEL, X, fitted

NOT_ITERABLE = st.sampled_from(
    [3, 2.5, True, X, X[0], MODEL, Loader, iter([(X,)]), ((x,) for x in [X]), zip([X]), object()]
)
NOT_SCHEDULERS = st.sampled_from(
    [
        3,
        "cosine",
        schedules.StepLR,
        schedules.ReduceLROnPlateau,
        lambda o: None,
        lambda o: o,
        lambda: None,
        partial(schedules.ExponentialLR, rate=2),
        linear(0, 1, 3),
        list,
        ELBO,
    ]
)
NOT_FOLDERS = st.sampled_from(
    [3, 2.5, True, "", b"runs", [], {}, X, Path, ROOT / "README.md", str(ROOT / "README.md"), ("runs",)]
)


def fit_(*args, **settings):
    return fit(*args, **dict(objective=ELBO(2), train=[(X,)], epochs=1, progress=False, engine="eager") | settings)


CASES = [
    Case("fit", "model", lambda v: fit_(v, GUIDE), NOT_MODELS),
    Case("fit", "guide", lambda v: fit_(MODEL, v), NOT_GUIDES),
    Case("fit", "objective", lambda v: fit_(MODEL, GUIDE, objective=v), NOT_OBJECTIVES),
    Case(
        "fit",
        "objective",
        lambda v: fit_(MODEL, GUIDE, objective=v),
        st.builds(ReweightedWakeSleep),
        "ReweightedWakeSleep",
    ),
    *(Case("fit", n, lambda v, n=n: fitted(**{n: v}), NOT_ITERABLE) for n in ("train", "valid")),
    *(Case("fit", n, lambda v, n=n: fitted(**{n: [v]}), NOT_BATCHES, SAID) for n in ("train", "valid")),
    *(Case("fit", n, lambda v, n=n: fitted(**{n: [(X,), v]}), NOT_BATCHES, SAID) for n in ("train", "valid")),
    Case(
        "fit",
        "train",
        lambda v: fitted(train=v),
        st.sampled_from([None, [], (), {}, "", {"x": X}, [None], TensorDataset(X), [[[X]]]]),
        SAID,
    ),
    Case("fit", "epochs", lambda v: fitted(epochs=v), NOT_COUNTS),
    Case("fit", "optimizer", lambda v: fitted(optimizer=v), st.one_of(NOT_OPTIMIZERS, STRANGERS)),
    Case("fit", "scheduler", lambda v: fitted(scheduler=v), NOT_SCHEDULERS),
    Case("fit", "clip_norm", lambda v: fitted(clip_norm=v), NOT_NORMS),
    Case("fit", "skip_norm", lambda v: fitted(skip_norm=v), NOT_NORMS),
    Case("fit", "skip_norm", lambda v: [*fitted(skip_norm=v)], st.floats(1e-9, 1e-3)),
    Case("fit", "patience", lambda v: fitted(patience=v, valid=[(X,)]), NOT_COUNTS.filter(lambda v: v is not None)),
    Case("fit", "patience", lambda v: fitted(patience=v), st.integers(1, 9)),
    Case(
        "fit",
        "patience",
        lambda v: fit_(MODEL, GUIDE, objective=CUBO(2, 4), patience=v, valid=[(X,)]),
        st.integers(1, 9),
    ),
    Case("fit", "device", lambda v: fitted(device=v), st.one_of(NOT_DEVICES, st.sampled_from(["meta", "cuda:99"]))),
    Case("fit", "seed", lambda v: fitted(seed=v), st.one_of(NOT_SEEDS, st.integers(-9, -1))),
    Case("fit", "engine", lambda v: fitted(engine=v), NOT_ENGINES),
    Case(
        "fit",
        "precision",
        lambda v: fitted(precision=v),
        st.sampled_from([None, 32, "fp16", "FP32", torch.float32, "", True]),
    ),
    Case("fit", "checkpoint", lambda v: fitted(checkpoint=v), NOT_FOLDERS),
    Case("fit", "every", lambda v: fitted(every=v, checkpoint="never"), NOT_COUNTS.filter(lambda v: v is not None)),
    Case("fit", "every", lambda v: fitted(every=v), st.integers(1, 9)),
    Case("fit", "keep", lambda v: fitted(keep=v), NOT_COUNTS),
    Case("fit", "rollbacks", lambda v: fitted(rollbacks=v), NOT_COUNTS.filter(lambda v: v is False or v != 0)),
    *mixtures.EM_CASES,
]
ANY = {"fit(progress)": "any truth value"}
ANY |= {f"train({name})": "handed on to fit" for name in signature(fit).parameters}
