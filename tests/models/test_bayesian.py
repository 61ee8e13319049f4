"""Weights as latent sites: counted once, in particles side by side, captured, and pointed at they are MAP and ridge."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import LinearGaussian, assert_close
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.poutine.messenger import Messenger
from torch import nn

from dlvm.distributions import Bernoulli, Categorical, FixedScale, Normal
from dlvm.evidence import weight_posterior
from dlvm.guides import Diagonal, FullyObserved, WithGlobals, latents, local_sites
from dlvm.inference import ELBO, IWAE, MAP, SVI, MaximumLikelihood, check, evaluate
from dlvm.models import ARD, VAE, Bayesian, Conditional, FanIn
from dlvm.nets import MLP
from dlvm.nets.particle_linear import ParticleLinear

N, X_DIM = 6, 4
X = torch.linspace(-1, 1, N * X_DIM).sin().mul(9).sin().gt(0).float().reshape(N, X_DIM)
F = torch.tensor([[1.0, 0.2], [0.5, -0.7], [-0.4, 1.3], [0.8, 0.4], [-1.2, -1.1]], dtype=torch.float64)
Y = torch.tensor([0.3, -1.0, 1.7, 0.1, -0.4], dtype=torch.float64)
PRIOR, NOISE = 0.8, 0.5
Adam = partial(torch.optim.Adam, lr=1e-2, foreach=False, fused=False)


def bayesian_vae(num_data=N, family=AutoNormal, seed=0, **settings):
    torch.manual_seed(seed)
    model = Bayesian(VAE(2, Bernoulli(MLP(2, 5, X_DIM))), num_data, **settings)
    start = partial(family, init_loc_fn=init_to_value(values=model.starts))
    local = Diagonal(local_sites(latents(model, X[:2])), MLP(X_DIM, 5))
    return model, WithGlobals(local, model, start, X[:2])


def regression(family=None, num_data=5):
    """y = w'f + b + e, with N(0, PRIOR^2) on w and b."""
    torch.manual_seed(0)
    likelihood = Normal(MLP(2), 1, scale=FixedScale(NOISE))
    model = Bayesian(Conditional(likelihood), num_data, PRIOR)
    return model, None if family is None else WithGlobals(None, model, family, F, Y[:, None])


class At(Messenger):
    """Draws are these values: of weights, and of z by the rows of the batch."""

    def __init__(self, values, rows):
        super().__init__()
        self.values, self.rows = values, rows

    def _pyro_sample(self, msg):
        name = msg["name"].removesuffix("_unconstrained")
        if name in self.values and not msg["done"] and not isinstance(msg["fn"], dist.Delta):
            value = self.values[name]
            msg["value"], msg["done"] = (value[self.rows] if name == "z" else value), True


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [1, 4])
def test_the_mean_over_all_minibatches_is_the_bound_on_all_data_computed_by_hand(size):
    """AEVB's appendix F: N / M of the local terms, and KL(q(w) || p(w)) once, for one draw of w and of every z."""
    model, guide = bayesian_vae(prior=PRIOR)
    x = X.double()
    values = {site: torch.randn_like(value) for site, value in model.starts.items()} | {"z": torch.randn(N, 2)}

    def loss(rows):
        return ELBO().loss(model, At(values, rows)(guide), x[rows])

    whole = loss(torch.arange(N))
    parts = [loss(torch.tensor(rows)) for rows in combinations(range(N), size)]
    assert max(parts) - min(parts) > 0.1
    assert_close(sum(parts) / len(parts), whole, 1e-9)

    w, z = {site: values[site] for site in model.starts}, values["z"]
    with pyro.poutine.trace() as traced:
        guide.local(x)
    with model.holding(w):
        error = model.model.likelihood(z).log_prob(x).sum()
    log_q = traced.trace.nodes["z"]["fn"].log_prob(z).sum()
    for site, value in w.items():
        loc, scale = _of(guide.shared.locs, site), _of(guide.shared.scales, site)
        log_q = log_q + dist.Normal(loc, scale).log_prob(value).sum()
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum() + sum(dist.Normal(0.0, PRIOR).log_prob(v).sum() for v in w.values())
    assert_close(torch.tensor(-whole), error + log_p - log_q, 1e-9)


def _of(module, site):
    for part in site.split("."):
        module = getattr(module, part)
    return module


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["vae", "classifier"])
def test_weights_of_particles_side_by_side_are_each_with_its_own_data(kind):
    """The densities of K particles in parallel are those of K runs, with local latents and without."""
    if kind == "vae":
        model, guide = bayesian_vae()
        args = (X.double(),)
    else:
        model = Bayesian(Conditional(Categorical(MLP(X_DIM, 5, 3))), N)
        args = (X.double(), torch.arange(N) % 3)
        guide = WithGlobals(None, model, AutoNormal, *args)
    with pyro.plate("particles", 3, dim=-2), pyro.poutine.trace() as drawn:
        guide(*args)
    with pyro.plate("particles", 3, dim=-2), pyro.poutine.trace() as together:
        pyro.poutine.replay(model, drawn.trace)(*args)
    together.trace.compute_log_prob()
    site = "x" if kind == "vae" else "y"
    found = together.trace.nodes[site]["unscaled_log_prob"]
    assert found.shape == (3, N) and (found[0] - found[1]).abs().max() > 0.01
    for k in range(3):
        values = {name: drawn.trace.nodes[name]["value"][k] for name in [*model.starts, *(["z"] * (kind == "vae"))]}
        alone = {name: v if name == "z" else v.squeeze(0) for name, v in values.items()}
        run = pyro.poutine.trace(pyro.poutine.condition(model, alone)).get_trace(*args)
        run.compute_log_prob()
        assert_close(found[k], run.nodes[site]["unscaled_log_prob"], 1e-12)


def test_a_linear_layer_with_one_weight_is_torchs_own_bit_for_bit():
    layer, ours, x = nn.Linear(4, 3), ParticleLinear(4, 3), torch.randn(2, 5, 4)
    ours.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), ours(x))


@pytest.mark.usefixtures("float64")
def test_with_the_exact_posterior_for_q_every_draw_gives_the_evidence():
    model, guide = regression(AutoMultivariateNormal)
    oracle = LinearGaussian(
        PRIOR * torch.cat([F, torch.ones(len(F), 1)], 1), torch.zeros(len(F)), torch.tensor(NOISE**2)
    )
    exact = oracle.posterior(Y)
    with torch.no_grad():
        guide.shared.loc.copy_(PRIOR * exact.loc)
        tril = torch.linalg.cholesky(PRIOR**2 * exact.cov)
        guide.shared.scale = tril.diagonal()
        guide.shared.scale_tril = tril / tril.diagonal()[:, None]
    losses = [ELBO().loss(model, guide, F, Y[:, None]) for _ in range(3)]
    assert_close(torch.tensor(losses), -oracle.log_px(Y).expand(3), 1e-9)


@pytest.mark.usefixtures("float64")
def test_map_is_ridge_and_so_is_weight_decay():
    """argmin |y - A w|^2 / (2 noise^2) + |w|^2 / (2 prior^2): there alone a point for q has no gradient."""
    design = torch.cat([F, torch.ones(len(F), 1)], 1)
    ridge = torch.linalg.solve(design.T @ design + (NOISE / PRIOR) ** 2 * torch.eye(3), design.T @ Y)
    model, guide = regression(AutoDelta)
    weight, bias = (_of(guide.shared, site) for site in model.starts)
    hessian = design.T @ design / NOISE**2 + torch.eye(3) / PRIOR**2
    for objective in (ELBO(), Trace_ELBO()):
        for parameter in (weight, bias):
            parameter.grad = None
        objective.differentiable_loss(model, guide, F, Y[:, None]).backward()
        newton = torch.cat([weight[0], bias]) - torch.linalg.solve(hessian, torch.cat([weight.grad[0], bias.grad]))
        assert_close(newton, ridge, 1e-9)

    after = []
    prior = MAP(MaximumLikelihood(), dist.Normal(0.0, PRIOR), len(Y))
    for decay, objective in ((0.0, prior), (1 / PRIOR**2, MaximumLikelihood())):
        torch.manual_seed(0)
        plain = Conditional(Normal(MLP(2), 1, scale=FixedScale(NOISE)))
        optimizer = partial(torch.optim.SGD, lr=0.02, weight_decay=decay)
        svi = SVI(plain, FullyObserved(), optimizer, objective, engine="eager")
        for _ in range(3):
            svi.step(F, Y[:, None])
        after.append(torch.cat([plain.likelihood.head.weight[0], plain.likelihood.head.bias]).detach())
    assert_close(after[0], after[1], 1e-12)
    assert (after[0] - ridge).norm() > 0.01


@pytest.mark.parametrize(
    "only", [pytest.param(None, marks=pytest.mark.slow), ("likelihood.net.layers.1",)], ids=["all", "last layer"]
)
def test_captured_steps_are_the_eager_ones(only):
    outcomes = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(4)
        model, guide = bayesian_vae(num_data=60, only=only)
        svi = SVI(model, guide, Adam, ELBO(), engine=engine)
        losses = [svi.step(X) for _ in range(3)]
        state = [torch.get_rng_state(), *model.state_dict().values(), *guide.state_dict().values()]
        outcomes.append((losses, [value.clone() for value in state]))
        assert svi.running == engine
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(outcomes[0][1], outcomes[1][1], strict=True))


@pytest.mark.usefixtures("float64")
def test_one_datum_is_the_whole_data_set_and_no_more_data_than_that_are_taken():
    model = Bayesian(Conditional(Normal(MLP(2), 1, scale=FixedScale(NOISE))), 1, PRIOR)
    exact = weight_posterior(model, F[:1], Y[:1, None])
    variance = PRIOR**2 * (1 + F[0] @ F[0]) + NOISE**2
    assert_close(torch.tensor(exact.log_evidence), dist.Normal(0.0, variance.sqrt()).log_prob(Y[0]), 1e-9)
    with pytest.raises(ValueError, match="num_data=1 is how many data there are in all, got a batch of 2"):
        model(F[:2])
    with pytest.raises(ValueError, match="num_data must be at least 1, got 0"):
        bayesian_vae(num_data=0)


def test_a_bound_whose_logarithm_lies_outside_the_plate_and_an_evaluation_are_refused():
    model, guide = bayesian_vae(num_data=60)
    with pytest.raises(ValueError, match="subsampled .* is not around every site"):
        check(model, guide, IWAE(3), X)
    with pytest.raises(ValueError, match="is subsampled"):
        evaluate(model, guide, X, num_particles=5)


def test_parts_of_a_model_are_lifted_once_and_named():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net.out_features = 3
    model = Bayesian(Conditional(Categorical(net)), 5, FanIn(2.0))
    sites = ["likelihood.net.0.weight", "likelihood.net.0.bias", "likelihood.net.1.bias"]
    assert list(model.starts) == sites and not list(model.parameters())
    assert_close(model.priors()[sites[0]].base_dist.scale[0, 0], torch.tensor(2 / 3**0.5), 1e-6)
    held = {name: torch.full_like(value, 7.0) for name, value in model.starts.items()}
    with model.holding(held):
        assert torch.equal(net[1].weight, held[sites[0]])
    assert net[1].weight is None
    with pytest.raises(ValueError, match="model has no parameter that could be random"):
        Bayesian(model.model, 5)
    with pytest.raises(ValueError, match="only names 'decoder'"):
        Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 5, only=("decoder",))
    with pytest.raises(TypeError, match="recurrent layer"):
        Bayesian(Conditional(Categorical(Last())), 5)
    with pytest.raises(ValueError, match="ARD has a scale for each of 2 columns"):
        Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 5, ARD(2))


class Last(nn.Module):
    """A recurrent net's last state."""

    out_features = 3

    def __init__(self):
        super().__init__()
        self.net = nn.GRU(4, 3)

    def forward(self, x):
        return self.net(x)[0]


def test_a_model_that_has_run_and_been_trained_is_taken_over():
    plain = VAE(2, Bernoulli(MLP(2, 5, X_DIM)))
    plain(n=3)
    weight = plain.likelihood.net.layers[1].weight.detach().clone()
    model = Bayesian(plain, N, only=("likelihood.net.layers.1",))
    assert torch.equal(model.starts["likelihood.net.layers.1.weight"], weight)
    assert model(n=4).shape == (4, X_DIM)
