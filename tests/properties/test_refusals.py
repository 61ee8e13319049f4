"""Whatever is passed: the right answer, or an error of ours that names the argument, never a bare one of torch."""

from __future__ import annotations

import linecache
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from torch import nn

import distributions
import evidence
import guides
import inference
from distributions import Bernoulli, StandardNormal
from evidence import annealed, calibration, enumerated, exact, importance, prior_sampling, simulate, views
from experiments.data import Loader, digits, from_file, from_tensor, load
from guides import Diagonal, Local, latents
from inference import ELBO, IWAE, SVI, check, evaluate, fit, log_weights
from models import PPCA, VAE
from nets import MADE, MLP, Conv, Deconv, ResidualBlock

ROOT = Path(__file__).parents[2]
X = (torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
MODEL = VAE(2, Bernoulli(MLP(2, 6, 4)))
GUIDE = Diagonal(latents(MODEL, X), MLP(4, 6))
LINEAR = PPCA(torch.ones(4, 2), torch.zeros(4), 1.0)
KNOWN = ValueError, TypeError, FileNotFoundError
NOT_COUNTS = st.one_of(
    st.integers(-9, 0),
    st.floats(),
    st.sampled_from([None, "3", "", (), [1], {}, 1j, object(), torch.tensor(2.5), False]),
)
NOT_NUMBERS = st.sampled_from(["3", "", (), [1], {}, 1j, object()])
NOT_SEEDS = st.one_of(st.floats(), st.sampled_from(["3", (), [1], 1j, object(), 2**70, -(2**70)]))
NOT_DATA = st.one_of(st.integers(), st.floats(), st.sampled_from(["x", object(), 1j, torch.tensor(1.0)]))
NOT_DEVICES = st.sampled_from(["3", "cpus", -1, 1.5, [1], object()])
NOT_PROGRAMS = st.sampled_from([None, 1, 2.5, "model", [], X])


class Case(NamedTuple):
    """What is called with the value, and what its refusal must name."""

    name: str
    call: Callable
    bad: st.SearchStrategy
    named: str


def refused(error: BaseException, named: str) -> None:
    """An error that we raised ourselves, that names the argument, and that goes on after what came."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "contextlib" not in frame.filename]
    last = frames[-1]
    ours = Path(last.filename).is_relative_to(ROOT) and ".venv" not in last.filename
    assert isinstance(error, KNOWN), repr(error)
    assert ours and "raise" in linecache.getline(last.filename, last.lineno), f"{last}: {error!r}"
    assert named in str(error) and len(str(error)) > len(named) + 20, f"{named!r} is not named: {error}"


def net() -> nn.Module:
    return nn.Linear(4, 8)


def fitted(**changed):
    settings = dict(train=[(X,)], epochs=1, seed=0, progress=False, engine="eager") | changed
    return next(fit(MODEL, GUIDE, IWAE(2), **settings))


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
AMORTIZED = [
    "Diagonal",
    "FullRank",
    "LowRank",
    "Mixture",
    "StudentT",
    "IAF",
    "NeuralSpline",
    "RealNVP",
    "Planar",
    "Joint",
]
BOUNDS = ["ELBO", "IWAE", "VRMax", "RWS"]
CASES = [
    Case("MLP", lambda v: MLP(v, 3), NOT_COUNTS, "sizes"),
    Case("Conv", lambda v: Conv(16, v, 3), NOT_COUNTS, "sizes"),
    Case("Deconv", lambda v: Deconv(v, 16), NOT_COUNTS, "sizes"),
    Case("ResidualBlock", ResidualBlock, NOT_COUNTS, "channels"),
    Case("MADE", lambda v: MADE(v, hidden=(9,)), NOT_COUNTS, "dim"),
    Case("StandardNormal", StandardNormal, NOT_COUNTS, "dim"),
    Case("VAE", lambda v: VAE(v, Bernoulli(MLP(2, 4))), NOT_COUNTS, "z_dim"),
    Case("PPCA", lambda v: PPCA(v, torch.zeros(3), 1.0), NOT_NUMBERS, "weight"),
    Case("Local", lambda v: Local(latents(MODEL, X), v), NOT_COUNTS, "num_data"),
    *(Case(f, lambda v, f=f: getattr(distributions, f)(net(), v), NOT_COUNTS, "dim") for f in FAMILIES),
    *(
        Case(f"{f} depth", lambda v, f=f: getattr(distributions, f)(net(), 2, depth=v), NOT_COUNTS, "depth")
        for f in FAMILIES[5:]
    ),
    *(Case(g, lambda v, g=g: getattr(guides, g)(v, MLP(4, 6)), NOT_DATA, "latents") for g in AMORTIZED),
    *(
        Case(f"{g} encoder", lambda v, g=g: getattr(guides, g)(GUIDE.latents, v), NOT_DATA, "out_features")
        for g in AMORTIZED
    ),
    *(Case(b, lambda v, b=b: getattr(inference, b)(v), NOT_COUNTS, "num_particles") for b in BOUNDS),
    Case("Renyi", lambda v: inference.Renyi(v), NOT_NUMBERS, "alpha"),
    Case("CUBO", lambda v: inference.CUBO(v), NOT_NUMBERS, "order"),
    Case("CIWAE", lambda v: inference.CIWAE(v), NOT_NUMBERS, "beta"),
    Case("linear", lambda v: inference.linear(0.0, 1.0, v), NOT_COUNTS, "steps"),
    Case("SVI clip_norm", lambda v: SVI(MODEL, GUIDE, torch.optim.Adam, ELBO(), clip_norm=v), NOT_NUMBERS, "clip_norm"),
    Case("log_weights", lambda v: log_weights(MODEL, GUIDE, X, num_particles=v), NOT_COUNTS, "num_particles"),
    Case("latents", lambda v: latents(v, X), NOT_PROGRAMS, "model"),
    Case("check model", lambda v: check(v, GUIDE, ELBO(), X), NOT_PROGRAMS, "model"),
    Case("check guide", lambda v: check(MODEL, v, ELBO(), X), NOT_PROGRAMS, "guide"),
    Case("check objective", lambda v: check(MODEL, GUIDE, v, X), NOT_PROGRAMS, "objective"),
    Case("fit seed", lambda v: fitted(seed=v), NOT_SEEDS, "seed"),
    Case("fit epochs", lambda v: fitted(epochs=v), NOT_COUNTS, "epochs"),
    Case("evaluate data", lambda v: evaluate(MODEL, GUIDE, v), NOT_DATA, "batch"),
    Case("evaluate model", lambda v: evaluate(v, GUIDE, X), NOT_PROGRAMS, "model"),
    Case("evaluate particles", lambda v: evaluate(MODEL, GUIDE, X, v), NOT_COUNTS, "num_particles"),
    Case("evaluate seed", lambda v: evaluate(MODEL, GUIDE, X, 5, seed=v), NOT_SEEDS, "seed"),
    Case("importance", lambda v: importance(MODEL, GUIDE, v), NOT_DATA, "batch"),
    Case("prior_sampling", lambda v: prior_sampling(v, X), NOT_PROGRAMS, "model"),
    Case("views", lambda v: views(MODEL, GUIDE, X, v), NOT_COUNTS, "num_particles"),
    Case("views data", lambda v: views(MODEL, GUIDE, v), NOT_DATA, "batch"),
    Case("annealed", lambda v: annealed(MODEL, X, num_chains=v), NOT_COUNTS, "num_chains"),
    Case("annealed data", lambda v: annealed(MODEL, v), NOT_DATA, "batch"),
    Case("exact", lambda v: exact(LINEAR, X, rows=v), NOT_COUNTS, "rows"),
    Case("enumerated", lambda v: enumerated(MODEL, v), NOT_DATA, "batch"),
    Case("simulate", lambda v: simulate(MODEL, v), NOT_COUNTS, "n"),
    Case("simulate model", lambda v: simulate(v, 4), NOT_PROGRAMS, "model"),
    Case("calibration", lambda v: calibration(MODEL, GUIDE, num_data=v), NOT_COUNTS, "num_data"),
    Case("Loader batch_size", lambda v: Loader(X, v), NOT_COUNTS, "batch_size"),
    Case("Loader seed", lambda v: Loader(X, seed=v), NOT_SEEDS, "seed"),
    Case("Loader labels", lambda v: Loader(X, labels=v), NOT_NUMBERS, "labels"),
    Case("Loader device", lambda v: Loader(X).to(v), NOT_DEVICES, "device"),
    Case("take", lambda v: Loader(X).take(v), NOT_COUNTS, "n must"),
    Case("load", load, NOT_PROGRAMS, "name"),
    Case("digits", lambda v: digits(batch_size=v), NOT_COUNTS, "batch_size"),
    Case("from_file", from_file, NOT_PROGRAMS.filter(lambda v: v != "model"), "path"),
    Case("from_tensor", from_tensor, NOT_DATA, "x must"),
    Case("from_tensor scale", lambda v: from_tensor(X, scale=v), NOT_NUMBERS, "scale"),
    Case("from_tensor valid", lambda v: from_tensor(X, valid=v), NOT_NUMBERS, "valid"),
    Case("from_tensor device", lambda v: from_tensor(torch.rand(20, 3), device=v), NOT_DEVICES, "device"),
]


def hold(case: Case, value: object) -> None:
    before = torch.get_rng_state(), pyro.poutine.runtime._PYRO_STACK[:]
    try:
        case.call(value)
    except Exception as error:
        refused(error, case.named)
    else:
        pytest.fail(f"{case.name} takes {value!r}")
    assert pyro.poutine.runtime._PYRO_STACK == before[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_no_such_argument_is_refused_by_its_name(case):
    @running(max_examples=6, deadline=None, derandomize=True, database=None)
    @given(case.bad)
    def property(value):
        hold(case, value)

    property()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_and_so_are_many_more(case):
    @running(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(case.bad)
    def property(value):
        hold(case, value)

    property()


def test_numbers_that_are_out_of_range_are_no_numbers_in_range():
    for value in (math.nan, math.inf, -math.inf):
        for make in (inference.Renyi, inference.CUBO, inference.CIWAE, inference.constant):
            with pytest.raises(ValueError, match="must be"):
                make(value)
    assert evidence.exact(LINEAR, X).log_px.shape == (6,)
