"""What changes between steps or in them is seen by a captured step as by the eager one, to the last bit."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from special import decaying
from stateful import anneal, normalised, stateful
from stepping import differing, run, same_by_both_engines, slow_but
from torch import nn

from dlvm.inference import Renyi


def schedule(step, svi):
    if step > 1:
        svi.optimizer.param_groups[0]["lr"] = 0.1 / step


def at_step_3(change):
    def between(step, svi):
        if step == 3:
            change(svi)

    return between


def new_linear(svi):
    svi.model.net = nn.Linear(2, 4)


def new_buffer(svi):
    svi.model.beta = torch.tensor(0.3)


def new_parameter(svi):
    svi.model.net.weight = nn.Parameter(torch.ones(4, 2))


def new_data(svi):
    svi.model.net.weight.data = torch.full((4, 2), 0.5)


def load(svi):
    svi.model.load_state_dict({k: torch.full_like(v, 2) for k, v in svi.model.state_dict().items()})


def load_by_assignment(svi):
    held = {k: torch.full_like(v, 0.5) for k, v in svi.model.state_dict().items()}
    svi.model.load_state_dict(held, assign=True)


CHANGES = {
    "annealed buffer": anneal,
    "learning rate": schedule,
    "evaluation mode": at_step_3(lambda svi: svi.model.eval()),
    "one part in evaluation mode": at_step_3(lambda svi: svi.model.drop.eval()),
    "frozen": at_step_3(lambda svi: svi.model.net.requires_grad_(False)),
    "frozen guide": at_step_3(lambda svi: svi.guide.requires_grad_(False)),
    "state dict": at_step_3(load),
    "state dict by assignment": at_step_3(load_by_assignment),
    "new data": at_step_3(new_data),
    "new submodule": at_step_3(new_linear),
    "new buffer": at_step_3(new_buffer),
    "new parameter": at_step_3(new_parameter),
    "Python number": at_step_3(lambda svi: setattr(svi.guide, "scale", 0.1)),
    "dropout rate": at_step_3(lambda svi: setattr(svi.model.drop, "p", 0.9)),
    "validation off": at_step_3(lambda svi: pyro.enable_validation(False)),
    "default dtype": at_step_3(lambda svi: torch.set_default_dtype(torch.float64)),
    "optimizer state": at_step_3(lambda svi: svi.optimizer.load_state_dict(svi.optimizer.state_dict())),
    "seed": at_step_3(lambda svi: pyro.set_rng_seed(1)),
}


@pytest.fixture(autouse=True)
def settings_as_before():
    with pyro.validation_enabled(True):
        yield


QUICK = "annealed buffer, learning rate, evaluation mode, frozen, new submodule, new parameter, Python number"


@pytest.mark.parametrize("change", slow_but(QUICK, CHANGES))
def test_a_change_between_steps_counts_from_the_next_step_on(change):
    eager, _ = same_by_both_engines(stateful, Trace_ELBO, steps=5, between=CHANGES[change])
    if change not in ("validation off", "default dtype", "optimizer state"):
        assert differing(eager.state, run(stateful, Trace_ELBO, "eager", 5).state), "the change must change something"


REBOUND = {
    "another shape": lambda svi: setattr(svi.model, "mean", torch.ones(1, 4)),
    "another type": lambda svi: setattr(svi.model, "mean", torch.ones(4, dtype=torch.float64)),
    "the same tensor in place": lambda svi: svi.model.mean.fill_(3.0),
    "a new tensor": lambda svi: setattr(svi.model, "mean", torch.full((4,), 3.0)),
}


@pytest.mark.parametrize("change", slow_but("another shape, a new tensor", REBOUND))
def test_a_place_that_the_program_fills_may_be_filled_by_others_in_between(change):
    between = at_step_3(REBOUND[change])
    eager, captured = (run(stateful, Trace_ELBO, engine, 7, between) for engine in ("eager", "captured"))
    assert differing(eager.state, captured.state) == []


NORM = {
    "nothing": at_step_3(lambda svi: None),
    "evaluation mode": at_step_3(lambda svi: svi.model.norm.eval()),
    "statistics reset": at_step_3(lambda svi: svi.model.norm.reset_running_stats()),
}


@pytest.mark.parametrize("change", slow_but("evaluation mode, statistics reset", NORM))
def test_batch_statistics_move_as_in_the_eager_step(change):
    same_by_both_engines(normalised, Trace_ELBO, 7, NORM[change])


def test_a_cumulative_average_which_python_counts_is_right_if_not_captured():
    """BatchNorm without momentum reads the number of batches as a Python float, another one at every step."""
    between = at_step_3(lambda svi: setattr(svi.model.norm, "momentum", None))
    eager, captured = (run(normalised, Trace_ELBO, engine, 8, between) for engine in ("eager", "captured"))
    assert differing(eager.state, captured.state) == []


@pytest.mark.parametrize("engine", ["eager", "captured"])
def test_a_step_moves_the_state_of_its_modules_once(engine):
    left = run(normalised, Trace_ELBO, engine, 7).state
    assert left["model.norm.num_batches_tracked"] == 7
    pyro.set_rng_seed(3)
    (x,), mean = normalised()[2], torch.zeros(4)
    for _ in range(8):  # once more by the run in evaluation mode that finds the parameters
        mean = 0.9 * mean + 0.1 * x.mean(0)
    assert torch.allclose(left["model.mean"], mean)
    eager = run(normalised, Trace_ELBO, "eager", 7).state
    assert torch.equal(left["model.norm.running_mean"], eager["model.norm.running_mean"])


@pytest.mark.slow
def test_the_average_of_a_baseline_goes_on_between_steps():
    three, eight = (same_by_both_engines(decaying, TraceGraph_ELBO, n)[1].state for n in (3, 8))
    averages = [name for name in three if "baseline" in name]
    assert averages and all((three[name] != eight[name]).any() for name in averages)


@pytest.mark.slow
def test_a_number_of_the_objective_counts_from_the_next_step_on():
    between = at_step_3(lambda svi: setattr(svi.objective, "num_particles", 5))
    same_by_both_engines(pair, partial(Renyi, 0.5, 3), steps=6, between=between)
