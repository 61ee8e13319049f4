"""Models as users write them: two data arguments, wrapped programs, integer data, nets that break under particles."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import nn

from dlvm.guides import Diagonal, FullRank, latents
from dlvm.inference import IWAE, check, evaluate, fit, log_weights
from dlvm.models import PPCA
from dlvm.nets import MLP


def golden() -> PPCA:
    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)


class TwoSites(PyroModule):
    """z -> x of 4 numbers and y of 3, the second weighted by a scale."""

    def __init__(self, weight: float = 1.0):
        super().__init__("model")
        self.x, self.y, self.weight = nn.Linear(2, 4), nn.Linear(2, 3), weight

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.scale(scale=self.weight):
                pyro.sample("y", dist.Normal(self.y(z), 1.0).to_event(1), obs=y)
            pyro.sample("x", dist.Normal(self.x(z), 1.0).to_event(1), obs=x)


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 4), torch.randn(n, 3)


def test_bits_per_dim_counts_every_observed_number():
    model, (x, y) = TwoSites(), batch()
    r = evaluate(model, Diagonal(latents(model, x, y), MLP(7, 8)), [(x, y)], num_particles=30)
    assert r.bits_per_dim == pytest.approx(-r.log_px / math.log(2) / 7)


@pytest.mark.parametrize("weight", [1.0, 50.0])
def test_a_weight_on_one_site_tempers_it_and_leaves_the_number_of_data(weight):
    """log w = log p(x|z) + weight log p(y|z) + log p(z) - log q(z), and nats are per datum of the plate."""
    model, (x, y) = TwoSites(weight), batch()
    guide = Diagonal(latents(model, x, y), MLP(7, 8))
    pyro.set_rng_seed(0)
    log_w = log_weights(model, guide, x, y)
    pyro.set_rng_seed(0)
    q = poutine.trace(guide).get_trace(x, y)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x, y)
    terms = {name: p.nodes[name]["fn"].log_prob(p.nodes[name]["value"]) for name in "xyz"}
    by_hand = terms["x"] + weight * terms["y"] + terms["z"] - q.nodes["z"]["fn"].log_prob(q.nodes["z"]["value"])
    assert torch.allclose(log_w[0], by_hand, rtol=1e-5)
    pyro.set_rng_seed(0)
    (epoch,) = fit(model, guide, IWAE(1), [(x, y)], epochs=1)
    assert abs(epoch.train / by_hand.mean().item() - 1) < 0.5


def test_wrapped_modules_own_their_parameters_in_every_run():
    """poutine.scale(module) is the module: a second run in the process trains its own parameters."""
    moved = []
    for _ in range(2):
        model, x = golden(), torch.randn(8, 4).double()
        guide = Diagonal(latents(model, x), MLP(4, 8)).double()
        before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
        both = [poutine.scale(program, scale=0.125) for program in (model, guide)]
        list(fit(*both, IWAE(2), [(x,)], epochs=2))
        moved.append(
            sum(not torch.equal(a, b) for a, b in zip(before, (*model.parameters(), *guide.parameters()), strict=True))
        )
    assert moved == [len(before)] * 2
    assert not len(pyro.get_param_store())


def test_a_guide_without_a_latent_site_gives_weights_where_it_is_summed_out():
    def model(x, how="parallel"):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": how})
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat_interleave(2, -1) + c.unsqueeze(-1), 1.0).to_event(1), obs=x)

    x = torch.randn(5, 4)
    guide = Diagonal({"z": latents(model, x)["z"]}, MLP(4, 8))
    enumerating = TraceEnum_ELBO(max_plate_nesting=1)
    assert check(model, guide, enumerating, x) == {"z": "Monte Carlo"}
    pyro.set_rng_seed(1)
    found = log_weights(model, guide, x).sum().item()
    pyro.set_rng_seed(1)
    assert found == pytest.approx(-enumerating.loss(model, guide, x), rel=1e-5)
    drawn = partial(model, how=None)
    with pytest.warns(UserWarning, match="Found vars in model"), pytest.raises(ValueError, match=r"lacks .*\['c'\]"):
        log_weights(drawn, guide, x)


def test_integer_data_reach_the_encoder_as_floats():
    class Counts(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.rate = nn.Linear(2, 4)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Poisson(self.rate(z).exp()).to_event(1), obs=x)

    model, x = Counts(), torch.poisson(torch.full((20, 4), 2.0)).long()
    guide = FullRank(latents(model, x), MLP(4, 8))
    adam = partial(torch.optim.Adam, lr=0.02)
    bounds = [epoch.train for epoch in fit(model, guide, IWAE(3), [(x,)], epochs=100, optimizer=adam)]
    assert sum(bounds[-10:]) > sum(bounds[:10]) + 1.0
    assert math.isfinite(evaluate(model, guide, x, num_particles=50).log_px)


def test_a_net_that_swallows_particles_has_them_one_after_the_other():
    class Swallows(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.net = nn.Linear(2, 4)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z).view(len(x), 4), 1.0).to_event(1), obs=x)

    model, x = Swallows(), torch.randn(6, 4)
    guide = Diagonal(latents(model, x), MLP(4, 8))
    torch.manual_seed(0)
    one_by_one = torch.stack([log_weights(model, guide, x)[0] for _ in range(2)]).logsumexp(0) - math.log(2)
    torch.manual_seed(0)
    torch.testing.assert_close(-IWAE(2).loss(model, guide, x), one_by_one.sum().item())
    assert math.isfinite(next(fit(model, guide, IWAE(2), [(x,)], epochs=1)).train)


def test_a_uniform_latent_serves_batches_of_any_size():
    """A plate expands the bounds of a support to the batch it saw; the guide keeps those of one datum."""

    class Interval(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.net = nn.Linear(2, 4)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                u = pyro.sample("u", dist.Uniform(-torch.ones(2), 2 * torch.ones(2)).to_event(1))
                pyro.sample("x", dist.Normal(self.net(u), 1.0).to_event(1), obs=x)

    model = Interval()
    guide = Diagonal(latents(model, torch.randn(5, 4)), MLP(4, 8))
    u = guide(torch.randn(70, 4))["u"]
    assert u.shape == (70, 2) and u.min() > -1 and u.max() < 2
    assert log_weights(model, guide, torch.randn(3, 4), num_particles=4).shape == (4, 3)


def test_a_support_that_depends_on_another_site_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Gamma(2.0, 1.0))
            u = pyro.sample("u", dist.Uniform(torch.zeros(()), a))
            pyro.sample("x", dist.Normal(u, 1.0), obs=x)

    with pytest.raises(ValueError, match="'u' has a support with bounds that depend on other values; reparametrise"):
        Diagonal(latents(model, torch.randn(5)), MLP(1, 8))


def test_evaluate_refuses_what_the_likelihood_cannot_have_produced():
    model, x = golden(), X_1.expand(6, -1).clone()
    x[4, 1] = math.nan
    with pytest.raises(ValueError, match="'x' holds values outside its likelihood's support"):
        evaluate(model, Diagonal(latents(model, x), MLP(4, 8)).double(), x, num_particles=30)


@pytest.mark.parametrize("odd", [{"x": X_1}, [X_1.tolist()], "x"])
def test_odd_batches_are_refused(odd):
    model = golden()
    guide = Diagonal(latents(model, X_1[None]), MLP(4, 8)).double()
    with pytest.raises(TypeError, match="a batch must be a tensor, or a tuple of the model's arguments"):
        next(fit(model, guide, IWAE(2), [odd], epochs=1))
