"""Top-down inference that reads the model: exact merges, parameters kept apart, closed KLs, every tool and engine."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import TWO_LAYER, TwoLayer, assert_close, finite_difference, inverse, normal
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.optim import Adam
from torch import nn
from torch.distributions import constraints, kl_divergence

from dlvm.distributions import DiagonalNormal, FullRankNormal, InverseAutoregressiveNormal, positive
from dlvm.guides import Ladder, Latent, latents
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, check, evaluate, log_weights
from dlvm.models import burda
from dlvm.nets import MLP

MERGES = pytest.mark.parametrize("merge", ["precision", "residual"])
FAMILIES = pytest.mark.parametrize("family", [DiagonalNormal, FullRankNormal])
ORTHOGONAL = TwoLayer(
    upper=torch.tensor([[0.8, 0.0], [0.0, -0.6]]).double(),
    lower=torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.5, 0.5], [0.5, -0.5]]).double(),
    s1=TWO_LAYER.s1,
    s2=TWO_LAYER.s2,
)


class Linear(nn.Module):
    """An oracle as a program whose upper layer can be trained."""

    def __init__(self, oracle):
        super().__init__()
        self.oracle, self.upper = oracle, nn.Parameter(oracle.upper.clone())

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ self.upper.T, self.oracle.s1.sqrt()).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ self.oracle.lower.T, self.oracle.s2.sqrt()).to_event(1), obs=x)


def linear(oracle, merge, family):
    model, x = Linear(oracle), normal(oracle.marginal).sample((6,))
    guide = Ladder(latents(model, x), MLP(4, activation=nn.Identity), model, merge, family, hidden=())
    return model, guide, x


def set_linear(posterior, weight, cov):
    """The encoder's Gaussian becomes N(weight (x, parents), cov)."""
    factor = torch.linalg.cholesky(cov)
    parts = [torch.zeros(len(cov)), inverse(positive, factor.diagonal())]
    if isinstance(posterior, FullRankNormal):
        parts.append(factor[tuple(torch.tril_indices(len(cov), len(cov), -1))])
    with torch.no_grad():
        posterior.head.weight.zero_()
        posterior.head.weight[: len(cov)] = weight
        posterior.head.bias.copy_(torch.cat(parts))


def set_exact(guide, oracle):
    """Parameters by hand under which the guide is the posterior."""
    top, below = guide.posteriors
    if guide.merge == "precision":  # what x says of z1, and of z2, as likelihoods
        gram, up = torch.linalg.inv(oracle.lower.T @ oracle.lower), torch.linalg.inv(oracle.upper)
        seen = gram @ oracle.lower.T
        set_linear(below, seen, oracle.s2 * gram)
        set_linear(top, up @ seen, up @ (oracle.s1 * torch.eye(2) + oracle.s2 * gram) @ up.T)
        return
    rows = [oracle.top_down(e) for e in torch.eye(4)]
    set_linear(top, torch.stack([head.loc for head, _ in rows], -1), rows[0][0].cov)
    below_x = torch.stack([tail.loc for _, tail in rows], -1)
    tail = rows[0][1]
    set_linear(below, torch.cat([below_x, tail.weight - oracle.upper], -1), tail.cov / oracle.s1)


def on_burda(merge="precision", family=DiagonalNormal):
    model, x = burda(9, sizes=(4, 3, 2), hidden=(8, 7, 6)), (torch.rand(5, 9) < 0.5).float()
    return model, Ladder(latents(model, x), MLP(9, 16), model, merge, family), x


@MERGES
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "oracle, family",
    [(TWO_LAYER, FullRankNormal), (ORTHOGONAL, FullRankNormal), (ORTHOGONAL, DiagonalNormal)],
    ids=["full", "orthogonal full", "orthogonal diagonal"],
)
def test_linear_layers_are_inferred_exactly(oracle, family, merge):
    """Each conditional is the oracle's, and every weight p(x)."""
    model, guide, x = linear(oracle, merge, family)
    set_exact(guide, oracle)
    trace = poutine.trace(guide).get_trace(x)
    head, tail = oracle.top_down(x)
    for name, exact in (("z2", head), ("z1", tail(trace.nodes["z2"]["value"]))):
        q = trace.nodes[name]["fn"]
        assert_close(q.mean, exact.loc, 1e-8)
        cov = q.covariance_matrix if family is FullRankNormal else q.variance.diag_embed()
        assert_close(cov, exact.cov.expand(6, -1, -1), 1e-8)
    assert_close(log_weights(model, guide, x, num_particles=3), oracle.log_px(x).expand(3, -1), 1e-8)


@pytest.mark.slow
@MERGES
@pytest.mark.usefixtures("float64")
def test_training_finds_the_posterior(merge, minimised):
    model, guide, x = linear(TWO_LAYER, merge, FullRankNormal)
    bound = -minimised(ELBO(), model, guide, x, dims=4)
    assert_close(TWO_LAYER.log_px(x).mean() - bound, 0.0, 1e-6)
    gap = TWO_LAYER.log_px(x) - log_weights(model, guide, x, num_particles=2000).mean(0)
    assert_close(gap.mean(), 0.0, 1e-4)
    assert TWO_LAYER.layer_gap > 0.1


@pytest.mark.usefixtures("float64")
def test_both_merges_by_hand():
    found = {}
    for merge in ("precision", "residual"):
        model, guide, x = on_burda(merge)
        trace = poutine.trace(guide.double()).get_trace(x.double()) if model.double() else None
        z3, z2 = (trace.nodes[n]["value"] for n in ("z3", "z2"))
        p = model.conditionals[0](z3)
        context = (guide.features(x.double()), *([z3] if merge == "residual" else []))
        q = guide.posteriors[1](*context)
        found[merge] = trace.nodes["z2"]["fn"]
        if merge == "precision":
            weight_q, weight_p = 1 / q.variance, 1 / p.variance
            assert_close(found[merge].mean, (q.mean * weight_q + p.mean * weight_p) / (weight_q + weight_p), 1e-10)
            assert_close(found[merge].variance, 1 / (weight_q + weight_p), 1e-10)
        else:
            assert_close(found[merge].mean, p.mean + q.mean, 1e-10)
            assert_close(found[merge].stddev, p.stddev * q.stddev, 1e-10)
        assert z2.shape == (5, 3)


@MERGES
def test_full_rank_with_a_diagonal_factor_is_the_diagonal_merge(merge):
    model, diagonal, x = on_burda(merge)
    _, full, _ = on_burda(merge, FullRankNormal)
    full._model = (model,)
    full.load_state_dict({k: v for k, v in diagonal.state_dict().items() if "head" not in k}, strict=False)
    for a, b in zip(diagonal.posteriors, full.posteriors, strict=True):
        rows = len(a.head.weight)
        with torch.no_grad():
            b.head.weight.zero_(), b.head.bias.zero_()
            b.head.weight[:rows], b.head.bias[:rows] = a.head.weight, a.head.bias
    found = poutine.trace(diagonal).get_trace(x)
    other = poutine.trace(poutine.replay(full, trace=found)).get_trace(x)
    for name in ("z3", "z2", "z1"):
        assert_close(other.nodes[name]["fn"].mean, found.nodes[name]["fn"].mean, 1e-5)
        assert_close(other.nodes[name]["fn"].variance, found.nodes[name]["fn"].variance, 1e-5)


@MERGES
@FAMILIES
def test_the_model_is_read_and_not_owned(merge, family):
    model, guide, x = on_burda(merge, family)
    owned = {id(p) for p in guide.parameters()}
    assert not owned & {id(p) for p in model.parameters()}
    assert not any("model" in name or "likelihood" in name for name in guide.state_dict())
    names = [name for name, _ in guide.named_parameters()]
    IWAE(3).differentiable_loss(model, guide, x).backward()
    assert [name for name, _ in guide.named_parameters()] == names
    for program in (guide, model):
        for name, value in program.named_parameters():
            assert value.grad is not None and value.grad.abs().sum() > 0, name


@pytest.mark.usefixtures("float64")
@MERGES
@pytest.mark.parametrize("objective", [ELBO(2), ELBO(2, analytic_kl=True), IWAE(3)], ids=repr)
def test_the_gradient_counts_both_uses_of_the_model(merge, objective):
    """It is the slope of the loss under one seed, in the model's parameter that guide and model read."""
    model, guide, x = linear(TWO_LAYER, merge, DiagonalNormal)

    def loss(upper):
        pyro.set_rng_seed(3)
        with torch.no_grad():
            model.upper.copy_(upper)
        return objective.differentiable_loss(model, guide, x)

    loss(TWO_LAYER.upper).backward()
    assert_close(model.upper.grad, finite_difference(lambda u: loss(u).detach(), TWO_LAYER.upper.clone()), 1e-5)


@pytest.mark.usefixtures("float64")
@MERGES
@pytest.mark.parametrize("estimator", [STL(), DReG()], ids=repr)
def test_path_estimators_agree_with_the_plain_gradient_of_what_is_shared(merge, estimator):
    """In expectation, within 5 standard errors, for the parameter that stands in p and in q."""
    model, guide, x = linear(TWO_LAYER, merge, DiagonalNormal)
    rows, plain = x[:2].repeat_interleave(750, 0), IWAE(3)
    other = IWAE(3, estimator=estimator) if isinstance(estimator, DReG) else ELBO(3, estimator=estimator)
    plain = plain if isinstance(estimator, DReG) else ELBO(3)
    draws = []
    for objective in (plain, other):
        for _ in range(12):
            (grad,) = torch.autograd.grad(objective.differentiable_loss(model, guide, rows), model.upper)
            draws.append(grad / len(rows))
    a, b = torch.stack(draws).unflatten(0, (2, 12))
    se = ((a.var(0) + b.var(0)) / 12).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 5 * se).all() and (a.mean(0).abs() > 5 * se).any()


@pytest.mark.slow
@MERGES
@FAMILIES
def test_every_kl_is_closed_and_agrees_with_draws(merge, family):
    model, guide, x = on_burda(merge, family)
    assert check(model, guide, ELBO(analytic_kl=True, strict=True), x) == dict.fromkeys(["z3", "z2", "z1"], "analytic")
    with torch.no_grad():
        a, b = (
            torch.tensor([objective.loss(model, guide, x) for _ in range(12)])
            for objective in (ELBO(250, analytic_kl=True), ELBO(250))
        )
    assert (a.mean() - b.mean()).abs() < 5 * ((a.var() + b.var()) / 12).sqrt() and a.var() < b.var()


def test_the_likelihood_is_never_run_by_the_guide():
    model, guide, x = on_burda()
    calls = []
    model.likelihood.register_forward_hook(lambda *_: calls.append(1))
    trace = poutine.trace(guide).get_trace(x)
    assert not calls and [n for n, s in trace.nodes.items() if s["type"] == "sample"] == ["data", "z3", "z2", "z1"]
    assert not pyro.poutine.runtime._PYRO_STACK
    model(x)
    assert len(calls) == 1


@MERGES
def test_particles_are_one_more_dimension(merge):
    model, guide, x = on_burda(merge, FullRankNormal)
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(guide).get_trace(x)
    assert [tuple(trace.nodes[n]["value"].shape) for n in ("z3", "z2", "z1")] == [(7, 5, 2), (7, 5, 3), (7, 5, 4)]
    assert log_weights(model, guide, x, num_particles=7).shape == (7, 5)
    record = evaluate(model, guide, x, num_particles=200)
    assert record.elbo < record.log_px < 0 and record.active_units <= 9


@pytest.mark.slow
@MERGES
@FAMILIES
def test_captured_steps_are_eager_steps_bit_by_bit(merge, family):
    pair, x = on_burda(merge, family)[:2], (torch.rand(5, 9) < 0.5).float()
    ends = []
    for engine in ("eager", "captured"):
        model, guide = deepcopy(pair)
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), ELBO(analytic_kl=True), engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x) for _ in range(6)]
        assert svi.running == engine
        ends.append([torch.tensor(losses), *model.parameters(), *guide.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@MERGES
def test_stock_svi_trains_each_parameter_once(merge):
    model, guide, x = on_burda(merge)
    before = [p.clone() for p in (*model.parameters(), *guide.parameters())]
    pyro.infer.SVI(model, guide, Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    moved = [b - a for a, b in zip(before, (*model.parameters(), *guide.parameters()), strict=True)]
    assert all(0 < step.abs().max() < 0.0101 for step in moved)
    names = list(pyro.get_param_store())
    assert len(names) == len(moved) and {name.split(".")[0] for name in names} == {"model", "guide"}


def test_copies_stay_a_pair():
    """Whichever of the two comes first, the copied guide reads the copied model and leaves the first pair alone."""
    model, guide, x = on_burda()
    for index in (0, 1):
        copies = deepcopy((model, guide) if index == 0 else (guide, model))
        other = copies[1 - index]
        assert other.model is copies[index] and other.model is not model
        with torch.no_grad():
            other.model.conditionals[0].head.bias.add_(5.0)
        replayed = [poutine.trace(poutine.replay(g, trace=poutine.trace(guide).get_trace(x))) for g in (guide, other)]
        pyro.set_rng_seed(1)
        means = [t.get_trace(x).nodes["z2"]["fn"].mean for t in replayed]
        assert not torch.allclose(*means)


def test_state_dict_rebuilds_it():
    model, a, x = on_burda("residual")
    b = Ladder(latents(model, x), MLP(9, 16), model, "residual")
    b.load_state_dict(a.state_dict())
    found = []
    for guide in (a, b):
        pyro.set_rng_seed(1)
        found.append(guide(x))
    assert list(found[0]) == ["z3", "z2", "z1"] and all(torch.equal(found[0][n], found[1][n]) for n in found[0])


@MERGES
@FAMILIES
def test_sites_of_any_rank_and_data_that_are_observed_between_them(merge, family):
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(a.sum(-2), 1.0).to_event(1), obs=x)
            b = pyro.sample("b", dist.Normal(a.sum((-1, -2)), 0.5))
            pyro.sample("y", dist.Normal(b, 1.0), obs=x[:, 0])

    x = torch.randn(5, 3)
    guide = Ladder(latents(model, x), MLP(3, 8), model, merge, family)
    trace = poutine.trace(guide).get_trace(x)
    assert "x" not in trace.nodes and trace.nodes["a"]["value"].shape == (5, 2, 3)
    assert trace.nodes["b"]["value"].shape == (5,)
    p, q = dist.Normal(torch.zeros(2, 3), 1.0).to_event(2), trace.nodes["a"]["fn"]
    assert family is FullRankNormal or kl_divergence(q, p.expand([5])).shape == (5,)
    assert log_weights(model, guide, x, num_particles=4).shape == (4, 5)


def test_a_subsampled_plate_scales_the_guide_like_the_model():
    def model(x):
        with pyro.plate("data", 400, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat_interleave(2, -1), 1.0).to_event(1), obs=x)

    x = torch.randn(5, 4)
    guide = Ladder(latents(model, x), MLP(4, 8), model)
    assert poutine.trace(guide).get_trace(x).nodes["z"]["scale"] == 80.0
    assert check(model, guide, ELBO(analytic_kl=True), x) == {"z": "analytic"}


def test_what_it_cannot_merge_is_refused():
    model, guide, x = on_burda()
    spec = latents(model, x)
    with pytest.raises(ValueError, match="merge must be one of precision, residual, got 'sum'"):
        Ladder(spec, MLP(9, 16), model, merge="sum")
    with pytest.raises(TypeError, match="model must be the Pyro program .* got str"):
        Ladder(spec, MLP(9, 16), "precision")
    with pytest.raises(ValueError, match="'z' has support .* order='top_down'"):
        Ladder({"z": Latent(torch.Size([2]), constraints.simplex)}, MLP(9, 16), model)
    with pytest.raises(ValueError, match="cannot merge; use DiagonalNormal or FullRankNormal"):
        Ladder(spec, MLP(9, 16), model, family=InverseAutoregressiveNormal)(x)
    with pytest.raises(ValueError, match="first argument is None"):
        guide(None)
    assert not pyro.poutine.runtime._PYRO_STACK


def test_a_prior_that_is_not_gaussian_is_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.StudentT(3.0, torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.randn(5, 4)
    with pytest.raises(ValueError, match="'z' is StudentT in the model"):
        Ladder(latents(model, x), MLP(4, 8), model)(x)


def test_a_function_with_parameters_of_its_own_is_refused():
    def model(x):
        loc = pyro.param("loc", torch.zeros(4))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.randn(5, 4)
    with pytest.raises(TypeError, match="declares the parameter 'loc'.*write the model as a PyroModule"):
        Ladder(latents(model, x), MLP(4, 8), model)(x)


def test_arguments_in_another_order_are_told_the_right_one():
    model = burda(4, (3, 2), (4, 4))
    spec, encoder = latents(model, torch.zeros(5, 4)), MLP(4, 8)
    for wrong, got in (((model, spec, encoder), "HVAE, dict, MLP"), ((spec, model, encoder), "dict, HVAE, MLP")):
        with pytest.raises(TypeError, match=f"in this order, got {got}; write Ladder\\(latents\\(model, x\\), encoder"):
            Ladder(*wrong)
