"""REBAR: its mean over every draw and all noise is the enumerated gradient; what it fits, covers, and refuses."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.discrete_programs import PROGRAMS, errors
from oracles.every_noise import layers_of_classes, mean_gradient, one_bit, one_class
from oracles.forcing import gradient
from pyro import poutine

from dlvm.inference import CUBO, ELBO, IWAE, REBAR, SVI, TVO, Renyi, ScoreFunction, VRMax, tempered
from dlvm.inference.estimators import soft_draws
from dlvm.inference.estimators.coupled import Given

pytestmark = pytest.mark.usefixtures("float64")
BOUNDS = {
    "ELBO": partial(ELBO, 2),
    "IWAE": partial(IWAE, 2),
    "Renyi(-1)": partial(Renyi, -1.0, 2),
    "VRMax": partial(VRMax, 2),
    "TVO": partial(TVO, 2, 3, 0.2),
    "ELBO(1)": partial(ELBO, 1),
}
RELAXED = ("one_site", "two_sites", "two_layers", "mixed", "mixed_below")


def used(estimator: REBAR, eta: float) -> REBAR:
    estimator.shared.fill_(eta)
    estimator.spread.fill_(1.0)
    return estimator


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("eta", [1.0, -0.6])
def test_the_mean_over_every_bit_and_all_its_noise_is_the_gradient_of_every_bound(monkeypatch, name, eta):
    lattice, parameters = one_bit()
    objective = BOUNDS[name](estimator=used(REBAR(0.5), eta))
    expected = gradient(lattice.expected(objective.bound, objective.num_particles), parameters)
    assert (expected != 0).sum() >= 4
    # the largest weight has a kink where two noises meet, which limits the quadrature
    tolerance = 2e-3 if name == "VRMax" else 1e-9
    assert_close(mean_gradient(monkeypatch, objective, lattice, parameters, 24), expected, tolerance)


def test_the_mean_over_every_class_and_all_its_noise_is_the_gradient(monkeypatch):
    lattice, parameters = one_class()
    objective = ELBO(1, used(REBAR(torch.tensor(0.8)), 0.7))
    expected = gradient(lattice.expected(objective.bound, 1), parameters)
    found = mean_gradient(monkeypatch, objective, lattice, parameters, 14)
    assert_close(found, expected, 2e-3 * expected.abs().max())


def test_a_tempered_bound_has_the_gradient_of_its_own_value(monkeypatch):
    lattice, parameters = one_bit()
    found = mean_gradient(monkeypatch, tempered(ELBO(1, REBAR(0.5)), 0.3), lattice, parameters, 24)
    exact = tempered(ELBO(1, ScoreFunction()), 0.3)
    value, mass = lattice.values["z"], None
    with poutine.block(), poutine.condition(data={"z": value}):
        trace = poutine.trace(lattice.guide).get_trace(lattice.x.expand(2, -1))
        trace.compute_log_prob()
        mass = trace.nodes["z"]["log_prob"].exp().detach()
    programs = (poutine.scale(program, scale=mass) for program in (lattice.model, lattice.guide))
    with Given({"z": value}):
        expected = -gradient(exact.differentiable_loss(*programs, lattice.x.expand(2, -1)), parameters)
    assert_close(found, expected, 1e-9)


@pytest.mark.parametrize("make", [PROGRAMS["mixed_below"], layers_of_classes], ids=lambda make: make.__name__)
def test_it_is_unbiased_for_layers_classes_and_sites_beside_continuous_ones(make):
    """Within its standard errors of the enumerated gradient, in every parameter of both programs."""
    found = errors(IWAE(2, REBAR(0.4)), *make(), rows=200, repeats=12)
    assert found.abs().max() < 5, found
    assert (found != 0).sum() > 6


@pytest.mark.slow
@pytest.mark.parametrize("make", [*map(PROGRAMS.get, RELAXED), layers_of_classes], ids=lambda make: make.__name__)
def test_it_is_unbiased_to_many_digits(make):
    lattice, parameters = make()
    fine = lattice._replace(nodes=max(lattice.nodes, 20))
    assert errors(ELBO(1, REBAR(0.4)), fine, parameters, rows=10_000, repeats=100).abs().max() < 4.5


def gradients(estimator, lattice, parameters, repeats=25):
    x = lattice.x.expand(100, -1)
    losses = (ELBO(1, estimator).differentiable_loss(lattice.model, lattice.guide, x) for _ in range(repeats))
    return torch.stack([gradient(loss, parameters[1:]) for loss in losses])


def test_eta_is_fitted_by_itself_and_the_noise_falls():
    lattice, parameters = PROGRAMS["one_site"]()
    pyro.set_rng_seed(0)
    fitted = REBAR(torch.tensor(0.4))
    gradients(fitted, lattice, parameters, 10)
    assert 0.3 < fitted.eta < 1.2 and fitted.eta != 1
    held = {eta: used(REBAR(torch.tensor(0.4), decay=0.999999), eta) for eta in (0.0, 2 * fitted.eta.item())}
    least = gradients(fitted, lattice, parameters).var(0).sum()
    assert all(gradients(other, lattice, parameters).var(0).sum() > 1.5 * least for other in held.values())
    assert all(abs(other.eta.item() - eta) < 0.01 for eta, other in held.items())


def test_the_temperature_follows_the_gradient_of_the_variance(monkeypatch):
    """Its derivative is that of the squared gradient in logits, here by finite differences under the same noise."""
    x, logits = torch.zeros(1, 1), torch.tensor([[0.4, -1.1]], requires_grad=True)

    def model(x):
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Bernoulli(logits=torch.tensor([0.2, 0.1])).to_event(1))
            pyro.sample("x", dist.Normal((z * torch.tensor([1.0, -2.0])).sum(-1, True).exp(), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 1):
            pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    u = torch.tensor([[[0.3, 0.8]]])
    monkeypatch.setattr(soft_draws, "_uniform", lambda shape, like: u.reshape(shape))

    def found(temperature):
        estimator = REBAR(temperature)
        with Given({"z": torch.tensor([[1.0, 0.0]])}):
            loss = ELBO(1, estimator).differentiable_loss(model, guide, x)
        return torch.autograd.grad(loss, [logits, estimator.log_temperature])

    step = 1e-4
    above, below = (found(0.5 * math.exp(sign * step))[0].square().sum() for sign in (1, -1))
    slope = found(0.5)[1]
    assert slope.abs() > 0.05
    assert_close(slope, (above - below) / (2 * step), 1e-4 * slope.abs().item())


def test_a_temperature_that_is_given_as_a_tensor_stays():
    given = torch.tensor(0.7)
    assert REBAR(given).temperature is given and not list(REBAR(given).parameters())
    (learned,) = REBAR(0.7).parameters()
    assert_close(learned.exp(), 0.7, 1e-6)
    assert repr(REBAR(0.7)) == repr(REBAR(given)) == "REBAR(temperature=0.7, decay=0.99)"


def test_rows_scales_and_masks_count_as_often_as_their_data(monkeypatch):
    """One row at a time, with what it draws; a scale, a subsampled plate and a mask change its share alone."""
    logits, slope = torch.tensor([0.4, -0.8], requires_grad=True), torch.tensor([1.2, -0.5], requires_grad=True)
    x = torch.tensor([[0.3], [-1.0], [0.8]])
    value, u = torch.rand(2, 3, 2).round(), torch.rand(2, 3, 2)

    def model(x, size=None):
        with pyro.plate("data", size or len(x), subsample_size=len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=slope).to_event(1))
            pyro.sample("x", dist.Normal((z * slope).sum(-1, True), 1.0).to_event(1), obs=x)

    def guide(x, size=None):
        with pyro.plate("data", size or len(x), subsample_size=len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits + x).to_event(1))

    def found(rows=slice(None), wrap=lambda program: program, **size):
        with pytest.MonkeyPatch.context() as patch, Given({"z": value[:, rows]}):
            patch.setattr(soft_draws, "_uniform", lambda shape, like: u[:, rows].reshape(shape))
            loss = IWAE(2, used(REBAR(0.5), 0.8)).differentiable_loss(wrap(model), wrap(guide), x[rows], **size)
            return gradient(loss, [logits, slope])

    single = torch.stack([found(slice(i, i + 1)) for i in range(3)])
    scale, kept = torch.tensor([2.0, 0.5, 3.0]), torch.tensor([True, False, True])
    assert (single.abs() > 1e-3).any(1).all()
    assert_close(found(), single.sum(0))
    assert_close(found(wrap=partial(poutine.scale, scale=scale), size=300), 100 * scale @ single)
    assert_close(found(wrap=partial(poutine.mask, mask=kept)), single[kept].sum(0))


def test_captured_steps_are_the_eager_ones():
    def run(engine):
        pyro.set_rng_seed(0)
        model, guide = Bits("model"), Bits("guide")
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.1), IWAE(2, REBAR(0.5)), engine=engine)
        losses = [svi.step(torch.eye(3)[:2]) for _ in range(4)]
        fitted = svi.objective.estimator
        return torch.tensor([*losses, fitted.eta.item(), fitted.temperature.item()])

    eager = run("eager")
    assert torch.equal(run("captured"), eager)
    assert abs(eager[-1] - 0.5) > 1e-3 and eager[-2] != 1


class Bits(pyro.nn.PyroModule):
    """Either half of a pair with two bits."""

    def __init__(self, name):
        super().__init__(name)
        self.logits, self.weight = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.ones(2, 3))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            logits = self.logits if self._pyro_name == "model" else x @ self.weight.T - self.logits
            z = pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))
            if self._pyro_name == "model":
                pyro.sample("x", dist.Bernoulli(logits=z @ self.weight).to_event(1), obs=x)


def test_certain_bits_and_classes_leave_no_nan():
    logits = torch.tensor([[800.0, -800.0, 0.3]], requires_grad=True)
    classes = torch.tensor([[0.4, -torch.inf, 0.3]], requires_grad=True)

    def guide(x, seen=False):
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=classes))
            if seen:
                pyro.sample("x", dist.Normal((z + y).square().sum(-1), 1.0), obs=x)

    pyro.set_rng_seed(0)
    for _ in range(3):
        loss = ELBO(2, REBAR(0.5)).differentiable_loss(partial(guide, seen=True), guide, torch.zeros(1))
        found = gradient(loss, [logits, classes])
        assert loss.isfinite() and found.isfinite().all()
        assert torch.equal(found[[0, 1, 4]], torch.zeros(3)) and found[2] != 0


@pytest.mark.parametrize("word", ["argmax", "compared", "rounded", "smooth"])
def test_programs_that_jump_are_refused(word):
    """Their relaxation has no slope, by which all of the gradient would be taken off with the noise."""
    table = torch.tensor([0.5, -1.0, 2.0])

    def program(x, seen=False):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.OneHotCategorical(torch.ones(3)))
            y = pyro.sample("y", dist.Bernoulli(0.4 * torch.ones(2)).to_event(1))
            if seen:
                loc = table[z.argmax(-1)] if word == "argmax" else (z * table).sum(-1)
                wide = {"compared": torch.where(y > 0.5, 2.0, -1.0), "rounded": 3 * y.round()}.get(word, 3 * y)
                pyro.sample("x", dist.Normal(loc + wide.sum(-1).tanh(), 0.5), obs=x)

    pyro.set_rng_seed(0)
    run = partial(ELBO(2, REBAR()).loss, partial(program, seen=True), program, torch.zeros(20))
    if word == "smooth":
        run()
        return
    with pytest.raises(ValueError, match=r"jumps where soft draws of \['z', 'y'\] move, by .* pass estimator=DisARM"):
        run()


def test_refusals_in_words():
    def program(x, obs=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x) if obs else None

    with pytest.raises(ValueError, match=r"REBAR cannot relax 'y' \(Categorical\).*use OneHotCategorical for"):
        ELBO(2, REBAR()).loss(partial(program, obs=True), program, torch.zeros(2))
    with pytest.raises(ValueError, match=r"REBAR\(temperature=0.5, decay=0.99\) is not defined for CUBO; use Total"):
        CUBO(2, 3, REBAR())
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1, got 1"):
        REBAR(decay=1)
