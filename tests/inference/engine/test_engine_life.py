"""What an engine costs and leaves: notices, the compiler it may lack, the garbage collector, memory."""

from __future__ import annotations

import gc
import re
import weakref
from functools import partial

import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from stepping import Adam, run

from dlvm.inference import SVI, NoCompiler
from dlvm.inference.engine import capture
from dlvm.inference.engine.engine import Engine


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setattr("dlvm.inference.engine.policy.seconds_to_compile", lambda *_: 0.0)
    with config.patch({"cpp.cxx": ("/nowhere/g++",)}):
        yield


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "dlvm"]


@pytest.mark.slow
def test_without_a_compiler_auto_goes_on_captured(no_compiler, caplog):
    caplog.set_level("INFO", "dlvm")
    eager, auto = (run(pair, Trace_ELBO, engine, 24) for engine in ("eager", "auto"))
    assert auto.running == "captured" and auto.losses == pytest.approx(eager.losses, rel=1e-5)
    assert torch.equal(auto.state["random"], eager.state["random"])
    *_, line = said(caplog)
    assert re.match("engine: captured, since .*cannot be compiled.*g\\+\\+", line)


@pytest.mark.slow
def test_without_a_compiler_compiled_says_so(no_compiler):
    with pytest.raises(NoCompiler, match="(?i)compiler|g\\+\\+"):
        run(pair, Trace_ELBO, "compiled")


def test_too_few_steps_to_repay_a_capture_run_eagerly():
    for planned, expected in ((50, "eager"), (500, "captured")):
        model, guide, args = pair()
        svi = SVI(model, guide, Adam, Trace_ELBO(), steps=planned)
        for _ in range(4):
            svi.step(*args)
        assert svi.running == expected


def test_steps_that_do_not_repay_a_compilation_stay_captured(caplog, monkeypatch):
    caplog.set_level("INFO", "dlvm")
    monkeypatch.setattr("dlvm.inference.engine.policy.seconds_to_compile", lambda *_: 1e3)
    model, guide, args = pair()
    svi = SVI(model, guide, Adam, Trace_ELBO(), steps=500)
    for _ in range(60):
        svi.step(*args)
    (line,) = said(caplog)
    assert re.match(r"engine: captured.*; compiling .*\d+ steps.*, \d+ are", line)


@pytest.fixture
def holding(collector, monkeypatch):
    """Captures hold the heap as in use, and no earlier test's engine does; how many objects pytest has frozen."""
    monkeypatch.setattr("dlvm.inference.engine.engine.hold", capture.hold)
    gc.collect()
    capture._owners.clear()
    gc.freeze()
    yield gc.get_freeze_count()
    gc.freeze()


def held_references(engine):
    model, guide, args = pair("positive")
    svi = SVI(model, guide, Adam, Trace_ELBO(), engine=engine)
    for _ in range(3):
        svi.step(*args)
    svi.evaluate_loss(*args), svi.evaluate_loss(*args)
    return [weakref.ref(part) for part in (svi, model, guide)]


@pytest.mark.slow
def test_a_dropped_engine_puts_the_heap_back(holding):
    references = held_references("captured")
    gc.collect()
    assert gc.get_freeze_count() == 0
    assert [reference() for reference in references] == [None] * 3


def test_a_dropped_eager_engine_leaves_nothing(holding):
    references = held_references("eager")
    gc.collect()
    assert [reference() for reference in references] == [None] * 3 and gc.get_freeze_count() <= holding


def test_the_heap_is_held_until_the_last_engine_is_gone(holding):
    def owner():
        engine = Engine(lambda x: ([x.sum()], []), ())
        engine(torch.ones(3)), engine(torch.ones(3))
        return engine

    first, second = owner(), owner()
    assert first.running == second.running == "captured" and gc.get_freeze_count() > holding
    del first
    assert gc.get_freeze_count() > holding
    del second
    assert gc.get_freeze_count() == 0


def test_replays_leave_no_memory_behind():
    model, guide, args = pair("positive")
    svi = SVI(model, guide, Adam, Trace_ELBO(), engine="captured")
    for _ in range(5):
        svi.step(*args)
    gc.collect()
    before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    for _ in range(50):
        svi.step(*args)
    assert abs(sum(isinstance(o, torch.Tensor) for o in gc.get_objects()) - before) < 10


def test_a_step_that_is_captured_runs_neither_program():
    calls = []
    model, guide, args = pair("positive")
    model.net.register_forward_hook(lambda *_: calls.append("model"))
    svi = SVI(model, guide, Adam, Trace_ELBO(), engine="captured")
    svi.step(*args), svi.step(*args)
    made = len(calls)
    for _ in range(10):
        svi.step(*args)
    assert len(calls) == made > 2


def test_a_shared_function_of_numbers_and_tensors():
    """The engine by itself: any function of tensors, keyword arguments and None among its results."""
    weight = torch.nn.Linear(3, 2)

    def function(x, *, twice=False):
        y = weight(x)
        return [y.sum(), 2.0], [y.detach() * (2 if twice else 1), None]

    engine, x = Engine(function, (weight,), "captured"), torch.randn(4, 3)
    for twice in (False, False, True, True, False):
        x = x + 1
        with torch.no_grad():
            (total, two), (y, nothing) = engine(x, twice=twice)
            assert torch.equal(y, weight(x) * (2 if twice else 1))
            assert float(total) == pytest.approx(weight(x).sum().item(), rel=1e-6)
        assert two == 2 and nothing is None


def test_training_by_sgd_in_place_is_seen():
    """The optimizer may be any: each moves the tensors that the graph reads."""
    for optimizer in (torch.optim.SGD, partial(torch.optim.Adam, fused=True)):
        eager, captured = (
            run(pair, Trace_ELBO, engine, optimizer=partial(optimizer, lr=1e-2)) for engine in ("eager", "captured")
        )
        assert captured.losses == pytest.approx(eager.losses, rel=1e-6)
