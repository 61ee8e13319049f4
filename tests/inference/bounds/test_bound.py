"""A bound as a value: what it says without formulas, how it is written, and which way it is trained."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from oracles import assert_close
from oracles.forcing import golden_sbn

from dlvm.inference import (
    CIWAE,
    CUBO,
    IWAE,
    MIWAE,
    TVO,
    Bound,
    DReG,
    Objective,
    Renyi,
    ScoreFunction,
    Separate,
    VRMax,
)
from dlvm.inference.bounds.power_means import power_mean
from dlvm.inference.objectives.wake_sleep import Phases

pytestmark = pytest.mark.usefixtures("float64")


def tilted(log_w, power):
    return power_mean(log_w, power)


def test_without_formulas_a_bound_says_the_same():
    log_w, bare, known = torch.randn(5, 7), Bound(partial(tilted, power=0.4)), Renyi(0.6, 5).bound
    for name in ("__call__", "slopes", "curvatures", "left_out", "signals"):
        assert_close(getattr(bare, name)(log_w), getattr(known, name)(log_w), 1e-12)


def test_an_upper_bound_of_ones_own_is_lowered_by_the_guide_and_leaves_the_model_alone():
    """As CUBO is; raised, it would fit nothing and nobody would be told."""
    lattice, parameters = golden_sbn()
    own = Objective(Bound(partial(tilted, power=2.0), "upper"), 2, ScoreFunction())
    found, expected = (lattice.expected_gradient(one, parameters) for one in (own, CUBO(2.0, 2, ScoreFunction())))
    raised = lattice.expected_gradient(Objective(Bound(partial(tilted, power=2.0)), 2, ScoreFunction()), parameters)
    guide = len(parameters[-1])
    assert_close(found, expected, 1e-12)
    assert_close(found[-guide:], -raised[-guide:], 1e-12)
    assert found[-guide:].abs().max() > 0.01 and (found[:-guide] == 0).all() and raised[:-guide].abs().max() > 0.01
    with pytest.raises(ValueError, match="must be a bound to be raised"):
        Separate(model=Objective(own.bound, 2), guide=IWAE(2))
    with pytest.raises(ValueError, match=r"Phases\(.*is not defined for tilted\(power=2.0\); use Total"):
        Objective(own.bound, 2, Phases(sleep=0.5))


def test_an_objective_of_ones_own_is_written_so_that_runs_can_be_told_apart():
    """Without addresses, which differ between processes."""
    half, whole = (Objective(Bound(partial(tilted, power=p), "neither"), 3) for p in (0.5, 1.0))
    assert repr(half) == "Objective(Bound(tilted(power=0.5), side='neither'), num_particles=3)" != repr(whole)
    assert repr(Objective(Bound(tilted, linear=True, smooth=False))).startswith(
        "Objective(Bound(tilted, side='lower', linear=True, smooth=False), num"
    )
    with pytest.raises(ValueError, match=r"continuous slopes, which tilted has not"):
        Objective(Bound(tilted, smooth=False), 2, DReG())


@pytest.mark.parametrize(
    "objective", [IWAE(6), MIWAE(2, 3), CIWAE(0.3, 6), TVO(6, 3), VRMax(6), CUBO(2.0, 6)], ids=repr
)
def test_bounds_can_be_copied_and_sent_to_another_process(objective):
    log_w = torch.randn(6, 3)
    for other in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert repr(other) == repr(objective) and torch.equal(other.bound(log_w), objective.bound(log_w))


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (IWAE(4), ["bound"]),
        (Renyi(0.5), ["alpha", "bound"]),
        (CUBO(2.0), ["order", "bound"]),
        (CIWAE(0.5), ["beta", "bound"]),
        (MIWAE(2, 2), ["groups", "each", "bound"]),
        (TVO(5), ["intervals", "first", "bound"]),
    ],
    ids=repr,
)
def test_what_a_bound_is_made_of_is_read_only(objective, settings):
    """A captured step would go on with the old bound, since the engine does not look inside one."""
    for name in settings:
        before = getattr(objective, name)
        with pytest.raises(AttributeError, match=rf"^{name} of {type(objective).__name__}\(.*is read-only.*make a new"):
            setattr(objective, name, before)
        assert getattr(objective, name) is before
