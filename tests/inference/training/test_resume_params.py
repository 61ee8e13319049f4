"""Parameters that a module declares by ``pyro.param`` while it runs are written down and taken up like all others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from training_cases import X_DIM, bits

from dlvm.inference import IWAE, NonFinite, fit
from dlvm.inference.programs.modules import owner_of
from dlvm.inference.programs.parameters import declared
from dlvm.inference.training.checkpointer import Keeper


class Declaring(nn.Module):
    """p(x, z) with a location that is no attribute of the module."""

    def forward(self, x: Tensor) -> Tensor:
        loc = pyro.param("loc", torch.zeros(X_DIM))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            return pyro.sample("x", dist.Bernoulli(logits=loc + z.unsqueeze(-1)).to_event(1), obs=x)


class DeclaringGuide(nn.Module):
    """q(z | x) with a layer of its own beside a constrained scale and a shift that it declares."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(X_DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = pyro.param("scale", torch.ones(()), constraint=dist.constraints.positive)
        shift = pyro.param("shift", torch.zeros(()))
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(self.layer(x).squeeze(-1) + shift, scale))


class Loose(PyroModule):
    """The model as a PyroModule, which has no place of its own for what ``pyro.param`` declares."""

    forward = Declaring.forward


class Pairing(nn.Module):
    """The model as a method."""

    def generate(self, x: Tensor) -> Tensor:
        return Declaring.forward(self, x)


def function(x: Tensor) -> Tensor:
    return Declaring.forward(None, x)


class PowerCut(BaseException):
    """Nothing in the library knows of it."""


MODELS: dict[str, Callable] = {
    "a module": lambda: Declaring(),
    "a PyroModule": lambda: Loose("model"),
    "a method": lambda: Pairing().generate,
    "a function": lambda: function,
}


def train(model: str, folder: Path | None = None, **settings) -> dict:
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    programs = MODELS[model](), DeclaringGuide()
    words = {"checkpoint": folder, "every": 3} if folder else {}
    how = dict(epochs=4, seed=5, progress=False, engine="eager") | words | settings
    epochs = [*fit(*programs, IWAE(2), [(bits(),)] * 5, **how)]
    found = dict(programs[1].named_parameters()) | dict(pyro.get_param_store()._params)
    for program in programs:
        found |= {} if program is function else declared(owner_of(program))
    bytes_of = {name: value.detach().numpy().tobytes() for name, value in found.items()}
    return bytes_of | {"bounds": [(epoch.train, epoch.valid) for epoch in epochs]}


@pytest.mark.parametrize("engine", ["eager", pytest.param("captured", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_cut_goes_on_bit_for_bit(model, engine, tmp_path, monkeypatch):
    def after_step(self, run):
        original(self, run)
        if run.progress.steps == 7:
            raise PowerCut

    original, expected = Keeper.after_step, train(model, engine=engine)
    assert {"layer.weight", "loc", "scale", "shift"} < expected.keys() and any(expected["loc"])
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Keeper, "after_step", after_step)
        train(model, tmp_path, engine=engine)
    assert train(model, tmp_path, engine=engine) == expected


@pytest.mark.parametrize("model", MODELS)
def test_early_stopping_puts_the_best_of_them_back(model):
    how = dict(valid=[(bits(9),)], epochs=12, patience=1, optimizer=partial(torch.optim.Adam, lr=0.5))
    stopped = train(model, **how)
    values = [valid for _, valid in stopped["bounds"]]
    best = values.index(max(values))
    assert best < len(values) - 1
    shorter = train(model, **how | {"epochs": best + 1})
    assert {**stopped, "bounds": None} == {**shorter, "bounds": None}


def test_one_that_is_not_finite_is_named():
    guide, x = DeclaringGuide(), bits()
    with pytest.raises(NonFinite, match="parameter 'loc' of the model"):
        model = Declaring()
        for _ in fit(model, guide, IWAE(2), [(x,)], epochs=2, seed=0, progress=False, engine="eager"):
            declared(model)["loc"].data.fill_(float("inf"))
