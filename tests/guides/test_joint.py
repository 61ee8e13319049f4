"""All sites as one vector: exact on two layers, the same as one site where there is one, at home in every tool."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import TWO_LAYER, assert_close, inverse, normal
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam
from torch import nn
from torch.distributions import constraints

from dlvm.distributions import DiagonalNormal, FullRankNormal, InverseAutoregressiveNormal, positive
from dlvm.guides import FullRank, Joint, Latent, latents
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, ScoreFunction, WakeSleep, check, evaluate, log_weights
from dlvm.models import PPCA, burda
from dlvm.nets import MLP

LINEAR_IAF = partial(InverseAutoregressiveNormal, depth=1, hidden=())
FAMILIES = pytest.mark.parametrize("family", [DiagonalNormal, FullRankNormal, InverseAutoregressiveNormal])


def two_layer(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2 @ TWO_LAYER.upper.T, TWO_LAYER.s1.sqrt()).to_event(1))
        pyro.sample("x", dist.Normal(z1 @ TWO_LAYER.lower.T, TWO_LAYER.s2.sqrt()).to_event(1), obs=x)


def mixed(x):
    """Sites of several shapes and supports."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        b = pyro.sample("b", dist.Gamma(2.0, 1.0))
        c = pyro.sample("c", dist.Dirichlet(torch.ones(4)))
        loc = c + a.sum((-1, -2))[..., None]
        pyro.sample("x", dist.Normal(loc, b[..., None]).to_event(1), obs=x)


def on_two_layers(family=FullRankNormal):
    x = normal(TWO_LAYER.marginal).sample((6,))
    return Joint(latents(two_layer, x), MLP(4, activation=nn.Identity), family), x


def on_burda():
    model, x = burda(9, sizes=(4, 3), hidden=(8, 7)), (torch.rand(5, 9) < 0.5).float()
    return model, Joint(latents(model, x), MLP(9, 16)), x


@pytest.mark.usefixtures("float64")
def test_full_rank_holds_the_posterior_of_two_layers():
    """With its parameters by hand, every weight is p(x), to which layers drawn apart cannot come."""
    guide, x = on_two_layers()
    swap = torch.tensor([2, 3, 0, 1])  # the oracle's latent is (z1, z2), the guide's (z2, z1)
    mean = torch.stack([TWO_LAYER.posterior(e).loc for e in torch.eye(4)], -1)[swap]
    factor = torch.linalg.cholesky(TWO_LAYER.posterior(x[0]).cov[swap][:, swap])
    rows, columns = torch.tril_indices(4, 4, -1)
    head = guide.posteriors[0].head
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:4] = mean
        head.bias.copy_(torch.cat([torch.zeros(4), inverse(positive, factor.diagonal()), factor[rows, columns]]))
    log_w = log_weights(two_layer, guide, x, num_particles=3)
    assert_close(log_w, TWO_LAYER.log_px(x).expand(3, -1), 1e-8)
    assert TWO_LAYER.layer_gap > 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family, reached", [(FullRankNormal, True), (LINEAR_IAF, True), (DiagonalNormal, False)])
def test_training_closes_the_gap_where_the_family_can(family, reached, minimised):
    guide, x = on_two_layers(family)
    bound = -minimised(ELBO(), two_layer, guide, x, dims=4)
    gap = (TWO_LAYER.log_px(x) - log_weights(two_layer, guide, x, num_particles=2000).mean(0)).mean()
    precision = torch.linalg.inv(TWO_LAYER.posterior(x[0]).cov)
    diagonal = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert_close(TWO_LAYER.log_px(x).mean() - bound, 0.0 if reached else diagonal, 1e-6)
    assert_close(gap.detach(), 0.0 if reached else diagonal, 1e-4 if reached else 0.05)
    assert diagonal > TWO_LAYER.layer_gap > 0.1


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(),
        ELBO(estimator=STL()),
        IWAE(4),
        IWAE(4, estimator=DReG()),
        ELBO(2, estimator=ScoreFunction(everywhere=True)),
    ],
    ids=repr,
)
def test_on_one_site_it_is_that_site(objective):
    """Value and gradients of every estimator are those of the guide without the auxiliary site."""
    model, x = PPCA(torch.randn(4, 2), torch.zeros(4), 0.7), torch.randn(5, 4)
    plain, joint = FullRank(latents(model, x), MLP(4, 8)), Joint(latents(model, x), MLP(4, 8))
    joint.load_state_dict(plain.state_dict())
    found = []
    for guide in (plain, joint):
        pyro.set_rng_seed(1)
        objective.differentiable_loss(model, guide, x).backward()
        found.append([p.grad.clone() for p in (*guide.parameters(), *model.parameters())])
        model.zero_grad()
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-4)
        assert a.abs().sum() > 0


@FAMILIES
def test_density_carries_the_jacobian_of_every_site(family):
    x = torch.randn(5, 4)
    spec = latents(mixed, x)
    guide = Joint(spec, MLP(4, 8), family)
    trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    sites = ["joint", "a", "b", "c"]
    assert [n for n in trace.nodes if n in sites] == sites
    u, a, b, c = (trace.nodes[n]["value"] for n in sites)
    assert u.shape == (5, 6 + 1 + 3) and all(spec[n].support.check(trace.nodes[n]["value"]).all() for n in spec)
    assert_close(torch.cat([a.flatten(1), b.log()[:, None]], -1), u[:, :7], 1e-5)
    stick = torch.distributions.biject_to(constraints.simplex)
    jacobian = b.log() + stick.log_abs_det_jacobian(u[:, 7:], c)
    by_hand = trace.nodes["joint"]["fn"].log_prob(u) - jacobian
    assert_close(sum(trace.nodes[n]["log_prob"] for n in sites), by_hand, 1e-4)
    log_w = log_weights(mixed, guide, x, num_particles=3)
    assert log_w.shape == (3, 5) and log_w.isfinite().all()


@pytest.mark.parametrize(
    "objective", [TraceMeanField_ELBO(), ELBO(), ELBO(analytic_kl=True)], ids=["mean field", "", "kl"]
)
def test_every_bound_counts_the_jacobian(objective):
    x = torch.randn(5, 4)
    guide = Joint(latents(mixed, x), MLP(4, 8))
    values = []
    for bound in (Trace_ELBO(), objective):
        pyro.set_rng_seed(1)
        values.append(bound.loss(mixed, guide, x))
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_every_tool_takes_it():
    model, guide, x = on_burda()
    assert check(model, guide, IWAE(3), x) == {"z2": "Monte Carlo", "z1": "Monte Carlo"}
    assert check(model, guide, ELBO(estimator=STL()), x)["z1"] == "Monte Carlo"
    record = evaluate(model, guide, x, num_particles=200)
    assert record.elbo < record.log_px < 0 and record.num_data == 5
    with pytest.raises(ValueError, match="guide draws"):
        check(model, guide, WakeSleep(2), x)
    with pytest.raises(ValueError, match="no analytic KL"):
        check(model, guide, ELBO(analytic_kl=True, strict=True), x)


@FAMILIES
def test_gradients_reach_every_parameter(family):
    model, guide, x = on_burda()
    guide = Joint(latents(model, x), MLP(9, 16), family)
    with torch.no_grad():
        for value in guide.parameters():
            value.add_(0.1 * torch.randn_like(value))
    IWAE(3).differentiable_loss(model, guide, x).backward()
    for name, value in guide.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_captured_steps_are_eager_steps_bit_by_bit():
    model, guide, x = on_burda()
    ends = []
    for engine in ("eager", "captured"):
        pair = deepcopy((model, guide))
        svi = SVI(*pair, partial(torch.optim.Adam, lr=1e-2), IWAE(3), engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x) for _ in range(6)]
        assert svi.running == engine
        ends.append([torch.tensor(losses), *pair[0].parameters(), *pair[1].parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_stock_svi_trains_it():
    model, guide, x = on_burda()
    before = [p.clone() for p in (*model.parameters(), *guide.parameters())]
    svi = pyro.infer.SVI(model, guide, Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(x)
    assert not any(torch.equal(a, b) for a, b in zip(before, (*model.parameters(), *guide.parameters()), strict=True))


def test_state_dict_rebuilds_it():
    model, a, x = on_burda()
    b = Joint(latents(model, x), MLP(9, 16))
    b.load_state_dict(a.state_dict())
    found = []
    for guide in (a, b, deepcopy(a)):
        pyro.set_rng_seed(1)
        found.append(guide(x))
    assert list(found[0]) == ["z2", "z1"]
    assert all(torch.equal(found[0][n], other[n]) for other in found[1:] for n in found[0])


def test_latents_without_a_place_in_the_vector_are_refused():
    with pytest.raises(ValueError, match="'y' is discrete and has no place"):
        Joint({"y": Latent(torch.Size([3]), constraints.independent(constraints.boolean, 1))}, MLP(4, 8))
    with pytest.raises(ValueError, match="named 'joint'"):
        Joint({"joint": Latent(torch.Size([3]))}, MLP(4, 8))
    with pytest.raises(ValueError, match="'w' is global"):
        Joint({"w": Latent(torch.Size([3]), plates=())}, MLP(4, 8))
