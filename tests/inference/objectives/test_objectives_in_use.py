"""Objectives with what programs do besides: flags, schedules, constrained parameters, factors, copies."""

from __future__ import annotations

import copy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from switched import SGD, XS, Guide, Layers, Model, climbed
from torch import nn

from dlvm.inference import (
    CUBO,
    ELBO,
    IWAE,
    MAP,
    MIWAE,
    NVIL,
    RWS,
    STL,
    SVI,
    VIMCO,
    DReG,
    ScoreFunction,
    Separate,
    WakeSleep,
    check,
    evaluate,
    fit,
    linear,
    tempered,
)
from dlvm.inference.programs.pair import Pair
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")


class Switches(PyroModule):
    """Three binary latents and a Gaussian x; as model or as guide."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name
        self.weight = nn.Parameter(torch.tensor([[1.0, -0.5], [0.3, 0.8], [-0.6, 0.4]]))

    def forward(self, x):
        logits = torch.zeros(3) if self.name == "model" else x @ self.weight.T
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))
            if self.name == "model":
                pyro.sample("x", dist.Normal(z @ self.weight, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("turn", ["argument", "bool", "str"])
def test_the_proof_of_an_analytic_kl_is_made_anew_when_a_flag_turns_the_order(turn):
    model, guide, objective = Layers("model"), Layers("guide"), ELBO(analytic_kl=True)
    assert check(model, guide, objective, XS) == {"z2": "analytic", "z1": "analytic"}
    if turn == "bool":
        guide.up = True
    elif turn == "str":
        guide.order = "bottom_up"
    flags = {"up": True} if turn == "argument" else {}
    assert check(model, guide, objective, XS, **flags) == {"z1": "Monte Carlo", "z2": "analytic"}
    guide.up, guide.order = False, "top_down"
    assert check(model, guide, objective, XS) == {"z2": "analytic", "z1": "analytic"}


def test_nesting_is_found_anew_for_data_of_another_number_of_dimensions():
    def program(x, observed):
        with pyro.plate("data", len(x), dim=-x.dim()):
            z = pyro.sample("z", dist.Normal(0.2, 1.0).expand([len(x)] + [1] * (x.dim() - 1)))
            if observed:
                with pyro.plate_stack("pixels", x.shape[1:]):
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def pair():
        return partial(program, observed=True), partial(program, observed=False)

    def loss(pair, x):
        pyro.set_rng_seed(1)
        return IWAE(3).loss(*pair, x)

    used = pair()
    for x in (XS[:, 0], XS, XS[:, 0]):
        assert loss(used, x) == loss(pair(), x)


def test_one_beta_tempers_an_automatic_guide_as_a_hand_made_one():
    model = Model()
    automatic = AutoNormal(model)
    automatic(XS)

    def by_hand(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(automatic.locs.z, automatic.scales.z).to_event(1))

    for objective in (tempered(ELBO(3), 0.5), tempered(ELBO(2), linear(0.2, 1.0, steps=9))):
        found, expected = (
            climbed(copy.deepcopy(objective), model, guide, XS, of=(model, automatic)) for guide in (automatic, by_hand)
        )
        assert_close(found, expected, 1e-12)
        assert not torch.equal(found, climbed(objective.objective, model, automatic, XS))


def test_a_guide_with_a_masked_site_goes_down_the_upper_bound():
    mask = torch.tensor([True, True, False, False])
    model, guide, objective = Model(mask), Guide(mask), CUBO(2.0, 4)
    particles = objective.draw(Pair(model, guide), (XS,), {})
    bound = objective.bound(particles.log_w).sum()
    expected = torch.autograd.grad(-bound, list(guide.parameters()), retain_graph=True)
    found = torch.autograd.grad(objective.surrogate(particles), list(guide.parameters()))
    for mine, direct in zip(found, expected, strict=True):
        assert direct.abs().max() > 0.1
        assert_close(mine, direct, 1e-12)


@pytest.mark.parametrize("estimator", [None, STL(), DReG(), VIMCO(everywhere=True)], ids=repr)
def test_apart_each_part_follows_its_own_bound(estimator):
    """theta is that of the model's bound alone at the same draws, phi that of the guide's."""
    model, guide = Model(), Guide()
    inner = MIWAE(2, 2, estimator)
    both = Separate(IWAE(4), inner)
    assert_close(climbed(both, model, guide, XS, of=[model]), climbed(IWAE(4), model, guide, XS, of=[model]), 1e-12)
    assert_close(climbed(both, model, guide, XS, of=[guide]), climbed(inner, model, guide, XS, of=[guide]), 1e-12)
    pyro.set_rng_seed(3)
    mine = both.loss(model, guide, XS)
    pyro.set_rng_seed(3)
    assert mine == IWAE(4).loss(model, guide, XS)


def test_one_schedule_of_two_sites_moves_once_a_step():
    beta, model, guide = linear(0.0, 1.0, steps=10), Layers("model"), Layers("guide")
    shared, single = tempered(ELBO(), {"z1": beta, "z2": beta}), tempered(ELBO(), linear(0.0, 1.0, steps=10))
    for _ in range(3):
        assert torch.equal(climbed(shared, model, guide, XS), climbed(single, model, guide, XS))
    assert beta.step == 3


def test_patience_waits_for_the_warm_up_to_end():
    """Nothing moves, so that no epoch after the first is better: 2 of them end a run, 12 steps of warm-up apart."""

    def epochs(objective):
        still = partial(torch.optim.SGD, lr=0.0)
        run = partial(fit, epochs=30, patience=2, optimizer=still, progress=False, engine="eager")
        return len(list(run(Model(), Guide(), objective, [(XS,)] * 2, [(XS,)])))

    assert epochs(ELBO()) == 3
    assert epochs(tempered(ELBO(), linear(0.0, 1.0, steps=12))) == 7


def test_a_prior_on_a_constrained_parameter_is_at_its_constrained_value():
    model, guide, prior = Model(), Guide(), dist.Normal(2.0, 0.5)
    plain = climbed(ELBO(), model, guide, XS, of=[model])
    objective = MAP(ELBO(), {"noise": prior}, num_data=8)
    assert_close(objective.aid.log_prior(model), prior.log_prob(torch.tensor(1.5)), 1e-12)
    added = climbed(objective, model, guide, XS, of=[model]) - plain
    names = [name for name, _ in model.named_parameters()]
    slope = (2.0 - 1.5) / 0.5**2 * 1.5  # noise = exp(unconstrained), and 4 of 8 data
    assert names == ["weight", "noise_unconstrained"]
    assert_close(added, [0.0] * 4 + [slope / 2], 1e-12)
    check(model, guide, MAP(ELBO(), {"noise": dist.Gamma(2.0, 2.0)}, 8), XS)


def test_a_copy_of_an_objective_trains_its_own_baseline_in_stock_svi():
    original = IWAE(3, ScoreFunction(NVIL(MLP(2, 4, 1))))
    model, guide = Switches("model"), Switches("guide")
    for mine, other in ((original, copy.deepcopy(original)), (copy.deepcopy(original), original)):
        before = [[p.clone() for p in objective.parameters()] for objective in (mine, other)]
        pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), mine).step(XS)
        moved, still = (
            [not torch.equal(p, q) for p, q in zip(objective.parameters(), start, strict=True)]
            for objective, start in zip((mine, other), before, strict=True)
        )
        assert any(moved) and not any(still)


def test_the_gradient_norm_and_its_clipping_leave_the_baseline_out():
    model, guide, objective = Switches("model"), Switches("guide"), IWAE(3, ScoreFunction(NVIL(MLP(2, 4, 1))))
    parts = (model, guide, objective)
    expected = [climbed(copy.deepcopy(objective), model, guide, XS, of=parts[:2])]
    again = copy.deepcopy(objective)
    expected.append(climbed(again, model, guide, XS, of=[again]))
    before = [torch.cat([p.detach().flatten() for p in part]) for part in _parameters(parts)]
    svi = SVI(model, guide, SGD, objective, clip_norm=0.01, engine="eager")
    pyro.set_rng_seed(3)
    svi.step(XS)
    after = [torch.cat([p.detach().flatten() for p in part]) for part in _parameters(parts)]
    norm = expected[0].norm()
    assert norm > 0.1 and expected[1].norm() > 0.1
    assert_close(svi.grad_norm, norm, 1e-10)
    assert_close(after[0] - before[0], 0.01 * expected[0] / norm, 1e-12)
    assert_close(after[1] - before[1], expected[1], 1e-12)


def _parameters(parts):
    *programs, objective = parts
    return [p for part in programs for p in part.parameters()], list(objective.parameters())


@pytest.mark.slow
def test_a_beta_that_its_owner_changes_in_place_is_followed_by_a_captured_step():
    def trained(engine, betas):
        beta, model, guide = torch.tensor(0.0), Model(), Guide()
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.05), tempered(IWAE(3), beta), engine=engine)
        pyro.set_rng_seed(1)
        losses = []
        for number in betas:
            beta.fill_(number)
            losses.append(svi.step(XS))
        assert svi.running == engine
        return losses, [*model.parameters(), *guide.parameters()]

    rising = [step / 10 for step in range(10)]
    (losses, found), (expected_losses, expected) = (trained(engine, rising) for engine in ("captured", "eager"))
    assert losses == expected_losses
    assert all(map(torch.equal, found, expected))
    assert losses[:2] == trained("captured", [0.0] * 10)[0][:2]
    assert losses[2:] != trained("captured", [0.0] * 10)[0][2:]


@pytest.mark.parametrize("objective", [WakeSleep(2), RWS(3, sleep=1.0)], ids=repr)
def test_dreams_leave_factors_of_the_model_out(objective):
    guide = Guide()
    model, plain = Model(factor=True), Model()
    assert check(model, guide, objective, XS) == {"z": "Monte Carlo"}
    found = climbed(objective, model, guide, XS, of=[guide])
    assert found.norm() > 0.1
    assert torch.equal(found, climbed(objective, plain, guide, XS, of=[guide]))


def test_a_warm_up_goes_on_in_a_copy_and_from_a_saved_state():
    model, guide, objective = Model(), Guide(), tempered(IWAE(3), linear(0.1, 1.0, steps=5))
    for _ in range(3):
        climbed(objective, model, guide, XS)
    twin, loaded = copy.deepcopy(objective), tempered(IWAE(3), linear(0.1, 1.0, steps=5))
    fresh = climbed(copy.deepcopy(loaded), model, guide, XS)
    loaded.load_state_dict(objective.state_dict())
    expected = climbed(objective, model, guide, XS)
    assert not torch.equal(expected, fresh)
    for other in (twin, loaded):
        assert torch.equal(climbed(other, model, guide, XS), expected)
    climbed(twin, model, guide, XS)
    assert [o.aid.betas[0].step.item() for o in (objective, twin, loaded)] == [4, 5, 4]


def test_active_units_of_an_automatic_guide_are_those_of_the_model():
    """Two, although the guide draws its own site beside the model's."""
    model = Model()
    guide = AutoNormal(model, init_scale=0.01)
    guide(XS)
    with torch.no_grad():
        next(guide.parameters()).copy_(XS)
    assert evaluate(model, guide, XS, num_particles=30).active_units == 2
