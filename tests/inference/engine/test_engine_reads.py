"""Python that looks at tensors, or at a world that no graph can follow: right at every step, or refused."""

from __future__ import annotations

import random
import re

import numpy as np
import pyro
import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from reading import Shifted, reading
from stepping import run, slow_but

from dlvm.inference import Refused
from dlvm.inference.engine.engine import Engine

BRANCHES = {
    "if": lambda m, x, z: 0.5 if x.mean() > 0.2 else -0.5,
    "if on a latent": lambda m, x, z: 0.5 if z.sum() > 3 else 0.0,
    "float": lambda m, x, z: float(x.mean()),
    "int": lambda m, x, z: int(10 * x.mean()) / 10,
    "item": lambda m, x, z: x.mean().item(),
    "tolist": lambda m, x, z: sum(x.mean(0).tolist()),
    "max of two": lambda m, x, z: max(x.mean(), x.new_zeros(())),
    "while": lambda m, x, z: next(i for i in range(9) if x.abs().sum() < 10 * i) / 10,
    "index": lambda m, x, z: m.net.bias[int(x.argmax()) % 4],
    "equality": lambda m, x, z: 0.5 * (x[0, 0] == x[0, 0].round()).item() if torch.equal(x, x.abs()) else 0.1,
}


@pytest.mark.parametrize("engine", ["auto", pytest.param("captured", marks=pytest.mark.slow)])
@pytest.mark.parametrize("branch", slow_but("if, if on a latent, float, tolist, index", BRANCHES))
def test_python_that_looks_at_data_is_right_at_every_step(branch, engine):
    """Data that come again, change a little, change sign, and go back."""
    pyro.set_rng_seed(0)
    base = torch.randn(6, 4)
    batches = [base, base, base, base + 1, base.abs(), -base, base, base]
    between = lambda step, svi: (batches[step - 1],)  # noqa: E731
    eager = run(reading(BRANCHES[branch]), Trace_ELBO, "eager", 8, between)
    try:
        found = run(reading(BRANCHES[branch]), Trace_ELBO, engine, 8, between)
    except Refused:
        assert engine == "captured"
        return
    assert found.losses == pytest.approx(eager.losses, rel=1e-5)


def counting(m, x, z):
    m.count += 1
    return m.count / 100


GENERATOR = torch.Generator().manual_seed(1)
UNFOLLOWED = {
    "numpy": lambda m, x, z: float(np.random.rand()),
    "random": lambda m, x, z: random.random(),
    "counter": counting,
    "own generator": lambda m, x, z: torch.rand(4, generator=GENERATOR),
}


@pytest.mark.parametrize("way", UNFOLLOWED)
def test_what_differs_at_every_run_is_not_captured(way):
    with pytest.raises(Refused, match="^the step cannot be captured: .*; use engine='auto' or 'eager'"):
        run(reading(UNFOLLOWED[way]), Trace_ELBO, "captured")


@pytest.mark.parametrize("way", ["numpy", "counter"])
def test_what_differs_at_every_run_goes_on_eagerly(way, caplog):
    caplog.set_level("INFO", "dlvm")
    eager, auto = (run(reading(UNFOLLOWED[way]), Trace_ELBO, engine, 8) for engine in ("eager", "auto"))
    assert auto.losses == eager.losses and auto.running == "eager"
    (line,) = (record.getMessage() for record in caplog.records if record.name == "dlvm")
    assert re.match("engine: eager, since the step cannot be captured: .+", line) and "\n" not in line


UNRECORDED = {
    "nonzero": lambda m, x, z: (x > 0).nonzero().float().mean(),
    "masked by data": lambda m, x, z: x[x > 0].sum() / 10 + z.detach()[z[:, 0] > 0].mean().nan_to_num(),
    "numpy of data": lambda m, x, z: torch.from_numpy(x.numpy().mean(0)),
    "numpy of a latent": lambda m, x, z: float(np.tanh(z.detach().numpy()).mean()),
    "numpy of a parameter": lambda m, x, z: float(m.net.bias.detach().numpy().mean()),
    "tolist of data": lambda m, x, z: sum(x.mean(0).tolist()),
    "number of different values": lambda m, x, z: len(x.round().unique()) / 10,
    "number of positive values": lambda m, x, z: x[x > 0].shape[0] / 10,
    "tensor of a list of tensors": lambda m, x, z: torch.tensor([x[0, 0], x[1, 1], x[2, 2], x[3, 3]]),
    "new tensor of data": lambda m, x, z: torch.tensor(x.mean(0).tolist()),
}


@pytest.mark.parametrize("engine", ["captured", pytest.param("auto", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", slow_but("numpy of a parameter, tolist of data, number of positive values", UNRECORDED))
def test_what_lies_outside_the_graph_is_refused_or_right(way, engine):
    batches = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(0))
    make, between = reading(UNRECORDED[way]), lambda step, svi: (batches[step - 1],)
    eager = run(make, Trace_ELBO, "eager", 4, between)
    try:
        found = run(make, Trace_ELBO, engine, 4, between)
    except Refused as error:
        assert engine == "captured" and str(error).startswith("the step cannot be captured: ")
        return
    assert found.losses == pytest.approx(eager.losses, rel=1e-6)


def test_a_refusal_is_one_line():
    with pytest.raises(Refused) as raised:
        run(reading(UNRECORDED["tolist of data"]), Trace_ELBO, "captured")
    assert "tolist" in str(raised.value) and "\n" not in str(raised.value)


def test_a_program_that_changes_its_argument_in_place_changes_it_once_a_step():
    def shrunk(m, x, z):
        return 0.0 * x.mul_(0.9)

    def make():
        return Shifted(shrunk), pair("positive", "hand_written")[1], (torch.ones(6, 4),)

    ends = []
    for engine in ("eager", "auto"):
        x = torch.full((6, 4), 2.0)
        ends.append((run(make, Trace_ELBO, engine, 6, lambda step, svi, x=x: (x,)).losses, x))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-6) and torch.equal(ends[0][1], ends[1][1])
    with pytest.raises(Refused, match="changes its arguments in place"):
        run(make, Trace_ELBO, "captured", 6)


def test_an_argument_that_holds_nan_is_not_taken_for_a_changed_one():
    engine = Engine(lambda u: ([], [2 * u]), [], "captured", finite=False)
    for _ in range(3):
        (doubled,) = engine(torch.tensor([1.0, float("nan")]))[1]
    assert engine.running == "captured" and doubled[0] == 2 and doubled[1].isnan()
