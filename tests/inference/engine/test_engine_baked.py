"""What a graph cannot follow is found: a replay is right, or an error says what to do."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from pyro.infer import Trace_ELBO
from reading import reading
from stepping import Adam, run, same_by_both_engines, slow_but

from dlvm.inference import SVI, Baked, Refused

REMEDY = r"0-d buffer of the module and change it by\s+fill_, or pass engine='eager'"
shift = 0.0


def python_values():
    """Ways to hold a number where no engine looks, and how to change it."""
    held, listed, space = {"b": 0.0}, [0.0], SimpleNamespace(b=0.0)
    tensors = {"b": torch.tensor(0.0)}
    return {
        "global": (lambda m, x, z: shift, lambda v: globals().update(shift=v)),
        "dictionary": (lambda m, x, z: held["b"], lambda v: held.update(b=v)),
        "list": (lambda m, x, z: listed[0], lambda v: listed.__setitem__(0, v)),
        "attribute of an object": (lambda m, x, z: space.b, lambda v: setattr(space, "b", v)),
        "tensor replaced": (lambda m, x, z: tensors["b"], lambda v: tensors.update(b=torch.tensor(v))),
        "tensor made of a number": (lambda m, x, z: torch.tensor(held["b"]), lambda v: held.update(b=v)),
    }


@pytest.mark.parametrize("way", slow_but("global, tensor replaced", python_values()))
def test_an_audit_finds_a_number_that_was_baked(way, audited):
    audited(5)
    read, change = python_values()[way]
    change(0.0)
    seen = []

    def between(step, svi):
        seen.append(step)
        if step == 4:
            change(0.5)

    with pytest.raises(Baked, match=REMEDY) as raised:
        run(reading(read), Trace_ELBO, "captured", 20, between)
    assert 4 <= seen[-1] <= 9 and str(raised.value).startswith(f"step {seen[-1]}: ")
    change(0.0)


def holding():
    """A captured SVI, its arguments, and a list whose one number the model reads."""
    held = [0.0]
    model, guide, args = reading(lambda m, x, z: held[0])()
    return SVI(model, guide, Adam, Trace_ELBO(), engine="captured"), args, held


def test_a_baked_number_stops_the_run_before_parameters_move(audited):
    audited(5)
    svi, args, held = holding()
    for _ in range(3):
        svi.step(*args)
    held[0] = 1.0
    with pytest.raises(Baked):
        for _ in range(6):
            before = [p.clone() for p in svi.model.parameters()]
            svi.step(*args)
    assert all(torch.equal(a, b) for a, b in zip(before, svi.model.parameters(), strict=True))


@pytest.mark.parametrize("used", [True, False])
def test_a_parameter_that_comes_into_use_or_falls_out_of_it_is_found(used, audited):
    audited(5)
    held = [not used]
    model, guide, args = reading(lambda m, x, z: m.extra if held[0] else 0.0)()
    model.extra = torch.nn.Parameter(torch.zeros(4))
    svi = SVI(model, guide, partial(torch.optim.SGD, lr=0.0), Trace_ELBO(), engine="captured")
    for _ in range(3):
        svi.step(*args)
    held[0] = used
    with pytest.raises(Baked, match=REMEDY):
        for _ in range(9):
            svi.step(*args)


def test_evaluation_is_audited_as_well(audited):
    audited(5)
    svi, args, held = holding()
    for _ in range(4):
        svi.evaluate_loss(*args)
    held[0] = 1.0
    with pytest.raises(Baked, match=REMEDY):
        [svi.evaluate_loss(*args) for _ in range(9)]


GLOBAL = torch.zeros(4)


def test_a_tensor_from_elsewhere_changed_in_place_is_seen():
    def between(step, svi):
        GLOBAL.fill_(step / 10)

    same_by_both_engines(reading(lambda m, x, z: GLOBAL), Trace_ELBO, 6, between)


def test_a_tensor_from_elsewhere_that_the_model_moves_is_moved_once_a_step():
    def moved(m, x, z):
        return GLOBAL.mul_(0.9).add_(0.1 * x.mean(0)).clone()

    ends = []
    for engine in ("eager", "captured"):
        GLOBAL.zero_()
        try:
            ends.append((run(reading(moved), Trace_ELBO, engine, 6).losses, GLOBAL.clone()))
        except Refused:
            return  # to say that it cannot be captured is right, too
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-6) and torch.equal(ends[0][1], ends[1][1])
