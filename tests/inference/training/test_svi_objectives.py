"""Every kind of pyro.infer.ELBO trains as in pyro.infer.SVI, those without a loss of their own included."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer
from torch import nn

from dlvm.inference import SVI, check, fit
from dlvm.inference.engine.recording import Refused

LR = 2e-2
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
Adam = partial(torch.optim.Adam, lr=LR, foreach=False, fused=False)


def tail(particles=4):
    return infer.TraceTailAdaptive_ELBO(particles, vectorize_particles=True)


class GradientsAlone(infer.Trace_ELBO):
    """A user's own: a surrogate to differentiate, and no loss."""

    def loss(self, model, guide, *args, **kwargs):
        raise NotImplementedError

    def loss_and_grads(self, model, guide, *args, **kwargs):
        loss = super().differentiable_loss(model, guide, *args, **kwargs)
        (2 * loss).backward()
        return float("inf")


OBJECTIVES = {
    "tail-adaptive": tail,
    "gradients alone": GradientsAlone,
    "reweighted wake-sleep": partial(infer.ReweightedWakeSleep, 3, max_plate_nesting=1),
    "tensor Monte Carlo": partial(infer.TraceTMC_ELBO, max_plate_nesting=1),
    "jit": infer.JitTrace_ELBO,
    "jit, mean field": infer.JitTraceMeanField_ELBO,
}


def pair():
    pyro.clear_param_store()
    torch.manual_seed(0)
    decoder, encoder = nn.Linear(1, 3), nn.Linear(3, 2)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_sd = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return model, guide, nn.ModuleList([decoder, encoder])


def walked(svi):
    losses = []
    for seed in range(12):
        pyro.set_rng_seed(seed)
        losses.append(svi.step(X))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_are_those_of_stock_pyro(name, engine):
    model, guide, parts = pair()
    stock = walked(infer.SVI(model, guide, pyro.optim.Adam({"lr": LR, "foreach": False}), OBJECTIVES[name]()))
    expected = nn.utils.parameters_to_vector(parts.parameters())
    model, guide, parts = pair()
    ours = walked(SVI(model, guide, Adam, OBJECTIVES[name](), engine=engine))
    assert ours == stock
    assert torch.equal(nn.utils.parameters_to_vector(parts.parameters()), expected)


def test_an_objective_without_a_loss_is_captured():
    model, guide, _ = pair()
    svi = SVI(model, guide, Adam, tail(), engine="captured")
    assert walked(svi) == [math.inf] * 12
    assert svi.running == "captured"


def test_evaluate_loss_of_an_objective_without_one_is_that_of_the_elbo():
    model, guide, _ = pair()
    svi = SVI(model, guide, Adam, tail(500))
    svi.prepare(X)
    pyro.set_rng_seed(1)
    ours = svi.evaluate_loss(X)
    pyro.set_rng_seed(1)
    assert ours == infer.Trace_ELBO(500, 1, vectorize_particles=True).loss(model, guide, X)


def test_fit_reports_the_elbo_at_the_particles_of_the_steps():
    found = []
    for objective in (tail(), infer.Trace_ELBO(4, vectorize_particles=True)):
        model, guide, parts = pair()
        assert check(model, guide, objective, X) == {"z": "Monte Carlo"}
        settings = dict(valid=[(X,)], epochs=2, seed=0, progress=False, engine="eager", patience=2)
        epochs = list(fit(model, guide, objective, [(X,)], optimizer=Adam, **settings))
        found.append((epochs, nn.utils.parameters_to_vector(parts.parameters())))
    (ours, one), (elbo, other) = found
    assert ours[0].train == pytest.approx(elbo[0].train, rel=1e-6)
    assert all(math.isfinite(number) for epoch in ours for number in (epoch.train, epoch.valid, epoch.grad_norm))
    assert not torch.allclose(one, other, atol=1e-4)  # they are not trained alike


def test_programs_that_raise_not_implemented_keep_their_error():
    model, guide, _ = pair()

    def broken(x):
        raise NotImplementedError("later")

    with pytest.raises(NotImplementedError, match="later"):
        SVI(broken, guide, Adam, tail()).step(X)


def test_what_torch_jit_records_is_recorded_by_nobody_else():
    model, guide, _ = pair()
    with pytest.raises(Refused, match="pass TraceGraph_ELBO in its place, or engine='eager'"):
        SVI(model, guide, Adam, infer.JitTraceGraph_ELBO(), engine="captured")


def test_jit_objectives_that_cannot_find_parameters_are_refused_in_words():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    svi = SVI(model, infer.autoguide.AutoNormal(model), partial(torch.optim.Adam, lr=0.01), infer.JitTrace_ELBO())
    with pytest.raises(ValueError, match="pass Trace_ELBO in its place, whose steps engine='captured' records"):
        svi.step()
