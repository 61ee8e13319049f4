"""The inverse autoregressive flow against its autograd Jacobian."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import assert_close
from torch import nn
from torch.autograd.functional import jacobian

from dlvm.distributions import InverseAutoregressiveNormal, positive
from dlvm.distributions.scale import limited
from dlvm.nets import MLP

H, D = 3, 4
HIDDEN = [(), (16,), (16, 16)]


def build(depth: int = 3, hidden: tuple[int, ...] = (16,), noise: float = 0.3) -> nn.Module:
    module = InverseAutoregressiveNormal(MLP(H, 8, 6), D, depth=depth, hidden=hidden).double()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(noise * torch.randn_like(value))
    return module


def through(transforms, y):
    for step in transforms:
        y = step(y)
    return y


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_log_det_is_that_of_the_autograd_jacobian(hidden, depth):
    q = build(depth, hidden)(torch.randn(H).double())
    y = torch.randn(D).double()
    values, total = [y], 0.0
    for step in q.transforms:
        values.append(step(values[-1]))
        total = total + step.log_abs_det_jacobian(values[-2], values[-1])
    sign, expected = torch.linalg.slogdet(jacobian(lambda y: through(q.transforms, y), y))
    assert sign == 1
    assert_close(total, expected, 1e-12)
    assert_close(q.log_prob(values[-1].clone()), q.base_dist.log_prob(y) - expected, 1e-9)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_each_step_is_triangular_and_the_order_turns_round(hidden):
    q = build(4, hidden)(torch.randn(H).double())
    y = torch.randn(D).double()
    for t, step in enumerate(q.transforms):
        value = jacobian(lambda y, step=step: step(y), y)
        value = value.T if t % 2 else value
        assert torch.equal(value.triu(1), torch.zeros(D, D).double())
        diagonal = value.diagonal()
        assert ((0 < diagonal) & (diagonal < 1)).all()
        assert (value.tril(-1)[torch.tril_indices(D, D, -1).unbind()] != 0).all()


def test_inverse_undoes_forward_without_the_cache():
    q = build(3)(torch.randn(5, H).double())
    y = torch.randn(5, D).double()
    z = through(q.transforms, y)
    back = z.clone()
    for step in reversed(q.transforms):
        back = step.with_cache(0).inv(back)
    assert_close(back, y, 1e-10)


def test_own_samples_are_scored_without_calling_a_network():
    module = build(3)
    q = module(torch.randn(5, H).double())
    calls = []
    for made in module.steps:
        made.register_forward_hook(lambda *_: calls.append(1))
    z = q.rsample((6,))
    assert len(calls) == 3
    q.log_prob(z)
    assert len(calls) == 3, "scoring an own sample called the networks again"


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("depth", [1, 2, 8])
def test_start_is_near_a_plain_shrinkage(hidden, depth):
    """At the start gate = sigmoid(2) and m = 0, nearly: z = gate^depth z0, and the whole is near its plain Gaussian."""
    module = InverseAutoregressiveNormal(MLP(H, 32, 32), D, depth=depth, hidden=hidden).double()
    h = torch.randn(20, H).double()
    q = module(h)
    y = torch.randn(20, D).double()
    gate = torch.sigmoid(torch.tensor(2.0)).item()
    assert (through(q.transforms, y) - gate**depth * y).square().mean().sqrt() < 0.3
    loc, raw = module.head(module.net(h)).chunk(2, -1)
    plain = torch.distributions.Normal(loc, positive(raw))
    z = q.rsample((500,))
    divergence = (q.log_prob(z) - plain.log_prob(z).sum(-1)).mean() / D
    assert 0 < divergence < 0.05 * depth  # nats per dimension


def test_a_linear_step_can_turn_a_correlation_round_with_the_context():
    """cov(z_1, z_2) is above 0 at h and below 0 at -h: without a factor of the context it is the same at every h."""
    module = InverseAutoregressiveNormal(nn.Linear(1, 1, bias=False), 2, depth=1, hidden=()).double()
    made = module.steps[0]
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
        module.net.weight.fill_(1.0)
        made.layers[0].weight[1, 0] = 1.0  # m_2 = (1 + g h) z_1
        made.film.weight[1] = 2.0
    slopes = [jacobian(module(torch.tensor([h]).double()).transforms[0], torch.zeros(2).double()) for h in (1.0, -1.0)]
    gate = torch.sigmoid(limited(torch.tensor(2.0).double()))
    assert_close(torch.stack([value[1, 0] for value in slopes]), (1 - gate) * torch.tensor([3.0, -1.0]).double(), 1e-12)


def test_weights_without_film_are_refused_by_its_name_and_are_the_same_flow_where_it_is_left_at_its_start():
    torch.manual_seed(1)
    old, h = build(2), torch.randn(5, H).double()
    weights = {name: value for name, value in old.state_dict().items() if "film" not in name}
    for made in old.steps:
        made.film = None
    new = InverseAutoregressiveNormal(MLP(H, 8, 6), D, depth=2, hidden=(16,)).double()
    with pytest.raises(RuntimeError, match=r"Missing key.*steps\.0\.film\.weight.*steps\.1\.film\.weight"):
        new.load_state_dict(weights)
    new.load_state_dict(weights, strict=False)
    z = torch.randn(5, D).double()
    assert torch.equal(new(h).log_prob(z), old(h).log_prob(z))


def test_reparametrised_gradient_is_that_of_finite_differences():
    """d/dphi of log q(z(phi)) with fixed noise, total derivative, along a random direction."""
    module, h = build(2), torch.randn(5, H).double()
    direction = [torch.randn_like(value) for value in module.parameters()]

    def value() -> torch.Tensor:
        torch.manual_seed(1)
        q = module(h)
        z = q.rsample()
        return (q.log_prob(z) + z.square().sum(-1)).sum()

    def moved(step: float) -> float:
        with torch.no_grad():
            for value_, d in zip(module.parameters(), direction, strict=True):
                value_.add_(step * d)
            result = value().item()
            for value_, d in zip(module.parameters(), direction, strict=True):
                value_.sub_(step * d)
        return result

    gradient = torch.autograd.grad(value(), list(module.parameters()))
    slope = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    assert_close(slope, (moved(1e-6) - moved(-1e-6)) / 2e-6, 1e-4 * max(1.0, slope.abs().item()))


def test_gate_closed_by_an_extreme_context_can_still_be_inverted():
    module = build(1)
    with torch.no_grad():
        module.steps[0].layers[-1].bias[D:] = -1e4
    q = module.float()(torch.randn(5, H))
    z = q.rsample()
    assert q.log_prob(z).isfinite().all()
    assert q.log_prob(z.clone()).isfinite().all()


def test_bad_depth_is_refused():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0; for no flow use DiagonalNormal"):
        InverseAutoregressiveNormal(MLP(H, 8, 6), D, depth=0)


def test_no_deeper_than_needed_to_be_non_gaussian():
    """Two nonlinear steps leave the Gaussians: the sample's fourth moment is not that of one."""
    module = build(2, (16,), noise=1.0)
    z = module(torch.randn(H).double()).sample((20_000,))
    z = (z - z.mean(0)) / z.std(0)
    kurtosis = z.pow(4).mean(0) - 3
    assert kurtosis.abs().max() > 6 * math.sqrt(24 / len(z))
