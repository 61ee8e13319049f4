"""Gradient steps on each datum narrow the gap that an encoder leaves."""

from __future__ import annotations

import copy
from functools import partial

import pyro
import pytest
import torch
from oracles import GOLDEN_2, X_2, assert_close
from pyro.infer import Trace_ELBO
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, Joint, Ladder, latents
from dlvm.guides.refined import Refined
from dlvm.inference import ELBO, IWAE, SVI, DReG, check, evaluate
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

XS = torch.stack([X_2, -X_2, X_2 + 1, X_2.flip(0)])


def linear_pair():
    pyro.set_rng_seed(0)
    model = PPCA(GOLDEN_2.weight, GOLDEN_2.mu, GOLDEN_2.s2.sqrt()).requires_grad_(False)
    return model, Diagonal(latents(model, XS), MLP(5, 6, activation=nn.Identity)).double()


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_more_steps_bring_the_bound_up_to_that_of_the_best_diagonal_guide():
    model, guide = linear_pair()
    rows = XS.repeat(30, 1)
    elbos = [ELBO(analytic_kl=True).loss(model, guide, rows)]
    for steps in (3, 20, 100):
        refined = Refined(guide, model, ELBO(5, analytic_kl=True), steps=steps, rate=0.02)
        pyro.set_rng_seed(1)
        elbos.append(ELBO(analytic_kl=True).loss(model, refined, rows))
    bounds = [-loss / len(rows) for loss in elbos]
    best = GOLDEN_2.log_px(XS).mean() - GOLDEN_2.diagonal_gap
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] < best + 0.05
    assert best - bounds[3] < 0.1 * (best - bounds[0])


def binary_pair():
    pyro.set_rng_seed(0)
    x = (torch.rand(6, 5) > 0.5).float()
    model = VAE(2, Bernoulli(MLP(2, 6, 5, activation=nn.Tanh)))
    return model, Diagonal(latents(model, x), MLP(5, 6, activation=nn.Tanh)), x


@pytest.mark.slow
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3, DReG())], ids=repr)
def test_captured_steps_are_the_eager_ones(through, objective):
    runs = []
    for engine in ("eager", "captured"):
        model, guide, x = binary_pair()
        refined = Refined(guide, model, Trace_ELBO(), steps=2, through=through)
        assert check(model, refined, objective, x) == {"z": "Monte Carlo"}
        svi = SVI(model, refined, partial(torch.optim.SGD, lr=1e-2), objective, engine=engine)
        losses = [svi.step(x) for _ in range(4)]
        runs.append((losses, [p.detach() for p in (*model.parameters(), *refined.parameters())]))
    assert runs[0][0] == runs[1][0] and all(map(torch.equal, runs[0][1], runs[1][1]))


def test_gradients_through_the_steps_are_others_than_past_them():
    gradients = []
    for through in (False, True):
        model, guide, x = binary_pair()
        refined = Refined(guide, model, Trace_ELBO(), steps=2, rate=0.5, through=through)
        pyro.set_rng_seed(2)
        loss = ELBO().differentiable_loss(model, refined, x)
        gradients.append((loss.item(), torch.autograd.grad(loss, guide.encoder.layers[0].weight)[0]))
    assert_close(gradients[0][0], gradients[1][0], 1e-5)
    assert not torch.allclose(gradients[0][1], gradients[1][1], rtol=1e-2)


def test_the_model_is_no_part_of_it_and_evaluation_refines_too():
    model, guide, x = binary_pair()
    refined = Refined(guide, model, Trace_ELBO(), steps=3)
    assert {id(p) for p in refined.parameters()} == {id(p) for p in guide.parameters()}
    assert not any("likelihood" in name for name in refined.state_dict())
    assert evaluate(model, refined, x, num_particles=30).num_data == 6
    assert all(p.grad is None for p in model.parameters())
    assert copy.deepcopy(guide)(x)["z"].shape == (6, 2)


def test_what_makes_no_sense_is_refused():
    model, guide, x = binary_pair()
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Refined(guide, model, Trace_ELBO(), steps=0)
    ladder = Ladder(latents(model, x), MLP(5, 6), model)
    for other in (model, ladder):
        with pytest.raises(TypeError, match="guide must be an amortised guide"):
            Refined(other, model, Trace_ELBO())


def test_a_joint_guide_can_be_refined_as_well():
    model, _, x = binary_pair()
    refined = Refined(Joint(latents(model, x), MLP(5, 6)), model, Trace_ELBO(), steps=2)
    check(model, refined, IWAE(3), x)
    assert evaluate(model, refined, x, num_particles=30).active_units is not None
