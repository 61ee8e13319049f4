"""A hundred captured steps end where stock Pyro's end, to the last bit of single precision."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from special import decaying, enumerated_in_guide
from stepping import Adam

from dlvm.inference import IWAE, SVI

LR = 1e-2
PAIRS = {
    "vae, elbo": (pair, Trace_ELBO),
    "vae, mean field": (pair, TraceMeanField_ELBO),
    "ppca, full rank": (partial(pair, "ppca", "full_rank"), Trace_ELBO),
    "hierarchy, flow, three particles": (
        partial(pair, "hierarchy", "iaf"),
        partial(Trace_ELBO, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    ),
    "vae, iwae": (pair, partial(IWAE, 3)),
    "decaying baseline": (decaying, TraceGraph_ELBO),
    "enumerated": (enumerated_in_guide, partial(TraceEnum_ELBO, max_plate_nesting=1)),
}


QUICK = ("vae, elbo", "vae, mean field")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PAIRS])
def test_100_captured_steps_are_those_of_stock_pyro(name):
    make, objective = PAIRS[name]
    ends, losses = [], []
    for ours in (True, False):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        model, guide, args = make()
        svi = (
            SVI(model, guide, Adam, objective(), engine="captured")
            if ours
            else pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": LR, "foreach": False}), objective())
        )
        pyro.set_rng_seed(5)
        losses.append([svi.step(*args) for _ in range(100)])
        ends.append([p.detach().clone() for program in (model, guide) for p in program.parameters()])
        if ours:
            assert svi.running == "captured"
    assert len(ends[0]) == len(ends[1]) > 0
    assert [torch.equal(a, b) for a, b in zip(*ends, strict=True)] == [True] * len(ends[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-6)
    assert sum(losses[0][-30:]) < sum(losses[0][:30])
