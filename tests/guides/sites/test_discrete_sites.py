"""Discrete latent sites in amortised guides: exact posteriors, enumeration, parents, gradients, refusals."""

from __future__ import annotations

import math
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, config_enumerate
from torch import nn
from torch.distributions import constraints

from dlvm.distributions import Categorical, FullRankNormal, Logits
from dlvm.guides import Amortized, Diagonal, FullRank, Latent, latents
from dlvm.nets import MLP

KINDS = {
    "binary": lambda logits: dist.Bernoulli(logits=logits[1] - logits[0]),
    "one_hot": lambda logits: dist.OneHotCategorical(logits=logits),
    "classes": lambda logits: dist.Categorical(logits=logits),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_order = pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
MEANS = torch.tensor([[1.0, -1.0], [-2.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64)
SCALE = 0.6


def class_mean(kind, y):
    """Mean of the class that y names, shape (*batch, 2)."""
    if kind == "one_hot":
        return y @ MEANS.to(y)
    return MEANS.to(torch.get_default_dtype())[y.long()]


def classes_of(kind):
    return 2 if kind == "binary" else 3


def mixture(kind, z=False):
    """y, then (z | y ~ N(mean_y, I) and) x ~ N(mean_y or z, SCALE^2 I)."""

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", KINDS[kind](LOGITS[: classes_of(kind)].to(x)))
            centre = class_mean(kind, y)
            if z:
                centre = pyro.sample("z", dist.Normal(centre, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(centre, SCALE).to_event(1), obs=x)

    return model


def log_joint(x, kind, variance):
    """log p(x, y), shape (batch, classes)."""
    c = classes_of(kind)
    log_x = dist.Normal(MEANS[:c], variance**0.5).to_event(1).log_prob(x[:, None])
    return LOGITS[:c].log_softmax(-1) + log_x


@torch.no_grad()
def set_class_posterior(guide, kind, variance):
    """q(y | x) = p(y | x), which is linear in x for Gaussians of one covariance; the encoder is the identity."""
    head = guide.posteriors[0].net.head
    weight, bias = MEANS / variance, LOGITS - MEANS.square().sum(-1) / (2 * variance)
    if kind == "binary":
        weight, bias = weight[1:2] - weight[:1], bias[1:2] - bias[:1]
    head.weight.copy_(weight)
    head.bias.copy_(bias)


def exact_bound(guide, model, x, particles=1):
    elbo = TraceEnum_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    return -elbo.loss(model, config_enumerate(guide), x)


@every_kind
@pytest.mark.parametrize("particles", [1, 3])
def test_mixture_of_gaussians_is_inferred_exactly(kind, particles, float64):
    x, model = torch.randn(7, 2), mixture(kind)
    guide = Diagonal(latents(model, x), MLP(2))
    set_class_posterior(guide, kind, SCALE**2)
    exact = log_joint(x, kind, SCALE**2)
    q = poutine.trace(guide).get_trace(x).nodes["y"]["fn"]
    posterior = exact.softmax(-1)
    assert_close(q.probs, posterior[:, 1] if kind == "binary" else posterior, 1e-12)
    assert_close(exact_bound(guide, model, x, particles), exact.logsumexp(-1).sum(), 1e-10)


@every_kind
def test_a_gaussian_below_a_class_is_inferred_exactly(kind, float64):
    """With q(y | x) and q(z | y, x) exact, the bound is log p(x) for every draw, enumerated or not."""
    x, model = torch.randn(7, 2), mixture(kind, z=True)
    guide = Diagonal(latents(model, x), MLP(2), hidden=())
    set_class_posterior(guide, kind, 1 + SCALE**2)
    gain = 1 / (1 + SCALE**2)
    head, means = guide.posteriors[1].head, MEANS[: classes_of(kind)]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[:2, :2] = gain * torch.eye(2)
        kept = means[1:] - means[:1] if kind == "binary" else means
        head.weight[:2, 2:] = (1 - gain) * kept.T
        head.bias[:2] = (1 - gain) * means[0] if kind == "binary" else 0.0
        head.bias[2:] = 10 * math.atanh(0.5 * math.log(SCALE**2 * gain) / 10)
    log_px = log_joint(x, kind, 1 + SCALE**2).logsumexp(-1).sum()
    for particles in (1, 3):
        assert_close(exact_bound(guide, model, x, particles), log_px, 1e-10)
        drawn = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
        assert_close(-drawn.loss(model, guide, x), log_px, 1e-10)


def two_bits(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Bernoulli(0.3))
        b = pyro.sample("b", dist.Bernoulli(logits=2 * a - 0.5))
        pyro.sample("x", dist.Normal(a - 2 * b + 1.5 * a * b, 0.8), obs=x)


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
def test_two_bits_are_inferred_exactly_in_either_order(order, float64):
    x = torch.tensor([0.4])

    def log_p(a, b):
        parts = poutine.trace(poutine.condition(two_bits, {"a": torch.tensor([a]), "b": torch.tensor([b])}))
        return parts.get_trace(x).log_prob_sum()

    table = torch.stack([torch.stack([log_p(a, b) for b in (0.0, 1.0)]) for a in (0.0, 1.0)])
    spec = latents(two_bits, x)
    guide = Diagonal(spec, Scalar(), order=order, hidden=())
    joint = table if order == "top_down" else table.T
    first, second = (posterior.net.head for posterior in guide.posteriors)
    odds = joint[:, 1] - joint[:, 0]
    with torch.no_grad():
        first.weight.zero_()
        first.bias.copy_(joint[1].logsumexp(0) - joint[0].logsumexp(0))
        second.weight.copy_(torch.stack([torch.zeros(()), odds[1] - odds[0]]))
        second.bias.copy_(odds[0])
    for a, b in product((0.0, 1.0), repeat=2):
        q = poutine.trace(poutine.condition(guide, {"a": torch.tensor([a]), "b": torch.tensor([b])})).get_trace(x)
        assert_close(q.log_prob_sum(), table[int(a), int(b)] - table.logsumexp((0, 1)), 1e-12)
    assert_close(exact_bound(guide, two_bits, x), table.logsumexp((0, 1)), 1e-12)


class Scalar(nn.Module):
    """One number per datum as its only feature."""

    out_features = 1

    def forward(self, x):
        return x[:, None]


@every_kind
@every_order
@pytest.mark.parametrize("Guide", [Diagonal, FullRank])
def test_mixed_models_have_the_models_shapes_and_supports_in_every_order(kind, order, Guide):
    x, model = torch.randn(5, 2), mixture(kind, z=True)
    guide = Guide(latents(model, x), MLP(2, 8), order=order)
    with pyro.plate("particles", 6, dim=-2):
        trace = poutine.trace(guide).get_trace(x)
        replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x)
    assert [n for n in trace.nodes if n in "yz"] == (["z", "y"] if order == "bottom_up" else ["y", "z"])
    event_shape = (3,) if kind == "one_hot" else ()
    y = trace.nodes["y"]["value"]
    assert y.shape == (6, 5, *event_shape) and replayed.nodes["y"]["fn"].support.check(y).all()
    assert y.dtype == replayed.nodes["y"]["fn"].sample().dtype and trace.nodes["z"]["value"].shape == (6, 5, 2)
    for t in (trace, replayed):
        t.compute_log_prob()
        assert all(t.nodes[n]["log_prob"].shape == (6, 5) and t.nodes[n]["log_prob"].isfinite().all() for n in "yz")


@every_kind
@every_order
def test_a_parents_class_moves_its_childs_distribution(kind, order):
    x = torch.randn(5, 2)
    guide = Diagonal(latents(mixture(kind, z=True), x), MLP(2, 8), order=order)
    values = [torch.full((5,), float(c)) for c in range(2)]
    if kind == "one_hot":
        values = [torch.eye(3)[c].expand(5, 3) for c in range(2)]
    if kind == "classes":
        values = [value.long() for value in values]
    means = [poutine.trace(poutine.condition(guide, {"y": y})).get_trace(x).nodes["z"]["fn"].mean for y in values]
    if order == "bottom_up":  # z comes first, and y hears of it
        means = [
            poutine.trace(poutine.condition(guide, {"z": torch.full((5, 2), s)})).get_trace(x).nodes["y"]["fn"].logits
            for s in (-1.0, 1.0)
        ]
    assert torch.allclose(*means) == (order == "independent")


@every_kind
@every_order
@pytest.mark.parametrize("enumerated", [True, False])
def test_every_parameter_is_there_at_once_and_receives_a_gradient(kind, order, enumerated):
    x, model = torch.randn(5, 2), mixture(kind, z=True)
    guide = Diagonal(latents(model, x), MLP(2, 8, 8), order=order)
    names = [name for name, _ in guide.named_parameters()]
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if enumerated else TraceGraph_ELBO()
    elbo.loss_and_grads(model, config_enumerate(guide) if enumerated else guide, x)
    assert [name for name, _ in guide.named_parameters()] == names
    for name, value in guide.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


@pytest.mark.slow
@every_kind
def test_stock_svi_approaches_the_posterior(kind):
    x, model = torch.tensor([[0.3, -0.2], [-0.7, 0.9]]), mixture(kind)
    guide = Diagonal(latents(model, x), MLP(2))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), TraceGraph_ELBO())
    log_px = log_joint(x.double(), kind, SCALE**2).logsumexp(-1).sum()
    before = log_px - exact_bound(guide, model, x)
    for _ in range(60):
        svi.step(x.repeat(8, 1))
    assert -1e-4 < log_px - exact_bound(guide, model, x) < 0.2 * before


@pytest.mark.parametrize(
    "prior",
    [
        dist.Bernoulli(torch.full((4,), 0.5)).to_event(1),
        dist.Bernoulli(torch.full((2, 3), 0.5)).to_event(2),
        dist.OneHotCategorical(torch.ones(2, 3)).to_event(1),
        dist.Categorical(torch.ones(2, 3)).to_event(1),
        dist.Binomial(4, torch.tensor(0.3)),
    ],
    ids=["bits", "bit matrix", "one-hot rows", "class vector", "bounded counts"],
)
def test_arrays_of_discrete_variables(prior):
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", prior)
            total = y.reshape(*y.shape[: y.dim() - prior.event_dim], -1).sum(-1, keepdim=True).to(x)
            z = pyro.sample("z", dist.Normal(total.expand(*total.shape[:-1], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.randn(5, 2)
    guide = Diagonal(latents(model, x), MLP(2, 8))
    with pyro.plate("particles", 6, dim=-2):
        trace = poutine.trace(guide).get_trace(x)
        replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x)
    y = trace.nodes["y"]["value"]
    assert y.shape == (6, 5, *prior.event_shape) and prior.support.check(y).all()
    for t in (trace, replayed):
        t.compute_log_prob()
        assert t.nodes["y"]["log_prob"].shape == (6, 5) and t.nodes["y"]["log_prob"].isfinite().all()


def test_a_class_reaches_later_nets_as_a_one_hot_vector():
    guide = Diagonal({"y": Latent(torch.Size([2]), constraints.integer_interval(0, 2))}, MLP(4, 8))
    value = torch.tensor([[0, 2], [1, 1]])
    expected = torch.tensor([[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]])
    assert torch.equal(guide.sites[0].flatten(value).long(), expected)
    assert torch.equal(guide.sites[0].flatten(value[:, None, None]).long(), expected[:, None, None])


def test_the_family_serves_continuous_sites_and_posteriors_overrides_any():
    x = torch.randn(5, 2)
    spec = latents(mixture("classes", z=True), x)
    asked = []

    def head(net, dim):
        asked.append(dim)
        return Categorical(Logits(net, dim))

    guide = Amortized(spec, MLP(2, 8), FullRankNormal, posteriors={"y": head})
    assert asked == [3] and isinstance(guide.posteriors[1], FullRankNormal)
    assert guide(x)["y"].dtype == torch.int64


def test_a_subsampled_plate_scales_discrete_sites_too():
    def model(x):
        with pyro.plate("data", 400, subsample_size=len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(class_mean("classes", y), 1.0).to_event(1), obs=x)

    x = torch.randn(5, 2)
    guide = Diagonal(latents(model, x), MLP(2))
    assert poutine.trace(guide).get_trace(x).nodes["y"]["scale"] == 80.0
    whole = TraceEnum_ELBO(max_plate_nesting=1).loss(model, config_enumerate(guide), x)
    posterior = poutine.trace(guide).get_trace(x).nodes["y"]["fn"].probs.double()
    log_p = dist.Normal(MEANS, 1.0).to_event(1).log_prob(x.double()[:, None]) - math.log(3)
    assert_close(whole, -80 * (posterior * (log_p - posterior.log())).sum(), 1e-3)


@pytest.mark.parametrize(
    "support",
    [
        constraints.nonnegative_integer,
        constraints.integer_interval(1, 6),
        constraints.integer_interval(torch.tensor([0, 0]), torch.tensor([2, 3])),
        constraints.multinomial(3),
    ],
    ids=["counts", "dice", "different classes", "multinomial"],
)
def test_other_discrete_supports_are_refused_with_the_remedy(support):
    with pytest.raises(ValueError, match=r"'w' is discrete with support .*binary and one-hot.*start at 0.*by hand"):
        Diagonal({"w": Latent(torch.Size([2]), support)}, MLP(4, 8))


def test_state_dict_rebuilds_discrete_heads():
    x = torch.randn(5, 2)
    spec = latents(mixture("one_hot", z=True), x)
    a, b = Diagonal(spec, MLP(2, 8)), Diagonal(spec, MLP(2, 8))
    b.load_state_dict(a.state_dict())
    draws = []
    for guide in (a, b):
        pyro.set_rng_seed(1)
        draws.append(guide(x))
    assert all(torch.equal(draws[0][n], draws[1][n]) for n in "yz")
