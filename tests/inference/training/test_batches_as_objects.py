"""A dictionary or an object as the only argument: taken whole, and where data are cut, refused with the remedy."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from dlvm.inference import ELBO, IWAE, SVI, check, evaluate, fit, log_weights

X, SHIFT = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12.0)[:, None] / 12


def programs(parts):
    """x ~ N(W z + shift, I) with its posterior; ``parts`` takes the tensors out of a batch."""
    torch.manual_seed(0)
    dec = nn.Linear(1, 3, bias=False)
    w = dec.weight.detach()[:, 0]
    shift_of_loc = nn.Parameter(torch.zeros(1))

    def model(batch):
        x, shift = parts(batch)
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z) + shift, 1.0).to_event(1), obs=x)

    def guide(batch):
        x, shift = parts(batch)
        with pyro.plate("data", len(x)):
            loc = ((x - shift) @ w / (1 + w @ w))[:, None] + pyro.param("shift", shift_of_loc)
            pyro.sample("z", dist.Normal(loc, (1 + w @ w).rsqrt()).to_event(1))

    log_px = dist.MultivariateNormal(torch.zeros(3), torch.outer(w, w) + torch.eye(3)).log_prob(X - SHIFT)
    return model, guide, log_px


OBJECTS = {
    "dict": (lambda b: (b["x"], b["shift"]), lambda x, shift: {"x": x, "shift": shift}),
    "object": (lambda b: (b.x, b.shift), lambda x, shift: SimpleNamespace(x=x, shift=shift)),
    "tuple": (lambda b: b, lambda x, shift: (x, shift)),
}


@pytest.mark.parametrize("parts, made", OBJECTS.values(), ids=OBJECTS)
def test_an_object_with_tensors_is_one_argument(parts, made):
    """The posterior as guide gives log p(x) at every particle."""
    model, guide, log_px = programs(parts)
    batch = made(X, SHIFT)
    for objective in (IWAE(3), Trace_ELBO()):
        check(model, guide, objective, batch)
        svi = SVI(model, guide, partial(torch.optim.SGD, lr=1e-9), objective)
        for loss in (svi.step(batch), svi.step(batch), svi.evaluate_loss(batch)):
            assert loss == pytest.approx(-log_px.sum().item(), rel=1e-4)
    assert torch.allclose(log_weights(model, guide, batch, num_particles=3), log_px, atol=1e-4)


def test_recorded_steps_see_new_tensors_in_the_same_dictionary():
    losses = []
    for engine in ("eager", "captured"):
        model, guide, _ = programs(OBJECTS["dict"][0])
        pyro.clear_param_store()
        svi, batch = SVI(model, guide, partial(torch.optim.SGD, lr=1e-9), ELBO(), engine=engine), {"shift": SHIFT}
        for i in range(4):
            batch["x"] = (i + 1) * X
            losses.append(svi.step(batch))
        assert svi.running == engine
    assert losses[:4] == pytest.approx(losses[4:], rel=1e-4)


def test_what_cuts_data_says_how_to_pass_them():
    model, guide, log_px = programs(OBJECTS["dict"][0])
    for batch in ({"x": X, "shift": SHIFT}, ({"x": X, "shift": SHIFT},)):
        with pytest.raises(TypeError, match=r"lambda x, shift: model\(\{'x': x, 'shift': shift\}\)"):
            evaluate(model, guide, [batch])
        with pytest.raises(TypeError, match=r"\(x, shift,\), to lambda x, shift"):
            next(fit(model, guide, ELBO(), [batch], epochs=1))
    as_said = [lambda x, shift, program=program: program({"x": x, "shift": shift}) for program in (model, guide)]
    found = evaluate(*as_said, [(X, SHIFT)], num_particles=10)
    assert found.log_px == pytest.approx(log_px.mean().item(), rel=1e-4)
    (epoch,) = fit(*as_said, IWAE(3), [(X, SHIFT)], epochs=1)
    assert epoch.train == pytest.approx(log_px.mean().item(), rel=1e-3)
