"""What every amortised guide promises on any model: sites, supports, plates, parameters, refusals."""

from __future__ import annotations

from collections import UserDict

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from torch import nn
from torch.distributions import constraints

from dlvm.distributions import DiagonalNormal, FullRankNormal
from dlvm.guides import IAF, Amortized, Diagonal, FullRank, Latent, Plate, latents
from dlvm.nets import MLP

every_guide = pytest.mark.parametrize("Guide", [Diagonal, FullRank, IAF])
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def hierarchy(x=None):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2.repeat_interleave(2, -1)[..., :3], 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z1.sum(-1, keepdim=True).expand(*z1.shape[:-1], 4), 1.0).to_event(1), obs=x)


SUPPORTS = {
    "real": dist.Normal(0.0, 1.0),
    "real_matrix": dist.Normal(torch.zeros(2, 3), 1.0).to_event(2),
    "positive": dist.Gamma(2.0, 1.0),
    "positive_vector": dist.Gamma(2.0, torch.ones(3)).to_event(1),
    "unit_interval": dist.Beta(2.0, torch.ones(3)).to_event(1),
    "interval": dist.Uniform(-torch.ones(3), 2.0).to_event(1),
    "simplex": dist.Dirichlet(torch.ones(4)),
    "cholesky": dist.LKJCholesky(3, 1.0),
}


def with_prior(prior):
    def model(x=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            mean = z.reshape(*z.shape[: z.dim() - prior.event_dim], -1).sum(-1)
            pyro.sample("x", dist.Normal(mean[..., None].expand(*mean.shape, 4), 1.0).to_event(1), obs=x)

    return model


@every_guide
@pytest.mark.parametrize("name", SUPPORTS)
def test_every_support_is_met_with_a_normalised_density(Guide, name):
    prior = SUPPORTS[name]
    model = with_prior(prior)
    spec = latents(model, X)
    assert spec["z"].shape == prior.event_shape
    guide = Guide(spec, MLP(4, 8))
    with pyro.plate("particles", 6, dim=-2):
        trace = poutine.trace(guide).get_trace(X)
        replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(X)
    z = trace.nodes["z"]["value"]
    assert z.shape == (6, 5, *prior.event_shape) and prior.support.check(z).all()
    for t in (trace, replayed):
        t.compute_log_prob()
        assert t.nodes["z"]["log_prob"].shape == (6, 5) and t.nodes["z"]["log_prob"].isfinite().all()


def test_a_spec_may_be_any_mapping():
    spec = UserDict(latents(hierarchy, X))
    assert Diagonal(spec, MLP(4, 8), order="bottom_up").names == ("z1", "z2")


def test_log_normal_posterior_carries_its_jacobian():
    guide = Diagonal(latents(with_prior(SUPPORTS["positive_vector"]), X), MLP(4, 8))
    q = poutine.trace(guide).get_trace(X).nodes["z"]["fn"]
    base = guide.posteriors[0](guide.features(X))
    z = torch.rand(5, 3) + 0.1
    assert_close(q.log_prob(z), base.log_prob(z.log()) - z.log().sum(-1), 1e-4)


@every_guide
@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_order_decides_who_sees_whom(Guide, order):
    guide = Guide(latents(hierarchy, X), MLP(4, 8), order=order)
    names = ["z2", "z1"] if order != "bottom_up" else ["z1", "z2"]
    trace = poutine.trace(guide).get_trace(X)
    assert [n for n in trace.nodes if n in ("z1", "z2")] == names
    first, second = names
    moved = poutine.condition(guide, {first: trace.nodes[first]["value"] + 3.0})
    fn = poutine.trace(moved).get_trace(X).nodes[second]["fn"]
    value = trace.nodes[second]["value"].detach().clone()
    before, after = trace.nodes[second]["fn"].log_prob(value), fn.log_prob(value)
    assert torch.allclose(before, after, atol=1e-3) == (order == "independent")


@every_guide
def test_parameters_are_all_there_at_once_and_all_trained(Guide):
    guide = Guide(latents(hierarchy, X), MLP(4, 8, 8))
    before = [name for name, _ in guide.named_parameters()]
    with torch.no_grad():
        for value in guide.parameters():
            value.add_(0.1 * torch.randn_like(value))
    trace = poutine.trace(guide).get_trace(X)
    loss = trace.log_prob_sum() + sum((trace.nodes[n]["value"] ** 3).sum() for n in ("z1", "z2"))
    loss.backward()
    assert [name for name, _ in guide.named_parameters()] == before
    for name, value in guide.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


@every_guide
def test_state_dict_rebuilds_the_guide(Guide):
    spec = latents(hierarchy, X)
    a, b = Guide(spec, MLP(4, 8)), Guide(spec, MLP(4, 8))
    b.load_state_dict(a.state_dict())
    pyro.set_rng_seed(1)
    first = a(X)
    pyro.set_rng_seed(1)
    second = b(X)
    assert list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def test_each_datum_has_its_own_posterior():
    """Row i of a batch gets what it gets alone: nothing leaks across data."""
    guide = FullRank(latents(hierarchy, X), MLP(4, 8))
    together = poutine.trace(guide).get_trace(X).nodes["z2"]["fn"].mean
    alone = torch.cat([poutine.trace(guide).get_trace(x[None]).nodes["z2"]["fn"].mean for x in X])
    assert_close(together, alone, 1e-6)


def test_families_can_be_mixed_by_site():
    guide = Amortized(latents(hierarchy, X), MLP(4, 8), DiagonalNormal, posteriors={"z1": FullRankNormal})
    kinds = dict(zip(guide.names, (type(p) for p in guide.posteriors), strict=True))
    assert kinds == {"z2": DiagonalNormal, "z1": FullRankNormal}


def test_an_input_without_a_site_reaches_the_encoder():
    def model(x, c=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.cat([z, c], -1), 1.0).to_event(1), obs=x)

    c = torch.randn(5, 2)
    guide = Diagonal(latents(model, X, c), MLP(6, 8))
    z_fn = [poutine.trace(guide).get_trace(X, value).nodes["z"]["fn"].mean for value in (c, c + 1)]
    assert not torch.allclose(*z_fn)


def test_a_subsampled_plate_scales_the_guide_like_the_model():
    def model(x):
        with pyro.plate("data", 400, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat_interleave(2, -1), 1.0).to_event(1), obs=x)

    spec = latents(model, X)
    assert spec["z"].plates == (Plate("data", -1, 400),)
    guide = Diagonal(spec, MLP(4, 8))
    for trace in (poutine.trace(guide).get_trace(X), poutine.trace(model).get_trace(X)):
        assert trace.nodes["z"]["scale"] == 80.0


def test_latents_disturbs_nothing_and_keeps_generation_order():
    pyro.param("kept", torch.ones(1))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    spec = latents(hierarchy, X)
    assert torch.equal(torch.rand(2), expected)
    assert list(pyro.get_param_store().keys()) == ["kept"]
    assert list(spec) == ["z2", "z1"] and [s.shape for s in spec.values()] == [(2,), (3,)]
    assert spec["z2"] == Latent(torch.Size([2]), spec["z2"].support, (Plate("data", -1, None),))


PLATE = Plate("data", -1, None)
REFUSED = {
    "discrete": ({"z": Latent(torch.Size([]), constraints.nonnegative_integer)}, "'z' is discrete"),
    "global": ({"w": Latent(torch.Size([2]), constraints.real_vector, ())}, "'w' is global"),
    "nested": (
        {"z": Latent(torch.Size([2]), constraints.real_vector, (PLATE, Plate("pixels", -2)))},
        r"'z' lies in the plates \['data', 'pixels'\]",
    ),
    "two plates": (
        {"z1": Latent(torch.Size([2])), "z2": Latent(torch.Size([2]), plates=(Plate("b"),))},
        "different",
    ),
    "dim": ({"z": Latent(torch.Size([2]), plates=(Plate("data", -2),))}, "dim=-2; expected dim=-1.*to_event"),
    "turns": ({"z": Latent(torch.Size([2]), plates=(Plate("data", None),))}, "one by one; write with pyro.plate"),
    "empty": ({}, "latents is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_latents_it_cannot_serve_are_refused_by_name(name):
    spec, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        Diagonal(spec, MLP(4, 8))


def test_counts_of_a_real_model_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Poisson(3.0))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([4]).to_event(1), obs=x)

    with pytest.raises(ValueError, match="'y' is discrete"):
        Diagonal(latents(model, X), MLP(4, 8))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (
            dict(order="sideways"),
            ValueError,
            "order must be one of top_down, bottom_up, independent, got 'sideways'",
        ),
        (dict(posteriors={"y": DiagonalNormal}), ValueError, r"\['y'\], but the latent sites are \['z'\]"),
        (
            dict(encoder=nn.Sequential(nn.Linear(4, 8))),
            TypeError,
            "net Sequential needs out_features, a positive integer",
        ),
        (dict(encoder=lambda x: x), TypeError, "out_features"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words):
    settings = dict(encoder=MLP(4, 8)) | arguments
    with pytest.raises(error, match=words):
        Diagonal({"z": Latent(torch.Size([2]))}, **settings)


def test_bad_calls_are_refused():
    guide = Diagonal({"z": Latent(torch.Size([2]))}, MLP(4, 8))
    with pytest.raises(ValueError, match="first argument is None"):
        guide(None)
    with pytest.raises(ValueError, match="in_features=4"):
        guide(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"expected \(batch, 8\)"):
        guide(torch.zeros(5, 2, 4))


def test_a_model_without_latents_is_refused():
    with pytest.raises(ValueError, match="no latent site"):
        latents(lambda x: pyro.sample("x", dist.Normal(0.0, 1.0).expand([5]).to_event(1), obs=x), torch.zeros(5))


def test_an_encoder_of_x_that_gets_labels_too_is_told_what_the_guide_passes():
    guide = Diagonal({"z": Latent(torch.Size([2]))}, MLP(4, 8))
    with pytest.raises(ValueError, match="5 features where in_features=4.* gets all 2 arguments .* x alone"):
        guide(X, torch.zeros(5, 1))
    with pytest.raises(ValueError, match="make the net for this width$"):
        guide(X[:, :3])
