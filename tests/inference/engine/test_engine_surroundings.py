"""What surrounds a step counts for that step alone: handlers, autocast, gradients off, other engines."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pairs import pair
from pyro import poutine
from pyro.infer import Trace_ELBO
from stepping import Adam, differing, run, slow_but, state
from two import X, Y, two

from dlvm.inference import IWAE, SVI

AROUND = {
    "scale": lambda: poutine.scale(scale=0.5),
    "condition": lambda: poutine.condition(data={"y": Y}),
    "mask": lambda: poutine.mask(mask=torch.tensor([True] * 3 + [False] * 3)),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "forked random state": lambda: torch.random.fork_rng(),
}


@pytest.mark.parametrize("capture_inside", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("around", slow_but("scale, autocast", AROUND))
def test_what_surrounds_a_step_counts_for_that_step_alone(around, capture_inside):
    outcomes = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(3)
        model, guide, _ = two()
        svi, losses = SVI(model, guide, Adam, Trace_ELBO(), engine=engine), []
        for inside in [capture_inside] * 3 + [not capture_inside] * 2 + [capture_inside]:
            with AROUND[around]() if inside else torch.enable_grad():
                losses.append(svi.step(X))
        outcomes.append((losses, state(svi)))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-6)
    assert differing(outcomes[0][1], outcomes[1][1]) == []


def test_gradients_switched_off_around_a_step_are_handled_alike():
    outcomes = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(3)
        model, guide, _ = two()
        svi, found = SVI(model, guide, Adam, Trace_ELBO(), engine=engine), []
        for step in range(6):
            with torch.set_grad_enabled(step != 4):
                try:
                    found.append(round(svi.step(X), 3))
                except Exception as error:
                    found.append(type(error).__name__)
        outcomes.append((found, state(svi)))
    assert outcomes[0][0] == outcomes[1][0] and differing(outcomes[0][1], outcomes[1][1]) == []


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Trace_ELBO, partial(IWAE, 3)])
def test_interleaved_engines_of_equal_names_are_each_as_alone(objective):
    alone = [run(partial(pair, name), objective, "eager", 6) for name in ("vae", "ppca")]
    made = []
    for name in ("vae", "ppca"):
        pyro.set_rng_seed(3)
        model, guide, args = pair(name)
        pyro.set_rng_seed(5)
        made.append([SVI(model, guide, Adam, objective(), engine="captured"), args, torch.get_rng_state()])
    for _ in range(6):
        for each in made:
            torch.set_rng_state(each[2])
            each[0].step(*each[1])
            each[2] = torch.get_rng_state()
    for (svi, _, random), expected in zip(made, alone, strict=True):
        assert differing(state(svi) | {"random": random}, expected.state) == [] and svi.running == "captured"


@pytest.mark.slow
def test_two_engines_on_one_pair_take_turns():
    """Both objectives step the same parameters, each with an optimizer of its own."""
    outcomes = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(3)
        model, guide, args = pair()
        pyro.set_rng_seed(5)
        first, second = (SVI(model, guide, Adam, o, engine=engine) for o in (Trace_ELBO(), IWAE(3)))
        for _ in range(5):
            first.step(*args), second.step(*args)
        outcomes.append(state(first))
    assert differing(*outcomes) == []
