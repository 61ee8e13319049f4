"""Guides that contain the exact posterior, given its parameters by hand: every log-weight is log p(x)."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_2, TWO_LAYER, X_1, X_2, Gaussian, assert_close, inverse
from pyro import poutine
from torch import nn

from dlvm.distributions import positive
from dlvm.guides import IAF, Diagonal, FullRank, Latent, latents
from dlvm.models import PPCA
from dlvm.nets import MLP

GOLDENS = pytest.mark.parametrize("oracle, x", [(GOLDEN_1, X_1), (GOLDEN_2, X_2)], ids=["golden 1", "golden 2"])


def identity_encoder(width: int) -> MLP:
    return MLP(width, activation=nn.Identity)


def set_head(head: nn.Linear, weight: torch.Tensor, loc: torch.Tensor, *rest: torch.Tensor) -> None:
    """loc = weight @ input + bias; whatever follows is constant."""
    with torch.no_grad():
        head.weight.zero_()
        head.weight[: len(weight)] = weight
        head.bias.copy_(torch.cat([loc, *rest]))


def set_full_rank(posterior, weight, loc, cov) -> None:
    factor = torch.linalg.cholesky(cov)
    rows, columns = torch.tril_indices(len(cov), len(cov), -1)
    set_head(posterior.head, weight, loc, inverse(positive, factor.diagonal()), factor[rows, columns])


def posterior_map(oracle) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """loc(x) = weight x + bias, and the covariance."""
    zero = torch.zeros(len(oracle.mu)).double()
    bias, cov = oracle.posterior(zero)
    weight = torch.stack([oracle.posterior(zero + e).loc - bias for e in torch.eye(len(zero)).double()], -1)
    return weight, bias, cov


def log_w(model, guide, *args, num_particles: int = 3) -> torch.Tensor:
    """Log-weights (num_particles, batch) from two plain traces."""
    with pyro.plate("particles", num_particles, dim=-2):
        q = poutine.trace(guide).get_trace(*args)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*args)
    for trace in (p, q):
        trace.compute_log_prob()
    return sum(
        sign * s["log_prob"]
        for sign, trace in ((1, p), (-1, q))
        for s in trace.nodes.values()
        if s["type"] == "sample" and s["name"] not in ("data", "particles")
    )


def build(oracle, guide, **settings):
    model = PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt())
    spec = {"z": Latent(torch.Size([oracle.weight.shape[1]]))}
    return model, guide(spec, identity_encoder(len(oracle.mu)), **settings).double()


@GOLDENS
def test_full_rank_holds_the_exact_posterior(oracle, x):
    model, guide = build(oracle, FullRank)
    set_full_rank(guide.posteriors[0], *posterior_map(oracle))
    xs = x + torch.randn(5, len(x)).double()
    assert_close(log_w(model, guide, xs), oracle.log_px(xs).expand(3, 5), 1e-9)


@GOLDENS
def test_diagonal_at_its_optimum_misses_by_the_gap(oracle, x):
    model, guide = build(oracle, Diagonal)
    weight, bias, _ = posterior_map(oracle)
    scale = oracle.precision.diagonal().rsqrt()
    set_head(guide.posteriors[0].head, weight, bias, inverse(positive, scale))
    q = poutine.trace(guide).get_trace(x[None]).nodes["z"]["fn"]
    bound = oracle.elbo(x, Gaussian(q.mean[0], torch.diag(q.variance[0])))
    assert_close(oracle.log_px(x) - bound, oracle.diagonal_gap, 1e-10)
    weights = log_w(model, guide, x.expand(200, -1), num_particles=100)
    assert abs(weights.mean() - bound) < 4 * weights.std() / weights.numel() ** 0.5


@GOLDENS
def test_one_linear_iaf_step_holds_the_exact_posterior(oracle, x):
    """gate y + (1 - gate) (M y + W x + b) = loc + L eps, for M strictly lower triangular."""
    model, guide = build(oracle, IAF, depth=1, width=())
    weight, bias, cov = posterior_map(oracle)
    flow, factor = guide.posteriors[0], torch.linalg.cholesky(cov)
    made, k, gate = flow.steps[0], len(cov), 0.5
    base = factor.diagonal() / gate
    set_head(flow.head, torch.zeros_like(weight), torch.zeros(k).double(), inverse(positive, base / flow.widening))
    with torch.no_grad():
        layer = made.layers[0]
        layer.weight.zero_()
        layer.weight[:k] = (factor / base).tril(-1) / (1 - gate)
        layer.bias.copy_(torch.cat([bias / (1 - gate), torch.full((k,), -flow.bias).double()]))
        made.context.weight.copy_(torch.cat([weight / (1 - gate), torch.zeros_like(weight)]))
    xs = x + torch.randn(5, len(x)).double()
    assert_close(log_w(model, guide, xs), oracle.log_px(xs).expand(3, 5), 1e-9)


def two_layer(x=None, n: int = 1):
    with pyro.plate("data", n if x is None else len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2 @ TWO_LAYER.upper.T, TWO_LAYER.s1.sqrt()).to_event(1))
        return pyro.sample("x", dist.Normal(z1 @ TWO_LAYER.lower.T, TWO_LAYER.s2.sqrt()).to_event(1), obs=x)


@pytest.mark.parametrize("order, first", [("top_down", "z2"), ("bottom_up", "z1")])
def test_two_layers_are_exact_in_both_orders(order, first):
    x = torch.randn(5, 4).double()
    guide = FullRank(latents(two_layer, x), identity_encoder(4), order=order, hidden=()).double()
    assert guide.names[0] == first
    zero = torch.zeros(4).double()
    head, conditional = getattr(TWO_LAYER, order)(zero)
    moved = [getattr(TWO_LAYER, order)(e) for e in torch.eye(4).double()]
    weight = torch.stack([h.loc for h, _ in moved], -1)
    beyond = torch.stack([c.loc for _, c in moved], -1)
    set_full_rank(guide.posteriors[0], weight, head.loc, head.cov)
    full = torch.cat([beyond, conditional.weight], -1)
    set_full_rank(guide.posteriors[1], full, conditional.loc, conditional.cov)
    assert_close(log_w(two_layer, guide, x), TWO_LAYER.log_px(x).expand(3, 5), 1e-9)


def test_independent_layers_miss_by_the_block_gap():
    """With each layer's optimal factor the mean log-weight is log p(x) - layer_gap, within 4 SE."""
    x = torch.randn(1, 4).double()
    guide = FullRank(latents(two_layer, x), identity_encoder(4), order="independent").double()
    zero, eye = torch.zeros(4).double(), torch.eye(4).double()
    precision = torch.linalg.inv(TWO_LAYER.posterior(zero).cov)
    weight = torch.stack([TWO_LAYER.posterior(e).loc for e in eye], -1)
    for name, posterior in zip(guide.names, guide.posteriors, strict=True):
        block = {"z1": [0, 1], "z2": [2, 3]}[name]
        cov = torch.linalg.inv(precision[block][:, block])
        set_full_rank(posterior, weight[block], torch.zeros(2).double(), cov)
    weights = log_w(two_layer, guide, x, num_particles=20_000)
    se = weights.std() / weights.numel() ** 0.5
    assert abs(TWO_LAYER.log_px(x) - weights.mean() - TWO_LAYER.layer_gap) < 4 * se < 0.03
