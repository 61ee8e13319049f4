"""The VampPrior against the aggregate posterior, by hand, and as trained, written down and read with its guide."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import pyro
import pyro.infer
import pytest
import torch
from oracles import assert_close
from torch.distributions import constraints

from dlvm.distributions import Bernoulli, Binary, DiagonalNormal, FixedInputs, LearnedInputs, VampPrior
from dlvm.evidence.decomposition.aggregate import aggregated
from dlvm.guides import IAF, Chain, Diagonal, FullRank, Joint, RealNVP, latents, posterior_of
from dlvm.inference import ELBO, IWAE, RWS, STL, SVI, check, evaluate, fit, load, save
from dlvm.inference.programs.pair import Pair
from dlvm.models import HVAE, VAE, burda
from dlvm.nets import MLP

X = (torch.rand(30, 6) < 0.4).float()


def pair(guide=Diagonal, inputs=None, z_dim=2):
    pyro.set_rng_seed(0)
    model = VAE(z_dim, Bernoulli(MLP(z_dim, 8, 6)))
    guide = guide(latents(model, X), MLP(6, 8))
    model.prior = VampPrior(posterior_of(guide, "z"), LearnedInputs(X[:4]) if inputs is None else inputs)
    return model, guide


@pytest.mark.parametrize("guide", [Diagonal, FullRank, RealNVP, partial(IAF, depth=1, width=(8,))])
def test_with_all_data_as_pseudo_inputs_it_is_the_aggregate_posterior(guide):
    """log p(z) at draws of q(z), beside log q(z) as the decomposition of the bound has it."""
    model, guide = pair(guide, FixedInputs(X))
    found = aggregated(Pair(model, guide), (X,), len(X), 60, lambda done: None)
    assert found.reason == ""
    assert_close(found.draws.log_p, found.mixture, 1e-4)


def test_its_density_is_a_mean_of_the_posteriors():
    model, guide = pair(inputs=FixedInputs(X[:3]))
    z = torch.randn(7, 2)
    q = [posterior_of(guide, "z")(x[None]).log_prob(z) for x in X[:3]]
    assert_close(model.prior().log_prob(z), torch.stack(q).logsumexp(0) - math.log(3), 1e-6)
    assert model.prior().expand((5,)).sample().shape == (5, 2)
    assert model.prior().support is constraints.real_vector


def gradient(model, guide, objective=None):
    parameters = [*guide.encoder.parameters(), *guide.posteriors.parameters()]
    pyro.set_rng_seed(1)
    loss = (objective or ELBO(num_particles=3)).differentiable_loss(*Pair(model, guide).programs, X[:9])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def test_the_encoder_learns_from_both_sides():
    """The gradient of its two uses is the sum of those with a copy of the encoder in the place of either."""
    model, guide = pair()
    whole = gradient(model, guide)
    own = model.prior
    model.prior = deepcopy(own)  # with a copy of what it reads
    of_guide = gradient(model, guide)
    model.prior = own
    copy = deepcopy(guide)
    pyro.set_rng_seed(1)
    loss = ELBO(num_particles=3).differentiable_loss(*Pair(model, copy).programs, X[:9])
    parameters = [*guide.encoder.parameters(), *guide.posteriors.parameters()]
    of_prior = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    assert_close(whole, of_guide + of_prior, 1e-4)
    assert of_prior.norm() > 0.01 * whole.norm() and of_guide.norm() > 0.01 * whole.norm()


def test_an_estimator_that_detaches_q_leaves_the_prior_its_gradient():
    pyro.set_rng_seed(0)
    model, guide = pair()
    total, detached = (gradient(model, guide, ELBO(num_particles=20000, estimator=e)) for e in (None, STL()))
    assert (total - detached).norm() < 0.1 * total.norm()


@pytest.mark.parametrize("objective", [ELBO(), ELBO(analytic_kl=True), IWAE(3), RWS(3)], ids=repr)
def test_objectives_take_it_and_every_parameter_is_trained_once(objective):
    model, guide = pair()
    assert check(model, guide, objective, X) == {"z": "Monte Carlo"}
    names = {id(p) for p in (*model.parameters(), *guide.parameters())}
    assert len(names) == len([*model.parameters()]) + len([*guide.parameters()])
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.01), objective, engine="captured")
    for _ in range(3):
        svi.step(X)
    after = [*model.parameters(), *guide.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_captured_steps_and_those_of_stock_pyro_are_the_eager_ones():
    losses = {}
    for engine in ("eager", "captured", "stock"):
        pyro.clear_param_store()
        model, guide = pair()
        adam = partial(torch.optim.Adam, lr=0.01)
        if engine == "stock":
            svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
        else:
            svi = SVI(model, guide, adam, ELBO(), engine=engine)
        pyro.set_rng_seed(2)
        losses[engine] = [svi.step(X) for _ in range(5)]
        trained = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
        losses[engine] += [torch.cat([p.flatten() for p in trained])]
    pyro.clear_param_store()
    assert losses["eager"][:5] == losses["captured"][:5] and torch.equal(losses["eager"][5], losses["captured"][5])
    assert_close(torch.tensor(losses["stock"][:5]), torch.tensor(losses["eager"][:5]), 1e-3)
    assert_close(losses["stock"][5], losses["eager"][5], 1e-5)


def test_what_is_read_again_is_one_pair_still(tmp_path):
    model, guide = pair()
    save(tmp_path, model, guide, X)
    again, its_guide = load(tmp_path)
    with torch.no_grad():
        its_guide.encoder.layers[0].bias += 1.0
        guide.encoder.layers[0].bias += 1.0
    z = torch.randn(5, 2)
    assert torch.equal(again.prior().log_prob(z), model.prior().log_prob(z))
    assert evaluate(again, its_guide, [(X,)], num_particles=20, seed=0).log_px == pytest.approx(
        evaluate(model, guide, [(X,)], num_particles=20, seed=0).log_px
    )


def test_a_run_that_was_interrupted_goes_on_bit_for_bit(tmp_path):
    """Two epochs at once, and one, then another in a fresh pair from the checkpoint."""
    settings = {"seed": 3, "progress": False, "patience": None}

    def run(folder, epochs, stop=None):
        model, guide = pair()
        for i, _ in enumerate(fit(model, guide, ELBO(), [(X,)], **settings, epochs=epochs, checkpoint=folder)):
            if i + 1 == stop:
                break
        return torch.cat([p.detach().flatten() for p in (*model.parameters(), *guide.parameters())])

    whole = run(tmp_path / "a", 2)
    run(tmp_path / "b", 2, stop=1)
    assert torch.equal(run(tmp_path / "b", 2), whole)


def test_the_top_of_a_hierarchy_has_one_as_well():
    model = burda(6, (4, 2), (8, 8))
    assert isinstance(model, HVAE)
    guide = Diagonal(latents(model, X), MLP(6, 8))
    model.prior = VampPrior(posterior_of(guide, "z2"), LearnedInputs(X[:4], constraints.unit_interval))
    assert check(model, guide, ELBO(analytic_kl=True), X) == {"z2": "Monte Carlo", "z1": "analytic"}
    with pytest.raises(ValueError, match="site 'z1' is inferred from z2 besides x.*independent"):
        posterior_of(guide, "z1")
    with pytest.raises(TypeError, match="guide must draw each site .* Joint does not"):
        posterior_of(Joint(latents(model, X), MLP(6, 8)), "joint")
    with pytest.raises(ValueError, match="inferred from z1 besides x"):
        posterior_of(Chain(latents(model, X), MLP(6, 8)), "z2")
    with pytest.raises(ValueError, match="site must be one of z2, z1, got 'z'"):
        posterior_of(guide, "z")


@pytest.mark.parametrize("support", [constraints.real, constraints.positive, constraints.unit_interval], ids=repr)
def test_learned_inputs_start_at_the_data_and_stay_in_their_support(support):
    start = X[:5] * 0.9 + 0.05
    inputs = LearnedInputs(start, support)
    assert_close(inputs(), start, 1e-5)
    inputs().sum().backward()
    assert (inputs.values.grad != 0).all()
    with torch.no_grad():
        inputs.values.add_(-5.0)
    assert bool(support.check(inputs()).all()) and not torch.equal(inputs(), start)


def test_a_module_of_ones_own_is_owned_and_trained():
    q = DiagonalNormal(MLP(6, 8), 2)
    prior = VampPrior(q, FixedInputs(X[:4]))
    assert {id(p) for p in q.parameters()} == {id(p) for p in prior.parameters()}
    with pytest.raises(ValueError, match="one distribution for each of 4 pseudo-inputs, got batch shape \\(4, 2\\)"):
        VampPrior(Binary(MLP(6, 2), event_dim=0), FixedInputs(X[:4]))
