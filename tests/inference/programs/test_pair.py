"""A pair: whose parameters its programs read, what it is made of, and what is remembered of it for which calls."""

from __future__ import annotations

from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

from dlvm.inference.programs.pair import Pair, draws_nothing, remembered
from dlvm.inference.programs.parameters import own
from dlvm.inference.training.snapshot import Snapshot

X = torch.zeros(3, 2)


class Linear(PyroModule):
    """A model with a parameter, which can count its calls and take a word."""

    def __init__(self):
        super().__init__("model")
        self.net, self.calls, self.deep = nn.Linear(2, 2), 0, False

    def forward(self, x):
        self.calls += 1
        with pyro.plate("data", len(x)), pyro.plate("rows", 2, dim=-2) if self.deep else nullcontext():
            return pyro.sample("x", dist.Normal(self.net(x), 1.0).to_event(1), obs=x)


def test_programs_of_a_pair_leave_the_global_store_alone_unless_taken_as_they_are():
    model = Linear()
    Pair(model).traces((X,), {})
    assert not list(pyro.get_param_store().keys())
    Pair.as_they_are(model, draws_nothing).traces((X,), {})
    assert set(pyro.get_param_store().keys()) == {"model.net$$$weight", "model.net$$$bias"}


@pytest.mark.parametrize("handler", [poutine.block, pyro.plate("particles", 2, dim=-3)], ids=["block", "plate"])
def test_what_is_owned_is_not_owned_twice_inside_a_handler_either(handler):
    owned = own(Linear())
    assert own(owned) is owned
    inside = handler(owned)
    assert own(inside) is inside
    assert own(inside) is not own(handler(Linear()))


def test_a_pair_inside_a_handler_has_the_same_modules_and_runs_in_it():
    model = Linear()
    pair = Pair(model).inside(poutine.block)
    assert pair.roots == {"model": model} and not pair.traces((X,), {})[1].nodes.keys() & {"x"}


def test_modules_are_those_of_both_and_what_functions_reach():
    net, model = nn.Linear(2, 2), Linear()

    def guide(x):
        return net(x)

    pair = Pair(model, guide)
    assert pair.roots == {"model": model} and pair.has_functions
    assert set(pair.modules) == {model, net} and pair.device == torch.device("cpu")
    model.eval()
    with pair.evaluating():
        assert not net.training and not model.net.training
    assert net.training and not model.training
    assert Pair(draws_nothing).device is None and not Pair(model, Linear()).has_functions


def test_what_is_found_out_is_known_to_every_pair_of_the_same_programs_for_calls_that_look_alike():
    model, guide = Linear(), lambda x: None
    seen = []

    @remembered
    def find(pair, args, kwargs):
        seen.append(len(args[0]))
        return len(seen)

    assert [find(Pair(model, guide), (X,), {}), find(Pair(model, guide), (X[:2],), {})] == [1, 1]
    assert find(Pair.as_they_are(model, guide), (X,), {}) == 1  # however they are run
    assert find(Pair(model, guide), (X[0],), {}) == 2  # another number of dimensions
    model.deep = True
    assert find(Pair(model, guide), (X,), {}) == 3
    assert find(Pair(model, lambda x: None), (X,), {}) == 4
    assert seen == [3, 2, 3, 3]


def test_nesting_is_found_by_one_run_of_each_kind_of_call():
    model = Linear()
    pair = Pair(model)
    assert [pair.nesting((X,), {}) for _ in range(3)] == [1] * 3 and model.calls == 1
    model.deep = True
    assert Pair(model).nesting((X,), {}) == 2 and model.calls == 2


@pytest.mark.parametrize("program", [Linear, 3, "model"])
def test_what_is_no_program_is_refused(program):
    for arguments in ((program,), (draws_nothing, program)):
        with pytest.raises(TypeError, match="model and guide must be Pyro programs, got"):
            Pair(*arguments)


def test_a_snapshot_puts_back_modules_and_what_functions_declare():
    model = Linear()

    def guide(x):
        return pyro.param("loc", torch.zeros(2))

    guide(X)
    snapshot = Snapshot(Pair(model, guide))
    kept = model.net.weight.detach().clone()
    with torch.no_grad():
        model.net.weight.add_(1.0)
        pyro.param("loc").add_(1.0)
    snapshot.put_back()
    assert torch.equal(model.net.weight, kept) and torch.equal(pyro.param("loc"), torch.zeros(2))
