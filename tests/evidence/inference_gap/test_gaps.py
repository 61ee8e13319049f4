"""The inference gap and its two parts, against closed forms and against quadrature."""

from __future__ import annotations

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_2, X_1, X_2, Gaussian, LinearGaussian, assert_close, best_gaussian, inverse
from torch import Tensor, nn

from dlvm.distributions import Bernoulli, positive
from dlvm.evidence.estimate import Estimate
from dlvm.evidence.inference_gap.exact import exact_gaps
from dlvm.evidence.inference_gap.gaps import gaps
from dlvm.evidence.inference_gap.unamortized import Freed, free
from dlvm.guides import Diagonal, FullRank, Local, latents
from dlvm.inference import ELBO, VIMCO
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")


def spread(x: Tensor) -> Tensor:
    return torch.stack([x, -x, x + 1, x.flip(0)])


def linear_pair(
    oracle: LinearGaussian, x: Tensor, shift: float = 0.2, width: float = 1.5
) -> tuple[PPCA, Diagonal, Gaussian]:
    """A model, a diagonal guide whose means and standard deviations are off the optimum, and what it should be."""
    model = PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt())
    guide = Diagonal(latents(model, x), MLP(len(oracle.mu), activation=nn.Identity))
    best = oracle.diagonal_optimum(torch.zeros(len(oracle.mu)))
    eye = torch.eye(len(oracle.mu))
    weight = torch.stack([oracle.posterior(e).loc - best.loc for e in eye], -1)
    scale = width * best.cov.diagonal().sqrt()
    with torch.no_grad():
        head = guide.posteriors[0].head
        head.weight.zero_()
        head.weight[: len(scale)] = weight
        head.bias.copy_(torch.cat([best.loc + shift, inverse(positive, scale)]))
    return model, guide, Gaussian(oracle.posterior(x).loc + shift, torch.diag(scale.square()))


def curved_pair(num_data: int = 4) -> tuple[VAE, Diagonal, Tensor]:
    """A model whose posteriors are far from Gaussian, a guide that has learned nothing, and data."""
    torch.manual_seed(1)
    net = MLP(2, 16, 12)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    model = VAE(2, Bernoulli(net))
    x = model(n=num_data).detach()
    return model, Diagonal(latents(model, x), MLP(12, 16)), x


@pytest.mark.parametrize("oracle, x", [pytest.param(GOLDEN_1, X_1, marks=pytest.mark.slow), (GOLDEN_2, X_2)])
def test_a_linear_model_has_the_gaps_of_its_closed_forms(oracle, x):
    xs = spread(x)
    model, guide, q = linear_pair(oracle, xs)
    known = Estimate.exactly("closed form", oracle.log_px(xs))
    found = gaps(model, guide, xs, log_px=known, steps=400, num_particles=1500, richer=free(FullRank))
    amortisation = oracle.log_px(xs) - oracle.diagonal_gap - oracle.elbo(xs, q)
    assert amortisation.min() > 0.3
    for part, expected in (
        (found.approximation, oracle.diagonal_gap.expand(4)),
        (found.amortisation, amortisation),
        (found.total, amortisation + oracle.diagonal_gap),
    ):
        assert ((part.values - expected).abs() < 4 * part.se + 1e-3).all()
        assert (part.se < 0.08).all()
    assert_close(found.approximation.values + found.amortisation.values, found.total.values, 1e-9)
    assert_close(found.richer.log_px, oracle.log_px(xs), 1e-3)
    assert ((found.gain.values - oracle.diagonal_gap).abs() < 4 * found.gain.se + 1e-3).all()
    assert found.converged and found.log_px.side == "exact" and "at least" not in str(found)


def test_differences_scatter_by_their_standard_errors():
    """The local guide is the optimum from the start: 25 seeds, 4 data, standard deviation of z-scores 1 within 0.25."""
    xs = spread(X_2)
    model, guide, q = linear_pair(GOLDEN_2, xs)
    best = linear_pair(GOLDEN_2, xs, shift=0.0, width=1.0)[1]
    expected = GOLDEN_2.log_px(xs) - GOLDEN_2.diagonal_gap - GOLDEN_2.elbo(xs, q)

    def scores(seed: int) -> Tensor:
        found = gaps(
            model,
            guide,
            xs,
            lambda *_: Freed(best, best.features(xs)),
            steps=1,
            rate=1e-12,
            num_particles=200,
            seed=seed,
        )
        assert ((found.best.log_px_se.square() + found.elbo.log_px_se.square()).sqrt() > found.amortisation.se).all()
        return torch.stack([(found.amortisation.values - expected) / found.amortisation.se])

    z = torch.cat([scores(seed) for seed in range(25)])
    assert 0.75 < z.std() < 1.25 and z.mean().abs() < 0.4


def test_the_split_by_quadrature_is_that_of_the_closed_forms():
    xs = spread(X_1)
    model, guide, q = linear_pair(GOLDEN_1, xs)
    found = exact_gaps(model, guide, xs, rows=3)
    assert_close(found.log_px.log_px, GOLDEN_1.log_px(xs), 1e-9)
    assert_close(found.elbo.log_px, GOLDEN_1.elbo(xs, q), 1e-9)
    assert_close(found.approximation.values, GOLDEN_1.diagonal_gap.expand(4), 1e-9)
    assert_close(found.richer.log_px, GOLDEN_1.log_px(xs), 1e-9)
    assert_close(exact_gaps(model, guide, xs, diagonal=False).approximation.mean, 0.0, 1e-9)


@pytest.mark.slow
def test_the_general_split_is_that_of_quadrature():
    model, guide, x = curved_pair()
    exact = exact_gaps(model, guide, x)
    found = gaps(model, guide, x, log_px=exact.log_px, richer=free(FullRank), num_particles=4000)
    for name in ("approximation", "amortisation", "total", "gain"):
        part, truth = getattr(found, name), getattr(exact, name)
        assert ((part.values - truth.values).abs() < 4 * part.se + 2e-3).all(), name
        assert part.mean_se < 0.03, name
    assert exact.approximation.values.min() > 0.01 and exact.amortisation.values.min() > 0.1
    assert found.converged and found.gain.mean > 4 * found.gain.mean_se > 0


@pytest.mark.slow
def test_quadrature_finds_the_best_gaussian_of_an_independent_search():
    """The oracle starts at the prior; several starts may find more, and never less."""
    model, guide, x = curved_pair(2)
    found = exact_gaps(model, guide, x)
    for i, datum in enumerate(x):

        def log_joint(z, datum=datum):
            prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
            return prior + model.likelihood(z).log_prob(datum)

        for name, diagonal in (("best", True), ("richer", False)):
            ours = getattr(found, name).log_px[i]
            assert ours > best_gaussian(log_joint, diagonal=diagonal)[1] - 1e-5


@pytest.mark.slow
def test_without_log_px_the_approximation_gap_is_a_lower_bound():
    model, guide, x = curved_pair()
    found = gaps(model, guide, x, steps=150, num_particles=500)
    truth = exact_gaps(model, guide, x)
    assert found.log_px.side == "lower"
    error = (found.approximation.se.square() + found.log_px.log_px_se.square()).sqrt()
    assert (found.approximation.values < truth.approximation.values + 4 * error).all()


def test_words_say_which_side_log_px_is_on():
    model, guide, x = curved_pair()
    quick = dict(steps=2, num_particles=30)
    text = str(gaps(model, guide, x, **quick))
    assert "approximation at least" in text and "inference gap at least" in text and "a lower bound" in text
    upper = Estimate("above", "upper", *[torch.zeros(4)] * 4, 1)
    assert "approximation at most" in str(gaps(model, guide, x, log_px=upper, **quick))


def test_discrete_latents_need_an_objective_of_their_own():
    class Sparse(pyro.nn.PyroModule):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1))
                return pyro.sample("x", dist.Normal(z @ torch.tensor([[1.0, 0.5], [0.5, 1.0]]), 0.3).to_event(1), obs=x)

    model, x = Sparse("model"), torch.tensor([[0.5, 1.1], [1.6, 1.4], [0.1, -0.2]])
    guide = Diagonal(latents(model, x), MLP(2, 8))
    with pytest.raises(ValueError, match="cannot be reparametrised"):
        gaps(model, guide, x, steps=2)
    z = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    loc = z @ torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    log_px = (dist.Normal(loc, 0.3).log_prob(x[:, None]).sum(-1)).logsumexp(1) - math.log(4)
    known = Estimate.exactly("enumeration", log_px)
    found = gaps(model, guide, x, log_px=known, objective=ELBO(8, VIMCO()), steps=300, rate=0.3)
    assert found.amortisation.values.min() > 0.3
    assert_close(found.best.log_px, log_px, 0.1)


def test_a_climb_that_was_too_short_says_so():
    model, guide, x = curved_pair()
    found = gaps(model, guide, x, steps=8, num_particles=200)
    assert not found.converged and "has not converged" in str(found) and "pass more steps" in str(found)


def test_model_guide_and_random_state_stay_as_they_were():
    model, guide, x = curved_pair()
    model.likelihood.requires_grad_(False)
    parts = [*model.parameters(), *guide.parameters()]
    before = [(p.detach().clone(), p.requires_grad) for p in parts]
    state = torch.get_rng_state()
    model.train()
    guide.eval()
    first, second = (gaps(model, guide, x, richer=free(FullRank), steps=10, num_particles=10) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and not guide.training
    for p, (value, required) in zip(parts, before, strict=True):
        assert torch.equal(p, value) and p.requires_grad == required and p.grad is None
    assert torch.equal(first.richer.log_px, second.richer.log_px)


def test_a_freed_guide_starts_where_the_guide_is():
    model, guide, x = curved_pair()
    freed = Freed(guide, guide.features(x))
    torch.manual_seed(3)
    a = guide(x)["z"]
    torch.manual_seed(3)
    assert torch.equal(a, freed(x)["z"])
    assert {p.shape[0] for p in freed.parameters()} == {4} and not freed.shared
    with torch.no_grad():
        freed.offsets[0][1] += 1.0
    torch.manual_seed(3)
    moved = (freed(x)["z"] != a).any(1)
    assert moved.tolist() == [False, True, False, False]


@pytest.mark.slow
def test_weights_between_sites_are_set_free_as_well():
    """A guide whose second site follows the first at random is no worse, at its best, than one without the link."""

    class Two(pyro.nn.PyroModule):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                z1 = pyro.sample("z1", dist.Normal(0.1 * z2, 0.5).to_event(1))
                return pyro.sample("x", dist.Normal(z1 * torch.ones(3), 0.5).to_event(1), obs=x)

    model, x = Two("model"), torch.tensor([[0.2, 0.5, -0.1], [1.0, 0.7, 1.2]])
    found = []
    for order in ("top_down", "independent"):
        torch.manual_seed(0)
        guide = Diagonal(latents(model, x), MLP(3, 8), order=order)
        found.append(gaps(model, guide, x, steps=300, num_particles=1000))
    linked, apart = found
    assert linked.best.mean > apart.best.mean - 4 * apart.best.mean_se
    assert linked.amortisation.mean > 0.1


def test_any_factory_of_local_guides_will_do():
    xs = spread(X_1)
    model, guide, _ = linear_pair(GOLDEN_1, xs)
    found = gaps(model, guide, xs, local=lambda spec, n: Local(spec, n), steps=400, num_particles=1000)
    assert_close(found.best.log_px, GOLDEN_1.log_px(xs) - GOLDEN_1.diagonal_gap, 0.02)
    with pytest.raises(TypeError, match="cannot be read off; pass local="):
        gaps(model, lambda x: guide(x), xs)


def test_ctrl_c_reports_the_chunks_that_are_done(monkeypatch):
    module = sys.modules["dlvm.evidence.inference_gap.gaps"]
    model, guide, x = curved_pair(6)
    calls, climb = [], module.climb

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return climb(*args, **kwargs)

    monkeypatch.setattr(module, "climb", stopped)
    found = gaps(model, guide, x, rows=2, steps=5, num_particles=10)
    assert found.elbo.num_data == 4 and found.elbo.asked == 6 and not found.best.complete
    assert "interrupted: the first 4 data only" in str(found)
    calls[:] = [1, 1]
    with pytest.raises(KeyboardInterrupt):
        gaps(model, guide, x, rows=2, steps=5, num_particles=10)


def test_batches_are_joined_and_log_px_goes_along():
    model, guide, x = curved_pair(6)
    known = Estimate.exactly("six numbers", torch.arange(6.0))
    settings = dict(steps=5, num_particles=50, log_px=known)
    found = gaps(model, guide, [(x[:4],), (x[4:],)], rows=3, **settings)
    assert found.elbo.num_data == 6 and torch.equal(found.log_px.log_px, known.log_px)
    with pytest.raises(ValueError, match="log_px is of 6 data, and there are 12"):
        gaps(model, guide, torch.cat([x, x]), **settings)


@pytest.mark.parametrize(
    "settings, text",
    [
        (dict(steps=0), "steps must be at least 1, got 0"),
        (dict(num_particles=1), "num_particles must be at least 2, got 1"),
        (dict(rate=0.0), "rate must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, text):
    model, guide, x = curved_pair()
    with pytest.raises(ValueError, match=text):
        gaps(model, guide, x, **settings)


def test_a_grid_is_refused_where_it_cannot_do():
    xs = spread(X_2)
    model, guide, _ = linear_pair(GOLDEN_2, xs)
    with pytest.raises(ValueError, match="3 dimensions; a grid is for one or two"):
        exact_gaps(model, guide, xs)
