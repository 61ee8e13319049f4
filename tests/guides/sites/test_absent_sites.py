"""Sites that an argument observes, and sites that the model has for some arguments only."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close, m2_bound
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn

from dlvm.guides import Augmented, Chain, Diagonal, FullRank, Joint, Ladder, Latent, Local, Refined, latents
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, ScoreFunction, Total, check, log_weights
from dlvm.nets import MLP

MEANS = torch.tensor([[1.0, -1.0], [-2.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64)
S2 = 0.36
every_order = pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])


def m2(x, y=None):
    """Class y, z | y ~ N(mean_y, I), x | z ~ N(z, S2 I)."""
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(logits=LOGITS.to(x)), obs=y)
        z = pyro.sample("z", dist.Normal(MEANS.to(x)[y], 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, S2**0.5).to_event(1), obs=x)


def log_joint(x):
    """log p(x, y), shape (batch, 3)."""
    return LOGITS.log_softmax(-1) + dist.Normal(MEANS, (1 + S2) ** 0.5).to_event(1).log_prob(x[:, None])


def drawn(guide, *args, **kwargs):
    """Names of the sites that the guide draws, in its order."""
    nodes = poutine.trace(guide).get_trace(*args, **kwargs).iter_stochastic_nodes()
    return [name for name, site in nodes if type(site["fn"]).__name__ != "_Subsample"]


def exact_below(guide):
    """q(z | x, y) = p(z | x, y), and any q(y | x)."""
    gain, head = 1 / (1 + S2), guide.posteriors[1].head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[:2, :2] = gain * torch.eye(2)
        head.weight[:2, 2:] = (1 - gain) * MEANS.T
        head.bias[2:] = 10 * math.atanh(0.5 * math.log(S2 * gain) / 10)
    return guide


def test_the_two_bounds_of_m2_agree_with_the_sum_over_labels(float64):
    """-U(x) = sum_y q(y|x) L(x, y) + H(q), L by guide(x, y=...), U by enumeration; at the best q(y|x), log p(x)."""
    x = torch.randn(7, 2)
    guide = exact_below(Diagonal(latents(m2, x), MLP(2), hidden=()))
    labels = [torch.full((7,), c) for c in range(3)]
    labelled = torch.stack([log_weights(m2, guide, x, y)[0] for y in labels], -1)
    assert_close(labelled, log_joint(x), 1e-10)
    by_name = torch.stack([log_weights(m2, guide, x, y=y)[0] for y in labels], -1)
    assert_close(by_name, labelled, 1e-10)

    def unlabelled():
        return -TraceEnum_ELBO(max_plate_nesting=1).loss(m2, config_enumerate(guide), x)

    logits = poutine.trace(guide).get_trace(x).nodes["y"]["fn"].logits
    assert_close(unlabelled(), m2_bound(labelled, logits).sum(), 1e-10)
    assert unlabelled() < labelled.logsumexp(-1).sum() - 0.1
    with torch.no_grad():
        head, variance = guide.posteriors[0].net.head, 1 + S2
        head.weight.copy_(MEANS / variance)
        head.bias.copy_(LOGITS - MEANS.square().sum(-1) / (2 * variance))
    assert_close(unlabelled(), labelled.logsumexp(-1).sum(), 1e-10)


def test_a_given_site_is_the_parent_that_a_drawn_one_would_be():
    """The ELBO of (x, y) is that of a guide written by hand, with the same nets."""
    x, y = torch.randn(5, 2), torch.tensor([0, 2, 1, 1, 0])
    guide = FullRank(latents(m2, x), MLP(2, 8))

    def by_hand(x, y):
        with pyro.plate("data", len(x)):
            one_hot = nn.functional.one_hot(y, 3).float()
            pyro.sample("z", guide.posteriors[1](guide.encoder(x).relu(), one_hot))

    found = []
    for q, call in ((by_hand, (x, y)), (guide, (x, y))):
        pyro.set_rng_seed(1)
        found.append(Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1).loss(m2, q, *call))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert drawn(guide, x, y) == drawn(guide, x, y=y) == ["z"] and drawn(guide, x) == drawn(guide, x, None) == [
        "y",
        "z",
    ]
    assert list(guide(x, y)) == ["z"]
    assert set(check(m2, guide, IWAE(3), x, y)) == {"z"}


@every_order
def test_a_given_site_moves_the_sites_after_it_alone(order):
    x = torch.randn(5, 2)
    guide = Diagonal(latents(m2, x), MLP(2, 8), order=order)
    means = [poutine.trace(guide).get_trace(x, torch.full((5,), c)).nodes["z"]["fn"].mean for c in (0, 1)]
    assert torch.allclose(*means) == (order != "top_down")
    assert drawn(guide, x, torch.zeros(5).long()) == ["z"]


def test_gradients_reach_what_each_bound_trains():
    x, y = torch.randn(5, 2), torch.tensor([0, 2, 1, 1, 0])
    guide = Diagonal(latents(m2, x), MLP(2, 8, 8))
    Trace_ELBO().loss_and_grads(m2, guide, x, y)
    names = dict(guide.named_parameters())
    untouched = {name for name, value in names.items() if value.grad is None or not value.grad.abs().sum()}
    assert untouched == {name for name in names if name.startswith("posteriors.0.")}
    TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(m2, config_enumerate(guide), x)
    assert all(value.grad.abs().sum() > 0 for value in names.values())


class Inputs(nn.Module):
    """An encoder that keeps what it was called with."""

    out_features = 4

    def __init__(self):
        super().__init__()
        self.net, self.seen = nn.Linear(4, 4), None

    def forward(self, *args, **kwargs):
        self.seen = args, kwargs
        return self.net(torch.cat([*args, *kwargs.values()], -1))


def test_the_encoder_gets_every_argument_but_those_of_latent_sites():
    class Model(PyroModule):
        def __init__(self):
            super().__init__("model")

        def forward(self, x, y=None, c=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Gamma(2.0, 1.0), obs=y)
                z = pyro.sample("z", dist.Normal(c, y[..., None]).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x, c, y = torch.randn(5, 2), torch.randn(5, 2), torch.rand(5) + 0.1
    for model in (Model(), poutine.scale(Model(), scale=0.5), Model().forward):
        spec = latents(model, x, c=c)
        assert (spec["y"].position, spec["z"].position) == (1, None)
    guide = Diagonal(spec, Inputs())
    for args, kwargs in (((x, y, c), {}), ((x, None, c), {}), ((x,), {"y": y, "c": c}), ((x,), {"c": c})):
        guide(*args, **kwargs)
        seen, named = guide.encoder.seen
        assert torch.equal(torch.cat([*seen, *named.values()], -1), torch.cat([x, c], -1))
        assert set(named) == set(kwargs) - {"y"}
    sees = poutine.trace(guide).get_trace(x, y, c).nodes["z"]["fn"].mean
    assert_close(sees, guide.posteriors[1](guide.features(x, c=c), y.log()[:, None]).mean, 1e-6)
    by_hand = {"y": Latent(torch.Size([]), spec["y"].support), "z": Latent(torch.Size([2]))}
    assert drawn(Diagonal(by_hand, Inputs()), x, c, y=y) == ["z"]


@pytest.mark.parametrize(
    "y, error, words",
    [
        (torch.zeros(5, 1).long(), ValueError, r"'y' has shape \(5, 1\); expected \(batch,\), one value"),
        (3, TypeError, "'y' is named after a latent site and must be the site's values, a tensor, or None, got int"),
    ],
)
def test_other_values_for_a_site_are_refused(y, error, words):
    x = torch.randn(5, 2)
    with pytest.raises(error, match=words):
        Diagonal(latents(m2, x), MLP(2, 8))(x, y)


class Only(nn.Module):
    """x, whatever else the program is called with."""

    out_features = 4

    def forward(self, x, deep=True):
        return x


class Regression(PyroModule):
    """z2 ~ N(0, I) of 2, z1 | z2, x | z1; any of them may be given; z2 is there only where the model is deep."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(2, 4)

    def forward(self, x, z2=None, z1=None, deep=True):
        with pyro.plate("data", len(x)):
            loc = torch.zeros(2)
            if deep:
                loc = pyro.sample("z2", dist.Normal(loc, 1.0).to_event(1), obs=z2)
            z1 = pyro.sample("z1", dist.Normal(loc, 0.7).to_event(1), obs=z1)
            pyro.sample("x", dist.Normal(self.net(z1), 0.5).to_event(1), obs=x)


X, Z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).split([4, 2], dim=1)


@pytest.mark.parametrize("merge", ["precision", "residual"])
def test_a_ladder_reads_what_is_observed_or_absent_off_its_run(merge):
    model = Regression()
    guide = Ladder(latents(model, X), Only(), model, merge=merge)
    calls = {(X,): ["z2", "z1"], (X, Z): ["z1"], (X, None, Z): ["z2"], (X, None, None, False): ["z1"]}
    for call, names in calls.items():
        assert drawn(guide, *call) == names == list(guide(*call))
        assert set(check(model, guide, IWAE(3), *call)) == set(names)
    nodes = [poutine.trace(guide).get_trace(X, z2).nodes["z1"]["fn"].mean for z2 in (Z, Z + 1)]
    assert not torch.allclose(*nodes)


def test_joint_refuses_what_it_draws_at_once():
    guide = Joint(latents(Regression(), X), MLP(4, 8))
    assert list(guide(X, None)) == ["z2", "z1"]
    with pytest.raises(ValueError, match=r"\['z2'\] are given, and this guide draws all its sites at once"):
        guide(X, Z)


def test_a_guide_refined_on_given_sites_climbs_the_bound_of_these():
    model = Regression()
    plain = Diagonal(latents(model, X), MLP(4, 8))
    refined = Refined(plain, model, Trace_ELBO(), steps=5, rate=0.1)
    assert drawn(refined, X, Z) == ["z1"]
    many = X.repeat(60, 1), Z.repeat(60, 1)
    bounds = [-Trace_ELBO().loss(model, guide, *many) / 300 for guide in (plain, refined)]
    assert bounds[1] > bounds[0] + 0.2


def test_a_table_of_data_takes_given_sites_too():
    guide = Local(latents(Regression(), X), num_data=5)
    assert drawn(guide, X, Z) == ["z1"] and drawn(guide, X) == ["z2", "z1"]

    def model(x, y=None, index=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(0.0, 1.0).expand([len(x)]), obs=y)
            pyro.sample("x", dist.Normal(y[..., None], 1.0).expand([*y.shape, 4]).to_event(1), obs=x)

    index = torch.tensor([3, 1])
    guide = Local(latents(model, X[:2], index=index), num_data=5, index=lambda x, index: index)
    assert drawn(guide, X[:2], None, index) == ["y"] and drawn(guide, X[:2], X[:2, 0], index) == []


def test_an_auxiliary_site_beside_given_and_absent_ones():
    model = Regression()
    augmented = Augmented(model, latents(model, X), Only(), dim=1)
    guide = Diagonal(augmented.latents, Only(), present=lambda x, z2=None, z1=None, deep=True: _there(deep) | {"a"})
    for call, names in (((X, Z), {"a", "z1"}), ((X, None, None, False), {"a", "z1"}), ((X,), {"a", "z1", "z2"})):
        assert set(check(augmented, guide, IWAE(3), *call)) == names


def _there(deep):
    return {"z1", "z2"} if deep else {"z1"}


def present(x, deep=True):
    return _there(deep)


def layers(x, deep=True):
    """z1, and above it z2 where the model is deep."""
    with pyro.plate("data", len(x)):
        loc = pyro.sample("z2", dist.Normal(torch.zeros(3), 1.0).to_event(1))[..., :2] if deep else torch.zeros(2)
        z1 = pyro.sample("z1", dist.Normal(loc, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.cat([z1, z1], -1), 1.0).to_event(1), obs=x)


def test_sites_of_several_calls_are_joined():
    both = latents(layers, X) | latents(layers, X, deep=False)
    assert list(both) == ["z2", "z1"] and list(latents(layers, X, deep=False)) == ["z1"]


@every_order
@pytest.mark.parametrize("Guide", [Diagonal, FullRank])
def test_absent_sites_are_not_drawn_and_enter_as_zeros(Guide, order):
    guide = Guide(latents(layers, X), Only(), order=order, present=present)
    assert set(drawn(guide, X)) == {"z1", "z2"} and drawn(guide, X, deep=False) == ["z1"]
    for deep in (True, False):
        assert set(check(layers, guide, IWAE(3), X, deep=deep)) == _there(deep)
    alone = poutine.trace(guide).get_trace(X, deep=False).nodes["z1"]["fn"].mean
    beside = poutine.trace(poutine.condition(guide, {"z2": torch.zeros(5, 3)})).get_trace(X).nodes["z1"]["fn"].mean
    assert_close(alone, beside, 1e-6)


def test_a_chain_may_lack_its_upper_site():
    guide = Chain(latents(layers, X), Only(), present=present)
    assert drawn(guide, X, deep=False) == ["z1"] and drawn(guide, X) == ["z1", "z2"]


def test_an_unknown_name_in_present_is_refused():
    guide = Diagonal(latents(layers, X), Only(), present=lambda x, deep=True: ["z1", "z3"])
    with pytest.raises(ValueError, match=r"present returned \['z3'\], but the latent sites are \['z1', 'z2'\]"):
        guide(X)


def test_without_present_the_missing_site_is_named():
    with pytest.raises(ValueError, match=r"guide samples \['z2'\], which are no latent sites"):
        check(layers, Diagonal(latents(layers, X), Only()), IWAE(3), X, deep=False)


@pytest.mark.parametrize("engine", ["eager", pytest.param("captured", marks=pytest.mark.slow)])
def test_batches_with_and_without_the_site_train_one_guide(engine):
    pyro.set_rng_seed(2)
    model = Regression()
    guide = Diagonal(latents(model, X), MLP(4, 8))
    before = [p.detach().clone() for p in guide.parameters()]
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), ELBO(3), engine=engine)
    losses = [svi.step(X, z2) for _ in range(3) for z2 in (None, Z)]
    assert torch.tensor(losses).isfinite().all()
    assert not any(torch.equal(a, b) for a, b in zip(before, guide.parameters(), strict=True))


@pytest.mark.parametrize("estimator", [Total(), STL(), DReG(), ScoreFunction()], ids=repr)
@pytest.mark.parametrize("make", [ELBO, IWAE])
def test_where_every_site_is_given_the_bound_is_the_joint_density(make, estimator):
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)
            pyro.sample("x", dist.Normal(y, 1.0), obs=x[:, 0])

    x, y = torch.randn(4, 1), torch.randn(4)
    exact = (dist.Normal(0.0, 1.0).log_prob(y) + dist.Normal(y, 1.0).log_prob(x[:, 0])).sum()
    objective = make(3, estimator)
    guide = Diagonal(latents(model, x), MLP(1, 3))
    assert objective.loss(model, guide, x, y) == pytest.approx(-exact.item(), rel=1e-5)
    assert objective.differentiable_loss(model, guide, x, y).item() == pytest.approx(-exact.item(), rel=1e-5)


@pytest.mark.parametrize("call", [(), (None,)], ids=["left out", "None"])
def test_a_site_may_be_given_by_an_argument_of_another_name(call):
    def model(x, labels=None, scale=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.4), obs=labels)
            z = pyro.sample("z", dist.Normal(y, 1.0 if scale is None else scale.abs() + 1))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([len(x), 2]).to_event(1), obs=x)

    x, labels = torch.randn(5, 2), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    spec = latents(model, x, *call)
    assert {name: latent.position for name, latent in spec.items()} == {"y": 1, "z": None}
    guide = Diagonal(spec, MLP(2, 8))
    assert drawn(guide, x, labels) == ["z"] and drawn(guide, x) == ["y", "z"]
    check(model, guide, ELBO(estimator=ScoreFunction()), x, labels)
    check(model, guide, ELBO(estimator=ScoreFunction()), x)
