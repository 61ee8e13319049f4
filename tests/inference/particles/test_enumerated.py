"""Sites summed out of weights, against the same models with their sums written by hand, draw for draw."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn

from dlvm.distributions import ConstantScaleNormal, OptimalScale
from dlvm.evidence import importance
from dlvm.inference import (
    CUBO,
    ELBO,
    IWAE,
    RWS,
    STL,
    SVI,
    DReG,
    MaximumLikelihood,
    Renyi,
    check,
    evaluate,
    fit,
    log_weights,
)
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair

pytestmark = pytest.mark.usefixtures("float64")
X = torch.tensor([[0.3, -1.2], [2.0, 0.4], [-0.7, 0.1], [1.1, 1.9]], dtype=torch.float64)
ENUM = {"enumerate": "parallel"}
BOUNDS = [ELBO(), ELBO(3, STL()), IWAE(4), IWAE(4, DReG()), Renyi(0.5, 3), RWS(3)]


class Clusters(PyroModule):
    """c ~ (.5, .3, .2), z ~ N(m_c, .8), x ~ N(z w + [own] u_c, .6); ``summed``: with c, else by the sum over c."""

    def __init__(self, summed: bool, own: bool, size: int | None = None):
        super().__init__("model")
        self.summed, self.own, self.size = summed, own, size
        self.logits = nn.Parameter(torch.tensor([0.5, 0.3, 0.2]).log())
        self.means = nn.Parameter(torch.tensor([-1.0, 0.5, 2.0]))
        self.shifts = nn.Parameter(torch.tensor([0.4, -0.2, 0.9]))
        self.w = nn.Parameter(torch.tensor([1.0, -0.7]))

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample_size=len(x)):
            if self.summed:
                c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=ENUM)
                z = pyro.sample("z", dist.Normal(self.means[c], 0.8))
                loc = z[..., None] * self.w + (self.shifts[c][..., None] if self.own else 0.0)
                return pyro.sample("x", dist.Normal(loc, 0.6).to_event(1), obs=x)
            c = dist.Categorical(logits=self.logits)
            z = pyro.sample("z", dist.MixtureSameFamily(c, dist.Normal(self.means, 0.8)))
            loc = z[..., None] * self.w
            if not self.own:
                return pyro.sample("x", dist.Normal(loc, 0.6).to_event(1), obs=x)
            left = c.logits + dist.Normal(self.means, 0.8).log_prob(z[..., None])
            each = dist.Normal(loc[..., None, :] + self.shifts[:, None], 0.6).to_event(1)
            return pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(logits=left), each), obs=x)


class Guide(PyroModule):
    def __init__(self, size: int | None = None):
        super().__init__("guide")
        self.net, self.size = nn.Linear(2, 2), size

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample_size=len(x)):
            loc, log_scale = self.net(x).unbind(-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def pair(summed: bool, own: bool, size: int | None = None):
    torch.manual_seed(0)
    return Clusters(summed, own, size), Guide(size)


@pytest.mark.parametrize("own", [False, True], ids=["z alone has c", "x has c too"])
@pytest.mark.parametrize(
    "objective", [ELBO(), ELBO(3, STL()), IWAE(4), IWAE(4, DReG()), Renyi(0.5, 3), RWS(3)], ids=repr
)
def test_bounds_and_gradients_are_those_of_the_sum_written_by_hand(objective, own):
    found = []
    for summed in (True, False):
        model, guide = pair(summed, own, size=8)
        pyro.set_rng_seed(1)
        check(model, guide, objective, X)
        pyro.set_rng_seed(1)
        loss = objective.differentiable_loss(model, guide, X)
        parameters = [*model.parameters(), *guide.parameters()]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found.append(torch.cat([loss.reshape(1), *(g.flatten() for g in gradients if g is not None)]))
    assert torch.allclose(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("own", [False, True])
def test_prior_and_likelihood_are_parted_alike(own):
    found = []
    for summed in (True, False):
        pyro.set_rng_seed(3)
        particles = weigh(Pair(*pair(summed, own)), (X,), {})
        found.append(torch.stack([particles.log_prior, particles.log_likelihood, particles.log_q]))
    assert torch.allclose(*found, atol=1e-9)
    assert particles.x_dim == 2


def hidden(chain, emit, x):
    """A Markov chain over the columns of x, whose sum is the forward algorithm."""
    with pyro.plate("data", len(x), dim=-1):
        state = 0
        for t in pyro.markov(range(x.shape[1])):
            state = pyro.sample(f"s_{t}", dist.Categorical(chain[state]), infer=ENUM)
            pyro.sample(f"x_{t}", dist.Normal(emit[state], 1.0), obs=x[:, t])


def test_a_markov_chain_is_the_forward_algorithm():
    chain, emit = torch.tensor([[0.7, 0.3], [0.2, 0.8]]), torch.tensor([-1.0, 1.5])
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    alpha = chain[0].log() + dist.Normal(emit, 1.0).log_prob(x[:, :1])
    for t in range(1, 6):
        alpha = (alpha[:, :, None] + chain.log()).logsumexp(1) + dist.Normal(emit, 1.0).log_prob(x[:, t, None])
    model = partial(hidden, chain, emit)
    assert torch.allclose(log_weights(model, lambda x: None, x)[0], alpha.logsumexp(1), atol=1e-9)
    assert torch.allclose(importance(model, lambda x: None, x, num_particles=3).log_px, alpha.logsumexp(1), atol=1e-9)


@pytest.mark.parametrize("inside", [False, True], ids=["one for a row", "one for each number"])
def test_plates_inside_and_outside_the_sum(inside):
    """A class for each row of x, its numbers in a plate: a product inside the sum; or a class for each number."""
    mask = torch.tensor([[True, True], [True, False], [False, False], [True, True]])

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            if not inside:
                c = pyro.sample("c", dist.Bernoulli(0.3), infer=ENUM)
            with pyro.plate("numbers", 2, dim=-1), pyro.poutine.mask(mask=mask):
                if inside:
                    c = pyro.sample("c", dist.Bernoulli(0.3), infer=ENUM)
                pyro.sample("x", dist.Normal(2 * c, 1.0), obs=x)

    each = torch.stack([dist.Normal(0.0, 1.0).log_prob(X), dist.Normal(2.0, 1.0).log_prob(X)], -1) * mask[..., None]
    prior = torch.tensor([0.7, 0.3]).log()
    if inside:
        right = torch.where(mask, (each + prior).logsumexp(-1), 0.0).flatten()  # in both plates, so each is a datum
    else:
        right = (each.sum(1) + prior).logsumexp(-1)
    assert torch.allclose(log_weights(model, lambda x: None, X)[0], right, atol=1e-9)


def test_a_class_that_all_data_share_makes_a_batch_one_datum():
    def model(x):
        c = pyro.sample("c", dist.Bernoulli(0.3), infer=ENUM)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(c[..., None] * torch.ones(2), 1.0).to_event(1), obs=x)

    each = torch.stack([dist.Normal(c, 1.0).log_prob(X).sum() for c in (0.0, 1.0)])
    found = log_weights(model, lambda x: None, X)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx((each + torch.tensor([0.7, 0.3]).log()).logsumexp(0).item(), abs=1e-9)


def test_what_the_guide_draws_is_not_summed():
    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("z", dist.Normal(c.to(x.dtype), 1.0))

    model = Clusters(True, True)
    torch.manual_seed(0)
    drawn = log_weights(model, config_enumerate(guide), X, num_particles=4000)
    exact = evaluate(model, Guide(), X, num_particles=20_000).log_px
    assert (drawn.logsumexp(0) - torch.tensor(4000.0).log()).mean().item() == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("engine", ["eager", "captured"])
def test_steps_are_those_of_pyros_enumeration(engine):
    ends = []
    for objective in (TraceEnum_ELBO(max_plate_nesting=1), ELBO()):
        model, guide = pair(True, True)
        svi = SVI(model, guide, partial(torch.optim.SGD, lr=1e-2), objective, engine=engine)
        for seed in range(4):
            pyro.set_rng_seed(seed)
            svi.step(X)
        assert svi.running == engine
        ends.append(nn.utils.parameters_to_vector([*model.parameters(), *guide.parameters()]).detach())
    assert torch.allclose(*ends, atol=1e-7)


def test_models_of_which_all_is_summed_or_observed_are_trained():
    emit = torch.tensor([-1.0, 1.5]).requires_grad_()
    model = partial(hidden, torch.tensor([[0.7, 0.3], [0.2, 0.8]]), nn.Parameter(emit.detach().clone()))

    def declared(x):
        return model.func(model.args[0], pyro.param("emit", emit.detach().clone()), x)

    bounds = [e.train for e in fit(declared, lambda x: None, MaximumLikelihood(), [(X,)], epochs=3, progress=False)]
    assert bounds[-1] > bounds[0]


def test_sites_that_cannot_be_summed_out_are_refused():
    def scaled(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer=ENUM)
            with pyro.poutine.scale(scale=2.0):
                pyro.sample("x", dist.Normal(c[..., None], 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"latent sites \['c'\] are to be summed out with sites of another scale"):
        log_weights(scaled, lambda x: None, X)
    model, guide = pair(True, True)
    with pytest.raises(ValueError, match="marked to be enumerated TraceEnum_ELBO, ELBO or IWAE sum out"):
        check(model, guide, Trace_ELBO(), X)
    assert CUBO(2.0, 3).loss(model, guide, X) is not None


def test_a_scale_does_not_follow_the_errors_of_values_that_are_summed_out():
    """Each of three classes would count a third: the spread of all data in place of that within a class."""
    likelihood = ConstantScaleNormal(nn.Linear(3, 2), OptimalScale())

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)), infer=ENUM)
            pyro.sample("x", likelihood(y), obs=x)

    with pytest.raises(ValueError, match=r"site 'x' has an OptimalScale, which cannot learn while \['y'\] are summed"):
        ELBO().differentiable_loss(model, lambda x: None, X)
    likelihood.eval()
    assert evaluate(model, lambda x: None, X, num_particles=2).log_px_se == pytest.approx(0.0, abs=1e-9)
