"""Exact values: closed form, enumeration and quadrature, against one another and against oracles."""

from __future__ import annotations

import math
from importlib import import_module

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import (
    GOLDEN_1,
    GOLDEN_SBN,
    MIXTURE,
    X_1,
    X_SBN,
    assert_close,
    bernoulli,
    configurations,
    log_px_grid,
    log_px_hermite,
)
from pyro import poutine
from torch import nn

from dlvm.evidence.log_px.enumeration import JointValues, enumerated
from dlvm.evidence.log_px.exact import exact
from dlvm.evidence.log_px.quadrature import quadrature
from dlvm.models import PPCA

XS = X_1 + torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]


def golden() -> PPCA:
    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)


def sbn(x):
    with pyro.plate("data", len(x)):
        h = pyro.sample("h", dist.Bernoulli(logits=GOLDEN_SBN.prior).to_event(1))
        logits = h @ GOLDEN_SBN.weight.T + GOLDEN_SBN.bias
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def mixture(x, one_hot=False):
    with pyro.plate("data", len(x)):
        if one_hot:
            y = pyro.sample("y", dist.OneHotCategorical(MIXTURE.log_pi.exp()))
            c = y.argmax(-1)
        else:
            c = pyro.sample("y", dist.Categorical(MIXTURE.log_pi.exp()))
        pyro.sample("x", dist.MultivariateNormal(MIXTURE.loc[c], MIXTURE.cov[c]), obs=x)


def decoder(z_dim: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(z_dim, 6), nn.Tanh(), nn.Linear(6, 5)).double()


def binary_vae(z_dim: int):
    net = decoder(z_dim)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(z_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=3 * net(z)).to_event(1), obs=x)

    return (
        model,
        lambda x, z: (
            bernoulli(x.unsqueeze(-2), 3 * net(z)) - 0.5 * (z.square().sum(-1) + z_dim * math.log(2 * math.pi))
        ),
    )


def test_a_models_own_value_is_passed_on_datum_by_datum(float64):
    for data in (XS, [XS[:7], (XS[7:],)]):
        found = exact(golden(), data, rows=3)
        assert_close(found.log_px, GOLDEN_1.log_px(XS), 1e-10)
        assert found.side == "exact" and found.mean_se == 0.0 and found.khat.isnan().all() and found.complete
    wrapped = poutine.scale(golden(), scale=2.0)
    assert_close(exact(wrapped, XS).log_px, GOLDEN_1.log_px(XS), 1e-10)


def test_models_without_a_value_of_their_own_are_refused():
    with pytest.raises(TypeError, match="model function has no method log_px; use enumerated.*quadrature.*sandwich"):
        exact(sbn, X_SBN[None])
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        exact(golden(), XS, rows=0)


def test_a_log_px_of_another_shape_is_refused(float64):
    model = golden()
    model.log_px = lambda x: x
    with pytest.raises(ValueError, match=r"one number per datum, shape \(20,\), got shape \(20, 4\)"):
        exact(model, XS)


def test_bits_are_summed_out_whatever_the_chunk(float64):
    x = configurations(3)
    for chunk in (None, 1, 3, 10):
        found = enumerated(sbn, x, chunk=chunk)
        assert_close(found.log_px, GOLDEN_SBN.log_px(x), 1e-12)
        assert (found.side, found.num_samples, found.num_data) == ("exact", 4, 8)
    assert_close(enumerated(sbn, X_SBN[None]).mean, -1.52197571, 1e-8)
    assert_close(found.log_px.logsumexp(0), 0.0, 1e-12)  # all x there are


@pytest.mark.parametrize("one_hot", [False, True])
def test_classes_and_one_hot_vectors_are_summed_out(float64, one_hot):
    x = torch.randn(6, 2)
    assert_close(enumerated(lambda x: mixture(x, one_hot), x).log_px, MIXTURE.log_px(x), 1e-12)


def test_dependent_sites_of_several_kinds(float64):
    """y of 3 classes -> two bits -> x, by three loops; the values of a site never depend on another's."""
    table, weight = torch.randn(3, 2), torch.randn(2, 4)

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
            b = pyro.sample("b", dist.Bernoulli(logits=table[y]).to_event(1))
            pyro.sample("x", dist.Normal(b @ weight + y.unsqueeze(-1), 1.0).to_event(1), obs=x)

    x, terms = torch.randn(5, 4), []
    for y, p in enumerate([0.2, 0.5, 0.3]):
        for b in configurations(2):
            log_p = math.log(p) + bernoulli(b, table[y])
            terms.append(log_p + dist.Normal(b @ weight + y, 1.0).to_event(1).log_prob(x))
    found = enumerated(model, x, chunk=7)
    assert_close(found.log_px, torch.stack(terms).logsumexp(0), 1e-12)
    assert found.num_samples == 12


def test_arrays_of_classes_and_bounded_counts(float64):
    """Six joint values of 2 + 1 dimensions: 2 independent classes of 2, and a Binomial(2): 4 * 3 values."""

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([[0.3, 0.7], [0.6, 0.4]])).to_event(1))
            n = pyro.sample("n", dist.Binomial(2, 0.25))
            pyro.sample("x", dist.Normal(y.sum(-1) + n, 0.5), obs=x)

    x = torch.linspace(-1, 4, 6)
    means = torch.tensor([0.0, 1.0, 1.0, 2.0])[:, None] + torch.tensor([0.0, 1.0, 2.0])
    prior = torch.tensor([0.18, 0.12, 0.42, 0.28])[:, None] * torch.tensor([9.0, 6.0, 1.0]) / 16
    truth = (prior.log() + dist.Normal(means, 0.5).log_prob(x[:, None, None])).flatten(1).logsumexp(-1)
    found = enumerated(model, x)
    assert_close(found.log_px, truth, 1e-12)
    assert found.num_samples == 12


def test_observed_labels_are_not_summed(float64):
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.25), obs=y)
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(y + z, 1.0), obs=x)

    x, y = torch.randn(4), torch.tensor([0.0, 1.0, 1.0, 0.0])
    joint = [dist.Normal(y + z, 1.0).log_prob(x) + math.log(0.5) for z in (0, 1)]
    truth = torch.stack(joint).logsumexp(0) + dist.Bernoulli(0.25).log_prob(y)
    found = enumerated(model, [(x, y)])
    assert_close(found.log_px, truth, 1e-12)
    assert found.num_samples == 2 and enumerated(model, x).num_samples == 4


def test_memory_is_bounded_by_the_chunk_and_each_value_comes_once(float64, monkeypatch):
    seen, original = [], JointValues.weigh
    monkeypatch.setattr(JointValues, "weigh", lambda self, i: seen.append((i, len(self.args[0]))) or original(self, i))

    def bits(x):
        with pyro.plate("data", len(x)):
            h = pyro.sample("h", dist.Bernoulli(torch.full((10,), 0.3)).to_event(1))
            pyro.sample("x", dist.Normal(h.sum(-1), 1.0), obs=x)

    found = enumerated(bits, torch.arange(7.0), chunk=300)
    assert max(len(i) * rows for i, rows in seen) <= 300
    assert torch.cat([i for i, _ in seen]).tolist() == list(range(1024))
    count = torch.arange(11.0)
    truth = dist.Binomial(10, 0.3).log_prob(count) + dist.Normal(count, 1.0).log_prob(torch.arange(7.0)[:, None])
    assert_close(found.log_px, truth.logsumexp(-1), 1e-12)


def site(fn, event=0):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", fn)
            pyro.sample("x", dist.Normal(z.reshape(*z.shape[: z.dim() - event], -1).sum(-1), 1.0), obs=x)

    return model


@pytest.mark.parametrize(
    "fn, event, message",
    [
        (dist.Normal(0.0, 1.0), 0, "'z' is continuous.*quadrature.*importance"),
        (dist.Poisson(1.0), 0, "'z' is discrete with support .*no finite list of values"),
        (dist.Bernoulli(torch.full((2000,), 0.5)).to_event(1), 1, r"10\^602.1 joint values \(z: 2\^2000\)"),
        (dist.Bernoulli(torch.full((30,), 0.5)).to_event(1), 1, r"10\^9.0 joint values \(z: 2\^30\).*most=1000000"),
    ],
)
def test_enumeration_refuses_what_it_cannot_list(fn, event, message):
    with pytest.raises(ValueError, match=message):
        enumerated(site(fn, event), torch.zeros(3))


def test_enumeration_refuses_values_that_depend_on_another_site_and_priors_of_another_mass(float64):
    def dependent(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.5)))
            z = pyro.sample("z", dist.Binomial(1 + k, 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="(?s)'z' is discrete .*no finite list of values that is the same"):
        enumerated(dependent, torch.zeros(50))

    def tempered(x):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=0.5):
                z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="'z' has scale 0.5 in the model and the data 1.0"):
        enumerated(tempered, torch.zeros(3))

    def masked(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=False):
                z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"sum to 2 .. 2, expected 1: .*a site carries a mask"):
        enumerated(masked, torch.zeros(3))

    def global_site(x):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="'z'.*must all lie in one plate over data.*to_event"):
        enumerated(global_site, torch.zeros(3))


@pytest.mark.parametrize("z_dim", [1, 2])
def test_quadrature_agrees_with_two_others(float64, z_dim):
    """A Bernoulli decoder: Gauss-Hermite and a fixed wide grid, neither of which knows where the mass is."""
    model, log_joint = binary_vae(z_dim)
    x = configurations(5)[::3]
    found = quadrature(model, x)
    by_grid = log_px_grid(lambda z: log_joint(x, z), 8.0, 600, z_dim)
    by_hermite = log_px_hermite(lambda z: log_joint(x, z), 60, z_dim)
    assert_close(found.log_px, by_grid, 1e-6)
    assert_close(by_hermite, by_grid, 1e-4)
    assert found.side == "exact" and (found.log_px_se < 1e-3).all()


def test_grids_are_doubled_for_the_data_that_need_it(float64, monkeypatch):
    """Noise of 1 or 0.02 around sin 3z, given beside x: the first grids of 9 points serve one of them at most."""
    module = import_module("dlvm.evidence.log_px.quadrature")
    sizes, original = [], module._integral

    def watched(target, low, high, size, at_once):
        sizes.append((size, target.num_data))
        return original(target, low, high, size, at_once)

    monkeypatch.setattr(module, "_integral", watched)

    def model(x, noise):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal((3 * z).sin(), noise), obs=x)

    x, noise = torch.tensor([0.3, 0.3, -0.5]), torch.tensor([1.0, 0.1, 1.0])
    found = quadrature(model, [(x, noise)], points=51)
    z = torch.linspace(-9, 9, 100_001)
    log_joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal((3 * z).sin(), noise[:, None]).log_prob(x[:, None])
    assert_close(found.log_px, log_joint.logsumexp(-1) + (z[1] - z[0]).log(), 1e-3)
    assert sizes[0] == (51, 3) and sizes[-1][1] == 1 and found.num_samples == sizes[-1][0]


@pytest.mark.parametrize("scale", [0.5, 1e-3, 30.0])
def test_the_window_finds_posteriors_of_any_width(float64, scale):
    """Posteriors from a thousandth of the prior's width to all of it, in two correlated dimensions."""
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, scale)
    x = XS[:4] if scale > 0.1 else GOLDEN_1.mu + torch.randn(4, 2) @ GOLDEN_1.weight.T
    assert_close(quadrature(model, x).log_px, exact(model, x).log_px, 1e-7)


@pytest.mark.parametrize("chunk", [1000, None])
def test_constrained_and_single_sites(float64, chunk):
    """rate ~ Gamma(3, 2), x | rate ~ Poisson(rate): a negative binomial."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.full((len(x),), 3.0), 2.0))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    x = torch.arange(6.0)
    truth = dist.NegativeBinomial(3.0, probs=torch.tensor(1 / 3)).log_prob(x)
    assert_close(quadrature(model, x, chunk=chunk).log_px, truth, 1e-6)


def test_modes_far_apart_and_far_from_where_the_prior_is_expected(float64):
    """z ~ N(50, 2), x | z ~ N((z - 50)^2, 0.05): two narrow modes, against a fixed grid."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full((len(x),), 50.0), 2.0))
            pyro.sample("x", dist.Normal((z - 50) ** 2, 0.05), obs=x)

    x, z = torch.tensor([1.0, 4.0]), torch.linspace(-20, 20, 400_001)
    log_joint = dist.Normal(0.0, 2.0).log_prob(z) + dist.Normal(z**2, 0.05).log_prob(x[:, None])
    truth = log_joint.logsumexp(-1) + math.log(1e-4)
    assert_close(quadrature(model, x).log_px, truth, 1e-3)


def test_two_sites_of_one_dimension_each(float64):
    """s -> z -> x, all Gaussian: x ~ N(0, 1 + 1 + 0.25)."""

    def model(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.Normal(torch.zeros(len(x)), 1.0))
            z = pyro.sample("z", dist.Normal(s, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    x = torch.linspace(-3, 3, 5)
    assert_close(quadrature(model, x).log_px, dist.Normal(0.0, 1.5).log_prob(x), 1e-7)


def test_quadrature_says_what_it_cannot_integrate(float64):
    with pytest.raises(ValueError, match=r"3 latent dimensions \(z\).*one or two: use sandwich"):
        quadrature(PPCA(torch.ones(4, 3), torch.zeros(4), 1.0), XS)
    with pytest.raises(ValueError, match="discrete"):
        quadrature(sbn, X_SBN[None])
    with pytest.raises(ValueError, match="points must be odd and at least 5, chunk at least 1, got 100"):
        quadrature(golden(), XS, points=100)
    with pytest.raises(ValueError, match="reach and tol must be positive"):
        quadrature(golden(), XS, tol=0.0)

    def spikes(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal((20 * z).sin(), 1e-3), obs=x)

    with pytest.raises(ValueError, match="points per axis leaves changes of up to .*, more than tol=0.001, for 1 data"):
        quadrature(spikes, torch.full((1,), 0.5))

    def heavy(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Cauchy(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=x)

    with pytest.raises(ValueError, match="tails are too heavy|points per axis"):
        quadrature(heavy, torch.zeros(1))


def test_double_precision_models_need_no_default_of_it():
    assert_close(quadrature(golden(), XS).log_px, GOLDEN_1.log_px(XS), 1e-7)


def test_parameters_that_are_nan_are_refused(float64):
    model = golden()
    with torch.no_grad():
        model.weight.fill_(math.nan)
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="not finite anywhere for 20 data"):
        quadrature(model, XS)
