"""Wake-sleep against the divergences it descends: exact sums over draws, closed forms, and where it comes to rest."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_2, GOLDEN_SBN, X_2, X_SBN, assert_close
from oracles.forcing import Lattice, golden_sbn, gradient
from torch import nn

from dlvm.inference import ELBO, IWAE, RWS, SVI, WakeSleep
from dlvm.models import PPCA

pytestmark = pytest.mark.usefixtures("float64")


def by_hand(lattice, k: int, parameters) -> torch.Tensor:
    """E sum_k w~_k d log q(z_k), from the weights alone: log q is what they hold of parameters that p has not."""
    _, _, log_w, mass = lattice.programs(k)
    return gradient(-(mass.detach() * log_w.detach().softmax(0) * log_w).sum(), parameters)


@pytest.mark.parametrize("k", [2, 3])
def test_the_wake_update_of_classes_is_exact(k):
    lattice, parameters = golden_sbn()
    found = lattice.expected_gradient(RWS(k), parameters)
    assert_close(found[-2:], by_hand(lattice, k, parameters[-1:]), 1e-12)
    assert_close(found[:-2], gradient(lattice.expected(IWAE(k).bound, k), parameters[:-1]), 1e-12)


def test_the_wake_update_approaches_the_mean_score_under_the_posterior():
    """E_p(h|x) dlog q(h) = p(h_i = 1 | x) - sigmoid(phi_i); what self-normalising adds falls as 1 / K."""
    lattice, parameters = golden_sbn()
    on = GOLDEN_SBN.posterior(X_SBN) @ lattice.values["h"]
    expected = on - GOLDEN_SBN.phi.sigmoid()
    errors = [(lattice.expected_gradient(RWS(k), parameters[-1:]) - expected).abs().max() for k in (2, 3, 6)]
    assert errors[0] > errors[1] > errors[2]
    pyro.set_rng_seed(0)
    loss = RWS(20_000).differentiable_loss(lattice.model, lattice.guide, lattice.x.expand(50, -1))
    assert_close(-gradient(loss, parameters[-1:]) / 50, expected, 5e-3)


def gaussian(nodes: int = 40) -> tuple[Lattice, list[torch.Tensor]]:
    """z ~ N(0, 1), x | z ~ N(z, .8), and q(z | x) = N(u x + v, exp(w)) that is off."""
    phi = [torch.tensor(value, requires_grad=True) for value in (0.4, -0.3, -0.2)]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.8), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(phi[0] * x[:, 0] + phi[1], phi[2].exp()))

    return Lattice(model, guide, torch.tensor([[0.7]]), noise={"z": 1}, nodes=nodes), phi


def test_doubly_reparametrised_the_update_is_the_same():
    """By quadrature over all noise of two particles."""
    k = 2
    lattice, phi = gaussian()
    plain = lattice.expected_gradient(RWS(k), phi)
    assert_close(lattice.expected_gradient(RWS(k, doubly=True), phi), plain, 1e-6)
    assert (plain.abs() > 0.01).all()
    z = lattice.outcomes(k)[1]["z"].reshape(k, -1) * math.exp(-0.2) + 0.4 * 0.7 - 0.3
    _, _, log_w, mass = lattice.programs(k)
    log_q = -0.5 * ((z - phi[0] * 0.7 - phi[1]) / phi[2].exp()).square() - phi[2]
    assert_close(plain, gradient((mass * log_w.detach().softmax(0) * log_q).sum(), phi), 1e-9)


def diagonal(variance: torch.Tensor):
    """Golden model 2, and q(z | x) = N(A x + b, diag(variance)) with its parameters, at the posterior mean."""
    sigma = torch.linalg.inv(GOLDEN_2.precision)
    values = sigma @ GOLDEN_2.weight.T / GOLDEN_2.s2, torch.zeros(3), 0.5 * variance.log()
    phi = [value.clone().requires_grad_() for value in values]
    model = PPCA(GOLDEN_2.weight, GOLDEN_2.mu, GOLDEN_2.s2.sqrt())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ phi[0].T + phi[1], phi[2].exp()).to_event(1))

    return model, guide, phi


def mean_gradient(objective, model, guide, phi, x, repeats=30):
    """Of the bound per row, and its standard error."""
    pyro.set_rng_seed(0)
    losses = (objective.differentiable_loss(model, guide, x) / len(x) for _ in range(repeats))
    found = -torch.stack([gradient(loss, phi) for loss in losses])
    return found.mean(0), found.std(0) / math.sqrt(repeats)


@pytest.mark.slow
@pytest.mark.parametrize("doubly", [False, True])
def test_it_rests_at_the_gaussian_of_least_forward_divergence(doubly):
    """var = Sigma_jj, golden (.1124, .0992, .1238), and not 1 / Lambda_jj, where the ELBO rests."""
    sigma = torch.linalg.inv(GOLDEN_2.precision)
    assert_close(sigma.diagonal(), [0.11240345, 0.09922762, 0.12380736], 1e-7)
    for variance, rests in ((sigma.diagonal(), True), (1 / GOLDEN_2.precision.diagonal(), False)):
        model, guide, phi = diagonal(variance)
        mean, se = mean_gradient(RWS(400, doubly=doubly), model, guide, phi[1:], X_2.expand(40, -1))
        t = (mean.abs() / se).max()
        assert t < 4 if rests else t > 15
    mean, se = mean_gradient(ELBO(20), model, guide, phi[1:], X_2.expand(200, -1))
    assert (mean.abs() < 4 * se).all()


def test_the_sleep_update_is_that_of_the_joint():
    """E_p(x,z) log q(z | x) in closed form, for a guide that is off everywhere; the data play no part."""
    model, guide, phi = diagonal(torch.tensor([0.3, 0.2, 0.5]))
    with torch.no_grad():
        phi[0].mul_(0.6), phi[1].add_(0.2)
    a, b, log_scale = phi
    w, s2 = GOLDEN_2.weight, GOLDEN_2.s2
    residual = torch.eye(3) - a @ w
    second = residual.square().sum(1) + s2 * a.square().sum(1) + b.square()
    expected = gradient((-0.5 * second / (2 * log_scale).exp() - log_scale).sum(), phi)
    assert expected.abs().max() > 1
    for objective in (WakeSleep(), RWS(2, sleep=1.0)):
        mean, se = mean_gradient(objective, model, guide, phi, torch.zeros(4000, 5), 40)
        assert ((mean - expected).abs() / se).max() < 4.5 and se.max() < 0.05 * expected.abs().max()


def test_theta_follows_the_bound_that_is_reported():
    model, guide, _ = diagonal(torch.tensor([0.3, 0.2, 0.5]))
    theta, x = list(model.parameters()), torch.randn(6, 5)

    def found(objective):
        pyro.set_rng_seed(1)
        loss = objective.differentiable_loss(model, guide, x)
        return torch.cat([loss[None], gradient(loss, theta)])

    for objective, bound in ((WakeSleep(3), ELBO(3)), (RWS(3, 0.5), IWAE(3)), (RWS(3, doubly=True), IWAE(3))):
        assert_close(found(objective), found(bound), 1e-9)


def test_the_share_of_sleep_mixes_both_phases():
    """Under one seed they draw the same, so that the gradient is linear in the share."""
    model, guide, phi = diagonal(torch.tensor([0.3, 0.2, 0.5]))
    found = []
    for share in (0.0, 1.0, 0.25):
        pyro.set_rng_seed(1)
        found.append(gradient(RWS(3, sleep=share).differentiable_loss(model, guide, torch.randn(4, 5)), phi))
    assert_close(found[2], 0.75 * found[0] + 0.25 * found[1], 1e-10)
    assert (found[0] - found[1]).abs().max() > 0.1


class Labelled(pyro.nn.PyroModule):
    """z -> (x, y), in a plate that may be a part of more data."""

    def __init__(self, size: int | None = None):
        super().__init__("model")
        self.size, self.lower = size, nn.Linear(1, 2)

    def forward(self, x, y):
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Bernoulli(logits=3 * z), obs=y)
            pyro.sample("x", dist.Normal(self.lower(z[..., None]), 0.5).to_event(1), obs=x)


@pytest.mark.parametrize("objective", [WakeSleep(), RWS(3, sleep=0.5), RWS(3)], ids=repr)
def test_mini_batches_of_a_subsampled_plate_count_for_all_data(objective):
    net, found = nn.Linear(3, 1), []

    def guide(size, x, y):
        with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(net(torch.cat([x, y[:, None]], -1)).squeeze(-1), 0.7))

    for size in (None, 400):
        pyro.set_rng_seed(1)
        model = Labelled(size)
        loss = objective.differentiable_loss(model, partial(guide, size), torch.ones(4, 2), y=torch.ones(4))
        found.append(gradient(loss, [*model.parameters(), *net.parameters()]))
    assert_close(found[1], 100 * found[0], 1e-8)
    assert found[0].abs().min() > 1e-4


@pytest.mark.parametrize("engine", ["eager", "captured"])
def test_an_argument_of_another_name_than_its_site_is_dreamt(engine):
    moved = []
    for name in ("x", "images"):
        pyro.set_rng_seed(2)
        decoder, encoder = nn.Linear(1, 2), nn.Linear(2, 1)

        def observed(data, decoder=decoder):
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(data)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=data)

        def inferred(data, encoder=encoder):
            pyro.module("encoder", encoder)
            with pyro.plate("data", len(data)):
                pyro.sample("z", dist.Normal(encoder(data), 0.7).to_event(1))

        if name == "x":
            pair = (lambda x: observed(x)), (lambda x: inferred(x))
        else:
            pair = (lambda images: observed(images)), (lambda images: inferred(images))
        svi = SVI(*pair, partial(torch.optim.SGD, lr=1e-2), RWS(3, sleep=0.5), engine=engine)
        losses = [svi.step(torch.ones(4, 2)) for _ in range(5)]
        moved.append(torch.cat([torch.tensor(losses), *(p.detach().flatten() for p in encoder.parameters())]))
        assert svi.running == engine
    assert torch.equal(*moved)


def test_a_dream_that_the_guide_cannot_be_shown_is_refused():
    def model(data):
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, torch.ones((), requires_grad=True)), obs=data + 1)

    def guide(data):
        with pyro.plate("data", len(data)):
            pyro.sample("z", dist.Normal(data, 1.0))

    with pytest.raises(ValueError, match=r"observes \['x'\], which none of its arguments \['data'\] is"):
        WakeSleep().differentiable_loss(model, guide, torch.zeros(3))
    assert RWS(2).loss(model, guide, torch.zeros(3)) > 0


def test_a_dream_that_would_be_half_of_it_data_is_refused():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)
            pyro.sample("x", dist.Normal(z + y, torch.ones((), requires_grad=True)), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="a dream would be half of it data"):
        RWS(2, sleep=0.5).differentiable_loss(model, guide, torch.zeros(3), torch.ones(3))
    assert RWS(2).loss(model, guide, torch.zeros(3), torch.ones(3)) > 0


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="sleep must be between 0 and 1, got 1.5"):
        RWS(3, sleep=1.5)
    with pytest.raises(ValueError, match="doubly=True reparametrises the wake phase, and sleep=1 has none"):
        RWS(3, sleep=1, doubly=True)
    lattice, _ = golden_sbn()
    with pytest.raises(ValueError, match=r"'h'.*cannot be reparametrised"):
        RWS(3, doubly=True).loss(lattice.model, lattice.guide, lattice.x)
