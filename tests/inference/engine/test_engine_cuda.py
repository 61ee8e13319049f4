"""The captured step as one CUDA graph: the same numbers as the eager step, on the device's own noise."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, latents
from dlvm.inference import IWAE, SVI, NonFinite, evaluate
from dlvm.inference.engine.cuda_graph import CudaGraph
from dlvm.models import VAE
from dlvm.nets import MLP

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
Adam = partial(torch.optim.Adam, lr=1e-2, fused=True)


def on_device(family=Diagonal):
    pyro.set_rng_seed(0)
    x = (torch.rand(16, 8) < 0.5).float().cuda()
    model = VAE(2, Bernoulli(MLP(2, 6, 8))).cuda()
    return model, family(latents(model, x), MLP(8, 6)).cuda(), x


def trained(engine, objective, family=Diagonal, steps=12):
    model, guide, x = on_device(family)
    svi = SVI(model, guide, Adam, objective, engine=engine)
    torch.manual_seed(5)
    losses = [svi.step(x) for _ in range(steps)]
    return svi, losses, torch.cat([p.detach().flatten() for p in svi._step.parameters])


@pytest.mark.parametrize("family", [Diagonal, IAF])
@pytest.mark.parametrize("objective", [Trace_ELBO, partial(IWAE, 5)])
def test_a_cuda_graph_steps_as_the_eager_engine_does(objective, family):
    _, eager, expected = trained("eager", objective(), family)
    svi, losses, found = trained("captured", objective(), family)
    (kind,) = svi._steps.kinds.values()
    assert isinstance(kind.captured.run, CudaGraph)
    assert losses == pytest.approx(eager, rel=1e-5) and torch.allclose(expected, found, rtol=1e-4, atol=1e-6)


def test_parameters_that_have_moved_are_found():
    svi, _, _ = trained("captured", Trace_ELBO())
    parameter = svi._step.parameters[0]
    before = svi.evaluate_loss(on_device()[2])
    parameter.data = parameter.data.clone() + 1
    after = [svi.step(on_device()[2]) for _ in range(2)]
    assert abs(after[0] - before) > 1e-3 and all(loss == loss for loss in after)


def test_a_broken_batch_is_named_and_nothing_moves():
    svi, _, before = trained("captured", Trace_ELBO())
    x = on_device()[2]
    x[0, 0] = float("nan")
    with pytest.raises((NonFinite, ValueError)):
        svi.step(x)
    assert torch.equal(before, torch.cat([p.detach().flatten() for p in svi._step.parameters]))


def test_chunks_of_an_evaluation_are_not_overwritten():
    model, guide, x = on_device()
    eager, captured = (evaluate(model, guide, x, 2000, chunk=64, engine=engine) for engine in ("eager", "captured"))
    assert captured.log_px == pytest.approx(eager.log_px, rel=1e-5)
    assert captured.ess == pytest.approx(eager.ess, rel=1e-3)
