"""Arguments of any form, settings around the step, several engines at once: the captured step is the eager one."""

from __future__ import annotations

from contextlib import contextmanager

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from stepping import Adam, differing, same_by_both_engines, slow_but, state
from two import X, Y, two

from dlvm.inference import SVI, Refused
from dlvm.inference.engine.keys import keyed


class Calls:
    """An SVI's steps, with the arguments in turn."""

    def __init__(self, *calls):
        self.calls = calls

    def outcome(self, engine, objective=Trace_ELBO, **settings):
        pyro.set_rng_seed(3)
        model, guide, _ = two()
        svi = SVI(model, guide, Adam, objective(), engine=engine, **settings)
        losses = [svi.step(*args, **kwargs) for args, kwargs in self.calls]
        return losses, state(svi)


def call(*args, **kwargs):
    return args, kwargs


class Several:
    """An object of the user's own, in which numbers stand."""

    def __init__(self, value):
        self.value = value

    def __iter__(self):
        yield self.value


ONE, TWO = Several(1.0), Several(2.0)
ARGUMENTS = {
    "objects": [call(X, more=m) for m in (ONE, ONE, ONE, TWO, ONE, Several(1.0), TWO, TWO)],
    "keywords": [call(X), call(x=X), call(X, y=Y), call(X, Y), call(y=Y, x=X), call(x=X, y=Y)],
    "none and not": [call(X, None), call(X, Y), call(X), call(X, Y), call(X, None), call(Y, X)],
    "one tensor twice": [call(X, X), call(X, X), call(X, X), call(X, Y), call(Y, X), call(Y, Y)],
    "numbers": [call(X, factor=f) for f in (1.0, 1.0, 2.0, 1.0, 2, 2.0, 0.0, -0.0, True)],
    "flags": [call(X, flag=f) for f in (False, False, True, False, 0, 1, True)],
    "lists": [call(X, more=m) for m in ([], [Y], [Y], [X], [X, Y], (X, Y), [1.0, X], [2.0, X], [1.0, Y])],
    "strides": [call(x) for x in (X, X, X.T.contiguous().T, X.T.contiguous().T, Y, X.flip(0), X[:1].expand(6, 4), Y)],
    "dtypes": [call(X, more=[m]) for m in (Y, Y.double(), Y.double(), Y.int(), Y.int(), Y > 0, Y)],
}
OTHERS = {
    "sets": ([call(X, more=m) for m in ({1.0}, {1.0}, {2.0}, {2.0})], "argument 'more' holds a set"),
    "objects of tensors": ([call(X, more=m) for m in (Several(X), Several(Y))], "argument 'more' holds a Several"),
    "a tensor that wants a gradient": (
        [call(x) for x in (X, X, X.clone().requires_grad_(), Y)],
        "argument 0 wants a gradient",
    ),
}


@pytest.mark.parametrize("form", slow_but("none and not, one tensor twice, numbers, lists", ARGUMENTS))
def test_arguments_of_any_form(form):
    calls = Calls(*ARGUMENTS[form])
    (eager, left), (captured, as_left) = calls.outcome("eager"), calls.outcome("captured")
    assert eager == pytest.approx(captured, rel=1e-6) and differing(left, as_left) == []


@pytest.mark.parametrize("form", OTHERS)
def test_arguments_that_no_graph_takes(form):
    calls, said = Calls(*OTHERS[form][0]), OTHERS[form][1]
    (eager, left), (auto, as_left) = calls.outcome("eager"), calls.outcome("auto")
    assert eager == pytest.approx(auto, rel=1e-6) and differing(left, as_left) == []
    with pytest.raises(Refused, match=f"cannot be captured: {said}"):
        calls.outcome("captured")


def test_an_object_that_changes_is_another_argument():
    changing = Several(1.0)

    found = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(3)
        model, guide, _ = two()
        svi, losses = SVI(model, guide, Adam, Trace_ELBO(), engine=engine), []
        for step in range(9):
            changing.value = float(step // 3)
            losses.append(svi.step(X, more=changing))
        found.append(losses)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


WORLDS = {
    "default dtype": lambda: default_dtype(torch.float64),
    "validation": lambda: pyro.validation_enabled(False),
    "grad mode": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to another type": lambda: torch.autocast("cpu", dtype=torch.float16),
}


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


def test_calls_that_may_need_different_graphs_have_different_keys():
    keys = []
    with pyro.validation_enabled(True):
        for world in (torch.enable_grad, *WORLDS.values()):
            with world():
                keys.append(keyed((X,), {})[1])
        for args, kwargs in (
            call(X, None), call(X, X), call(x=X), call([X]), call((X,)), call(X, 1), call(X, 1.0), call(X, True),
            call(X, "1"), call(X[:2]), call(X.double()), call(X.int()), call(X.T), call(X.T.contiguous().T),
            call(X[:1].expand(6, 4)), call({"a": X}), call({"b": X}),
        ):  # fmt: skip
            keys.append(keyed(args, kwargs)[1])
    assert None not in keys and len(set(keys)) == len(keys)
    assert keyed((X,), {})[1] == keyed((Y,), {})[1]


def test_data_that_are_a_buffer_of_the_model_may_be_others_later():
    def between(step, svi):
        return (svi.model.kept, svi.guide.kept) if step < 4 else (X, Y)

    same_by_both_engines(two, Trace_ELBO, 6, between)


def test_data_changed_in_place_are_seen():
    def between(step, svi):
        return (x.mul_(1.5) if step > 1 else x.copy_(X),)

    x = X.clone()
    same_by_both_engines(two, Trace_ELBO, 6, between)
