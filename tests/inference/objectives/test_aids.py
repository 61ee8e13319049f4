"""Aids change the gradient as their formulas say, and never what is reported."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, TWO_LAYER, X_1, assert_close, gauss_hermite
from oracles.forcing import Forced
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.distributions import kl_divergence

from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import ELBO, IWAE, MAP, STL, DReG, capacity, check, free_bits, linear, tempered, total_correlation
from dlvm.inference.programs.pair import Pair
from dlvm.models import PPCA
from dlvm.nets import MLP

XS = torch.stack([X_1, -X_1, X_1 + 1])
STANDARD = partial(dist.Normal, 0.0, 1.0)
PLAIN = {
    "tempered": lambda o: tempered(o, 1.0),
    "tempered by site": lambda o: tempered(o, {"z": 1}),
    "total_correlation": lambda o: total_correlation(o, 1.0),
    "free_bits": lambda o: free_bits(o, 0.0),
}
AIDED = {
    "tempered": lambda: tempered(ELBO(2), 0.3),
    "warm-up": lambda: tempered(IWAE(3), linear(0.0, 1.0, steps=5)),
    "free_bits": lambda: free_bits(ELBO(2), 0.4, groups=2),
    "capacity": lambda: capacity(ELBO(2), linear(0.0, 2.0, steps=5), gamma=3.0),
    "total_correlation": lambda: total_correlation(ELBO(2), 4.0),
    "MAP": lambda: MAP(IWAE(3), STANDARD(), num_data=30),
    "MAP of tempered": lambda: MAP(tempered(ELBO(2), 0.3), STANDARD(), num_data=30),
}
INNER = {"tempered": ELBO(2), "warm-up": IWAE(3), "MAP": IWAE(3)}


def build(Guide=Diagonal, dtype=torch.float64):
    pyro.set_rng_seed(1)
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5).to(dtype)
    guide = Guide(latents(model, XS.to(dtype)), MLP(4, 3, activation=nn.Tanh)).to(dtype)
    return model, guide, [*model.parameters(), *guide.parameters()]


def gradient(objective, model, guide, xs, parameters, seed=2):
    pyro.set_rng_seed(seed)
    loss = objective.differentiable_loss(model, guide, xs)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss.item(), [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("Guide", [Diagonal, FullRank, IAF])
@pytest.mark.parametrize("objective", [ELBO(3), ELBO(2, analytic_kl=True), IWAE(3), IWAE(2, DReG())], ids=repr)
def test_an_aid_that_changes_nothing_is_the_bound_bit_for_bit(name, Guide, objective):
    if (name == "free_bits" and not isinstance(objective, ELBO)) or (name[:5] == "total" and Guide is not Diagonal):
        return
    model, guide, parameters = build(Guide, torch.float32)
    plain = gradient(objective, model, guide, XS.float(), parameters)
    aided = gradient(PLAIN[name](objective), model, guide, XS.float(), parameters)
    assert plain[0] == aided[0]
    assert all(torch.equal(a, b) for a, b in zip(plain[1], aided[1], strict=True))


@pytest.mark.parametrize("name", AIDED)
def test_what_is_reported_is_the_bound_without_the_aid(name):
    model, guide, parameters = build()
    plain, without = gradient(INNER.get(name, ELBO(2)), model, guide, XS, parameters)
    aided = AIDED[name]()
    value, with_aid = gradient(aided, model, guide, XS, parameters)
    assert value == plain
    assert max((a - b).abs().max() for a, b in zip(with_aid, without, strict=True)) > 1e-3
    for run in (aided.loss, aided.loss_and_grads, lambda *args: aided(*args[:2])(args[2]).item()):
        pyro.set_rng_seed(2)
        assert run(model, guide, XS) == plain
    assert aided.bound.side == "lower"


def exact(objective, model, guide, oracle_noise=3):
    """The expected gradient, by Gauss-Hermite over the two latent dimensions: exact for a linear-Gaussian pair."""
    nodes, log_weight = gauss_hermite(oracle_noise, 2)
    rows, weight = XS.repeat_interleave(len(nodes), 0), log_weight.exp().repeat(len(XS))
    noise = nodes.repeat(len(XS), 1)
    programs = [poutine.scale(program, scale=weight) for program in (model, Forced({}, {"z": noise})(guide))]
    loss = objective.differentiable_loss(*programs, rows)
    return torch.autograd.grad(loss, list(guide.parameters()))


def parts(model, guide):
    """E_q log p(x | z) and the KL of each dimension, in closed form, for the data XS: (n,) and (n, 2)."""
    q = poutine.trace(guide).get_trace(XS).nodes["z"]["fn"].base_dist
    spread = (q.variance.unsqueeze(-2) * model.weight.square()).sum((-1, -2))
    error = (XS - model.loc - q.loc @ model.weight.T).square().sum(-1) + spread
    likelihood = -0.5 * (4 * torch.log(2 * torch.pi * model.scale**2) + error / model.scale**2)
    return likelihood, kl_divergence(q, torch.distributions.Normal(torch.zeros(2).to(q.loc), 1.0))


FORMULAS = {
    "tempered": (lambda o: tempered(o, 0.3), lambda lik, kl: lik.sum() - 0.3 * kl.sum()),
    "by site": (lambda o: tempered(o, {"z": 2.5}), lambda lik, kl: lik.sum() - 2.5 * kl.sum()),
    "free bits of the site": (
        lambda o: free_bits(o, 0.9),
        lambda lik, kl: lik.sum() - 3 * kl.sum(1).mean().clamp(min=0.9),
    ),
    "free bits of dimensions": (
        lambda o: free_bits(o, {"z": 0.4}, groups={"z": 2}),
        lambda lik, kl: lik.sum() - 3 * kl.mean(0).clamp(min=0.4).sum(),
    ),
    "capacity": (
        lambda o: capacity(o, 0.7, gamma=5.0),
        lambda lik, kl: lik.sum() - 15 * (kl.sum(1).mean() - 0.7).abs(),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.usefixtures("float64")
def test_the_gradient_is_that_of_the_formula(name, analytic):
    model, guide, _ = build()
    aid, formula = FORMULAS[name]
    wanted = torch.autograd.grad(-formula(*parts(model, guide)), list(guide.parameters()))
    found = exact(aid(ELBO(analytic_kl=analytic)), model, guide)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-9)


@pytest.mark.usefixtures("float64")
def test_estimators_agree_on_the_tempered_elbo():
    """STL takes away a score whose mean is zero at any temperature."""
    model, guide, _ = build()
    plain, path = (exact(tempered(ELBO(1, e), 0.3), model, guide, 9) for e in (None, STL()))
    for a, b in zip(plain, path, strict=True):
        assert_close(a, b, 1e-9)


@pytest.mark.usefixtures("float64")
def test_free_dimensions_get_a_gradient_of_exactly_zero():
    """With a likelihood that ignores z, all that is left for the guide is the KL; it is averaged over the batch."""
    model, guide, _ = build()
    nn.init.zeros_(model.weight)
    _, kl = parts(model, guide)
    low, high = kl.mean(0).argmin(), kl.mean(0).argmax()
    between = kl.mean(0).mean().item()
    fn = poutine.trace(guide).get_trace(XS).nodes["z"]["fn"].base_dist
    pyro.set_rng_seed(0)
    objective = free_bits(ELBO(analytic_kl=True), between, groups=2)
    head = guide.posteriors[0].head
    found = torch.autograd.grad(objective.differentiable_loss(model, guide, XS), head.bias)[0].view(2, 2)
    assert torch.equal(found[:, low], torch.zeros(2))
    assert_close(found[0, high], fn.loc[:, high].sum(), 1e-9)


@pytest.mark.usefixtures("float64")
def test_capacity_pushes_the_rate_up_below_and_down_above():
    model, guide, _ = build()
    nn.init.zeros_(model.weight)
    rate = parts(model, guide)[1].sum(1).mean().item()
    bias = guide.posteriors[0].head.bias
    below, above, kl = (
        torch.autograd.grad(o.differentiable_loss(model, guide, XS), bias)[0]
        for o in (
            capacity(ELBO(analytic_kl=True), rate + 1, gamma=2.0),
            capacity(ELBO(analytic_kl=True), max(rate - 1, 0), gamma=2.0),
            ELBO(analytic_kl=True),
        )
    )
    assert_close(below, -2 * kl, 1e-9)
    assert_close(above, 2 * kl, 1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_particles", [1, 3])
def test_total_correlation_is_the_double_sum(num_particles):
    model, guide, _ = build()
    objective = total_correlation(ELBO(num_particles), 3.0)
    bias = guide.posteriors[0].head.bias

    def by_hand():
        particles = ELBO(num_particles).draw(Pair(model, guide), (XS,), {})
        q, z = particles.drawn[0]["fn"].base_dist, particles.drawn[0]["value"].reshape(num_particles, 3, 2)
        loc, scale = (v.expand(num_particles, 3, 2)[0] for v in (q.loc, q.scale))
        total = 0.0
        for k in range(num_particles):
            for i in range(3):
                each = torch.stack([dist.Normal(loc[j], scale[j]).log_prob(z[k, i]) for j in range(3)])
                total = total + each.sum(1).logsumexp(0) - each.logsumexp(0).sum()
        return -particles.total(ELBO(num_particles).value(particles)) + 2.0 * total / num_particles

    pyro.set_rng_seed(4)
    wanted = torch.autograd.grad(by_hand(), bias)[0]
    pyro.set_rng_seed(4)
    assert_close(torch.autograd.grad(objective.differentiable_loss(model, guide, XS), bias)[0], wanted, 1e-9)


def test_a_schedule_moves_with_gradients_alone():
    model, guide, _ = build()
    objective = tempered(ELBO(), linear(0.0, 1.0, steps=10))
    step = objective.aid.betas[0].step
    objective.loss(model, guide, XS)
    check(model, guide, objective, XS)
    assert step == 0
    objective.loss_and_grads(model, guide, XS)
    objective.differentiable_loss(model, guide, XS)
    assert step == 2 and dict(objective.named_buffers())["aid.betas.0.step"] is step


@pytest.mark.usefixtures("float64")
def test_sites_have_temperatures_of_their_own():
    """In a hierarchy of two layers, against log-densities by hand."""
    up, down = TWO_LAYER.upper, TWO_LAYER.lower

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ up.T, 0.6).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ down.T, 0.5).to_event(1), obs=x)

    guide = Diagonal(latents(model, XS), MLP(4, 3)).double()
    pyro.set_rng_seed(2)
    particles = ELBO(2).draw(Pair(model, guide), (XS,), {})
    ratio = {name: term.ratio for name, term in particles.terms.items()}
    by_hand = particles.total((particles.log_likelihood - 0.2 * ratio["z1"] - 3.0 * ratio["z2"]).mean(0))
    wanted = torch.autograd.grad(-by_hand, list(guide.parameters()))
    found = gradient(tempered(ELBO(2), {"z2": 3.0, "z1": 0.2}), model, guide, XS, list(guide.parameters()))[1]
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-10)
    with pytest.raises(ValueError, match=r"beta names \['z3'\], but the latent sites are \['z2', 'z1'\]"):
        check(model, guide, tempered(ELBO(), {"z3": 1.0}), XS)
    with pytest.raises(ValueError, match="needs a site, since there are several"):
        check(model, guide, total_correlation(ELBO(), 2.0), XS)


def test_pyros_elbos_are_taken_as_ours():
    model, guide, _ = build()
    pairs = (Trace_ELBO(3), "estimator=ScoreFunction()"), (TraceMeanField_ELBO(2), "analytic_kl=True")
    for pyros, words in pairs:
        aided = tempered(pyros, 0.5)
        assert words in repr(aided) and aided.num_particles == pyros.num_particles
        assert set(check(model, guide, aided, XS).values()) <= {"analytic", "Monte Carlo"}
