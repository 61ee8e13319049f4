"""Missing numbers count nothing: an exact linear Gaussian with holes, its gradients, its refusals, every engine."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from dlvm.distributions import (
    Bernoulli,
    ConstantScaleNormal,
    FixedScale,
    Missing,
    NegativeBinomial,
    Normal,
    StudentT,
)
from dlvm.evidence import importance
from dlvm.guides import FullRank, latents
from dlvm.inference import ELBO, check, evaluate, fit
from dlvm.models import VAE
from dlvm.nets import MLP, Filled

D, K, N = 5, 2, 120
NAN = math.nan
KINDS = {
    "bernoulli": lambda net: Bernoulli(nn.Sequential(net, nn.Linear(8, D))),
    "negative binomial": lambda net: NegativeBinomial(net, D),
    "normal": lambda net: Normal(net, D),
    "student": lambda net: StudentT(net, D),
}


def holes() -> torch.Tensor:
    """True where a number is missing; all of row 7, none of row 8."""
    gone = torch.rand(N, D, generator=torch.Generator().manual_seed(1)) < 0.3
    gone[7], gone[8] = True, False
    return gone


@pytest.fixture(scope="module")
def linear() -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """p(x, z) with Gaussian marginals, data of it with holes, and log p of what is there, each in closed form."""
    torch.manual_seed(0)
    weight, bias, noise = torch.randn(D, K), torch.randn(D), 0.7
    x = torch.randn(N, K) @ weight.T + bias + noise * torch.randn(N, D)
    x[holes()] = NAN
    decoder = nn.Linear(K, D)
    with torch.no_grad():
        decoder.weight.copy_(weight), decoder.bias.copy_(bias)
    covariance = (weight @ weight.T + noise**2 * torch.eye(D)).double()
    exact = torch.zeros(N).double()
    for n, row in enumerate(x):
        if (there := ~row.isnan()).any():
            marginal = dist.MultivariateNormal(bias[there].double(), covariance[there][:, there])
            exact[n] = marginal.log_prob(row[there].double())
    return VAE(K, Missing(ConstantScaleNormal(decoder, FixedScale(noise)))).requires_grad_(False).eval(), x, exact


def guide_of(model, x, seed: int = 0):
    pyro.set_rng_seed(seed)
    return FullRank(latents(model, x), encoder=Filled(MLP(2 * D, 40, 40)))


@pytest.fixture(scope="module")
def trained(linear):
    model, x, _ = linear
    guide = guide_of(model, x)
    adam = lambda parameters: torch.optim.Adam(parameters, lr=1e-2)  # noqa: E731
    batches = [(rows,) for rows in x.split(60)]
    epochs = list(fit(model, guide, ELBO(), batches, epochs=60, optimizer=adam, seed=0, engine="eager", progress=False))
    return guide, epochs


@pytest.mark.slow
def test_log_px_of_what_is_there_is_that_of_the_closed_form(linear, trained):
    model, x, exact = linear
    guide, epochs = trained
    assert epochs[-1].train > epochs[0].train
    result = evaluate(model, guide, [(x,)], num_particles=400, seed=0)
    assert abs(result.log_px - exact.mean()) < 5 * result.log_px_se + 0.01
    assert result.elbo < exact.mean() < result.elbo + 0.4
    found = importance(model, guide, x, num_particles=400, seed=0)
    error = (found.log_px - exact).abs()
    assert (
        error.mean() < 0.15 and abs(found.log_px.mean() - exact.mean()) < 0.03 and error[7] < 0.5
    )  # of a datum that is not there, log p is 0


def test_a_number_that_is_missing_is_integrated_out(linear):
    """log p of the others is that of a model of the others alone, particle by particle."""
    model, x, _ = linear
    z = torch.randn(4, 1, K)
    rows = x[~holes().all(1)][:6]
    for row in rows:
        there = ~row.isnan()
        whole = model.likelihood.likelihood(z)
        single = dist.Normal(
            whole.base_dist.loc[..., there], whole.base_dist.scale.expand(4, 1, D)[..., there]
        ).to_event(1)
        assert torch.allclose(model.likelihood(z).log_prob(row), single.log_prob(row[there]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_what_is_there_and_finite(kind):
    torch.manual_seed(0)
    likelihood = KINDS[kind](nn.Linear(2, 8))
    z = torch.randn(3, N, 2)
    with pyro.validation_enabled(True):
        whole = likelihood(z).sample()[0]
        holed = torch.where(holes(), NAN, whole)
        log_p = Missing(likelihood)(z).log_prob(holed)
        assert log_p.shape == (3, N) and (log_p[:, 7] == 0).all()
        assert torch.allclose(log_p[:, 8], likelihood(z).log_prob(whole)[:, 8], atol=1e-5)
        single = likelihood(z).base_dist.log_prob(whole)
        assert torch.allclose(log_p, torch.where(holes(), 0, single).sum(-1), atol=1e-4)
        log_p.sum().backward()
        got = [p.grad.clone() for p in likelihood.parameters()]
        likelihood.zero_grad()
        torch.where(holes(), 0, likelihood(z).base_dist.log_prob(whole)).sum().backward()
        for a, b in zip(got, (p.grad for p in likelihood.parameters()), strict=True):
            assert a.isfinite().all() and torch.allclose(a, b, rtol=1e-3, atol=1e-2)
        drawn = Missing(likelihood)(z).sample()
        assert drawn.shape == (3, N, D) and not drawn.isnan().any()


def test_numbers_that_are_there_are_still_held_against_the_likelihood():
    p = Missing(NegativeBinomial(nn.Linear(2, 8), D))(torch.zeros(N, 2))
    with pytest.raises(ValueError, match="GreaterThan|IntegerGreaterThan|or NaN"):
        p.log_prob(torch.full((N, D), 0.5))


def test_a_captured_run_is_the_eager_one_bit_for_bit(linear):
    model, x, _ = linear

    def run(engine):
        guide = guide_of(model, x)
        batches = [(rows,) for rows in x.split(60)]
        return [e.train for e in fit(model, guide, ELBO(), batches, epochs=4, seed=0, engine=engine, progress=False)]

    assert run("captured") == run("eager")


def test_bits_per_dimension_are_of_the_numbers_that_are_there(linear):
    model, x, _ = linear
    result = evaluate(model, guide_of(model, x), [(x[:50],), (x[50:],)], num_particles=10)
    there = (~x.isnan()).sum().item() / N
    assert there < 4 and result.bits_per_dim == pytest.approx(-result.log_px / math.log(2) / there)


def test_nan_passes_where_missing_is_asked_for_and_nowhere_else(linear):
    model, x, _ = linear
    plain = VAE(K, model.likelihood.likelihood)
    for bad, pair in ((x, plain), (torch.where(x > 1, math.inf, x), model)):
        guide = guide_of(model, x)
        for call in (
            lambda m, g, d: check(m, g, ELBO(), d),
            lambda m, g, d: list(fit(m, g, ELBO(), [(d,)], epochs=1, progress=False)),
            lambda m, g, d: evaluate(m, g, [(d,)], num_particles=4),
        ):
            with pytest.raises(ValueError, match="remove NaN, or .*Missing|infinite values") as error:
                call(pair, guide, bad)
            assert "observed site 'x'" in str(error.value)


def test_an_encoder_without_a_mask_is_refused_and_told_of_the_one_with(linear):
    model, x, _ = linear
    guide = FullRank(latents(model, x), encoder=MLP(D, 8))
    with pytest.raises(ValueError) as error:
        check(model, guide, ELBO(), x)
    assert any("dlvm.nets.Filled" in note for note in error.value.__notes__)
