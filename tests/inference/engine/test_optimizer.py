"""The quick step of an optimizer is its step, bit for bit, whatever is done to it in between."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch

from dlvm.inference.engine.optimizer import QuickStep

OPTIMIZERS = {
    "adam": partial(torch.optim.Adam, lr=0.01, fused=True),
    "adam with decay": partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=0.01, fused=True),
    "amsgrad": partial(torch.optim.Adam, lr=0.01, amsgrad=True, fused=True),
    "not fused": partial(torch.optim.Adam, lr=0.01, foreach=False, fused=False),
    "tensor lr": partial(torch.optim.Adam, lr=torch.tensor(0.01), fused=True),
    "sgd": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
}


def nothing(optimizer):
    pass


def another_rate(optimizer):
    optimizer.param_groups[0]["lr"] = 0.1


def loaded(optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def reset(optimizer):
    optimizer.state.clear()


def another_group(optimizer):
    extra = torch.nn.Parameter(torch.ones(2))
    extra.grad = torch.ones(2)
    optimizer.add_param_group({"params": [extra], "lr": 0.3})


def hooked(optimizer):
    optimizer.register_step_pre_hook(lambda opt, *_: opt.param_groups[0].update(lr=0.2))


def upwards(optimizer):
    optimizer.param_groups[0]["maximize"] = True


CHANGES = [nothing, another_rate, loaded, reset, another_group, hooked, upwards]


def trained(make, change, stepper, steps=6):
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (4,), (1,))]
    optimizer = make(parameters)
    step = stepper(optimizer)
    for number in range(steps):
        if number == 3:
            change(optimizer)
        for position, p in enumerate(parameters):
            absent = position == 1 and number == 4
            p.grad = None if absent else torch.randn(p.shape, generator=generator)
        step()
    return [p.detach() for group in optimizer.param_groups for p in group["params"]], optimizer.state_dict()["state"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_quick_steps_end_where_usual_ones_do(name, change):
    usual, state = trained(OPTIMIZERS[name], change, lambda optimizer: optimizer.step)
    quick, as_state = trained(OPTIMIZERS[name], change, QuickStep)
    assert all(map(torch.equal, usual, quick))
    for position, entries in state.items():
        for word, value in entries.items():
            assert value is as_state[position][word] is None or torch.equal(value, as_state[position][word])


def test_the_kernel_alone_is_called_for_a_plain_fused_adam(monkeypatch):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], fused=True)
    calls = []
    monkeypatch.setattr(optimizer, "step", lambda usual=optimizer.step: calls.append(1) or usual())
    step = QuickStep(optimizer)
    for _ in range(4):
        parameter.grad = torch.ones(3)
        step()
    assert calls == [1] and optimizer.state[parameter]["step"] == 4


def test_a_schedule_made_later_finds_its_optimizer_stepped():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], fused=True)
    step = QuickStep(optimizer)
    for number in range(4):
        if number == 2:
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        parameter.grad = torch.ones(3)
        step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)
