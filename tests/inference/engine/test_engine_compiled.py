"""A compiled step is the captured one to rounding, on the same noise, and follows state and faults as it does."""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from stateful import anneal, stateful
from stepping import Adam, gradient, run, state

from dlvm.inference import IWAE, SVI, NonFinite

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))
    yield
    del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    if before is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def close(a, b, tolerance):
    """Every tensor of two states, relative to its size; integers and the random state exactly."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        if not value.is_floating_point():
            assert torch.equal(value, b[name]), name
        else:
            assert torch.allclose(value, b[name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize(("objective", "tolerance"), [(Trace_ELBO, 1e-6), (partial(IWAE, 3), 1e-5)])
def test_a_compiled_gradient_is_the_captured_one_to_rounding(objective, tolerance):
    captured, compiled = (
        gradient(partial(pair, "ppca"), objective, engine, steps=3) for engine in ("captured", "compiled")
    )
    assert 0 < captured.norm() < float("inf")
    assert (captured - compiled).norm() < tolerance * captured.norm()


def test_an_annealed_buffer_moved_state_and_dropout_are_those_of_the_eager_step():
    eager, compiled = (run(stateful, Trace_ELBO, engine, 8, anneal) for engine in ("eager", "compiled"))
    assert compiled.running == "compiled"
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-4)
    close(eager.state, compiled.state, 1e-3)


def test_a_draw_that_nobody_uses_is_made_all_the_same():
    eager, compiled = (
        run(partial(pair, "minibatch", "auto_diagonal"), Trace_ELBO, engine, 4) for engine in ("eager", "compiled")
    )
    assert compiled.running == "compiled"
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-4)
    assert torch.equal(compiled.state["random"], eager.state["random"])


def test_guards_trip_and_faults_name_their_place():
    model, guide, (x,) = pair()
    svi = SVI(model, guide, Adam, Trace_ELBO(), engine="compiled")
    for _ in range(3):
        svi.step(x)
    assert svi.running == "compiled"
    before = state(svi)
    grey, broken = x.clone(), x.clone()
    grey[0, 0], broken[0, 0] = 0.5, float("nan")
    with pytest.raises(ValueError, match="support"):
        svi.step(grey)
    with pytest.raises(NonFinite, match=r"argument 0 of the batch \(data\)"):
        svi.step(broken)
    after = state(svi)
    assert [name for name in before if name != "random" and not torch.equal(before[name], after[name])] == []
    svi.step(x)
    assert svi.running == "compiled"


def test_an_audit_of_a_compiled_step_finds_nothing_where_nothing_changed(audited):
    audited(3)
    left = run(partial(pair, "ppca"), Trace_ELBO, "compiled", 10)
    assert left.running == "compiled"
    assert left.losses == pytest.approx(run(partial(pair, "ppca"), Trace_ELBO, "eager", 10).losses, rel=1e-4)


def test_auto_compiles_what_repays(monkeypatch):
    monkeypatch.setattr("dlvm.inference.engine.policy.seconds_to_compile", lambda *_: 0.0)
    auto, eager = (run(partial(pair, "ppca"), Trace_ELBO, engine, 40) for engine in ("auto", "eager"))
    assert (auto.running, eager.running) == ("compiled", "eager")
    assert auto.losses == pytest.approx(eager.losses, rel=1e-3)
    assert torch.equal(auto.state["random"], eager.state["random"])
