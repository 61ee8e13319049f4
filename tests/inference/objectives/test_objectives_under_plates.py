"""Objectives with scales, plates of every name, subsamples and batch statistics."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.forcing import gradient
from pyro import poutine
from switched import XS, Guide, Layers, Model, climbed
from torch import nn

from dlvm.inference import ELBO, IWAE, RWS, STL, SVI, VIMCO, DReG, check, log_weights

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("objective", [ELBO(3), IWAE(3), IWAE(3, DReG()), IWAE(3, VIMCO(everywhere=True))], ids=repr)
def test_a_scale_per_datum_may_lie_along_a_plate_further_left(objective):
    """(B, 1) beside a plate of B at dim -2: the slope in each datum's scale is its bound."""

    def program(x, observed):
        with pyro.plate("data", len(x), dim=-2):
            loc = torch.zeros(len(x), 1) if observed else x.mean(-1, keepdim=True) / 2
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            if observed:
                with pyro.plate("pixels", x.shape[1], dim=-1):
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    programs = partial(program, observed=True), partial(program, observed=False)
    weight = torch.tensor([[0.5], [2.0], [1.0], [0.1]], requires_grad=True)
    pyro.set_rng_seed(1)
    bounds = objective.bound(log_weights(*programs, XS, num_particles=3))
    pyro.set_rng_seed(1)
    loss = objective.differentiable_loss(*(poutine.scale(p, scale=weight) for p in programs), XS)
    assert_close(loss, -(bounds * weight.squeeze(-1)).sum(), 1e-12)
    if not objective.estimator.detached:
        pyro.set_rng_seed(1)
        total = type(objective)(3).differentiable_loss(*(poutine.scale(p, scale=weight) for p in programs), XS)
        assert_close(torch.autograd.grad(total, weight)[0].squeeze(-1), -bounds, 1e-12)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(3), IWAE(3, DReG())], ids=repr)
def test_a_plate_of_the_user_may_be_named_particles(objective):
    pairs = [(Model(plate=name), Guide(plate=name)) for name in ("data", "particles")]
    expected, found = (climbed(objective, *pair, XS) for pair in pairs)
    assert torch.equal(found, expected)
    assert check(*pairs[1], objective, XS) == {"z": "Monte Carlo"}


@pytest.mark.parametrize("estimator", [None, STL(), VIMCO(everywhere=True)], ids=repr)
def test_subsamples_of_an_inner_plate_have_the_gradient_of_all_data_on_average(estimator):
    """A latent beside the plate: the six pairs of four data, at the same draws of it."""
    loc, log_scale, noise = (torch.tensor(v, requires_grad=True) for v in (0.3, -0.2, 0.4))

    def model(x, chosen):
        mean = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample=chosen):
            pyro.sample("x", dist.Normal(mean, noise.exp()), obs=x[chosen])

    def guide(x, chosen):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    def found(*chosen):
        pyro.set_rng_seed(1)
        loss = ELBO(2, estimator).differentiable_loss(model, guide, XS[:, 0], torch.tensor(chosen))
        return torch.cat([loss.detach()[None], gradient(loss, [loc, log_scale, noise])])

    pairs = torch.stack([found(*pair) for pair in combinations(range(4), 2)])
    assert pairs.std(0).min() > 0.01
    assert_close(pairs.mean(0), found(0, 1, 2, 3), 1e-12)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), ELBO(2, STL()), IWAE(3, DReG()), RWS(3)], ids=repr)
def test_batch_normalisation_of_the_encoder_moves_once_a_step(objective):
    model, guide = Model(), Guide()
    guide.norm = nn.BatchNorm1d(2)
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-3), objective, engine="eager")
    for _ in range(3):
        svi.step(XS)
    assert guide.norm.num_batches_tracked == 3


@pytest.mark.parametrize("objective", [ELBO(2, STL()), IWAE(3, DReG())], ids=repr)
def test_batch_normalisation_moves_once_a_step_in_a_guide_of_several_sites(objective):
    guide = Layers("guide")
    guide.norm = nn.BatchNorm1d(2)
    SVI(Layers("model"), guide, partial(torch.optim.Adam, lr=1e-3), objective, engine="eager").step(XS)
    assert guide.norm.num_batches_tracked == 1
