"""Discrete heads: shapes, values, probabilities and refusals."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.distributions import Binary, Categorical, Logits, OneHotCategorical
from dlvm.nets import MLP

H = torch.randn(7, 1, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "shape", "event_dim", "event_shape"),
    [
        (Binary, (), 0, ()),
        (Binary, (3,), 1, (3,)),
        (Binary, (2, 3), 2, (2, 3)),
        (Categorical, (3,), 0, ()),
        (Categorical, (2, 3), 1, (2,)),
        (OneHotCategorical, (3,), 1, (3,)),
        (OneHotCategorical, (2, 3), 2, (2, 3)),
    ],
)
def test_distributions_have_the_event_shape_asked_for(make, shape, event_dim, event_shape):
    logits = Logits(nn.Linear(4, 8), *shape)
    d = make(logits, event_dim)(H)
    assert d.batch_shape == (7, 1) and d.event_shape == event_shape
    value = d.sample()
    assert value.shape == (7, 1, *event_shape) and d.support.check(value).all()
    d.log_prob(value).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in logits.parameters())


def test_log_probabilities_are_those_of_the_logits():
    net = nn.Linear(4, 3)
    logs = net(H).log_softmax(-1)
    for c in range(3):
        assert_close(Categorical(net)(H).log_prob(torch.tensor(c)), logs[..., c], 1e-6)
        assert_close(OneHotCategorical(net)(H).log_prob(torch.eye(3)[c]), logs[..., c], 1e-6)
    value = torch.tensor([1.0, 0.0, 1.0])
    signed = net(H) * (2 * value - 1)
    assert_close(Binary(net)(H).log_prob(value), signed.sigmoid().log().sum(-1), 1e-6)


def test_an_array_of_classes_is_independent():
    net = nn.Linear(4, 6)
    joint = Categorical(nn.Sequential(net, nn.Unflatten(-1, (2, 3))), event_dim=1)(H)
    value = torch.tensor([2, 0])
    rows = net(H).unflatten(-1, (2, 3)).log_softmax(-1)
    assert_close(joint.log_prob(value), rows[..., 0, 2] + rows[..., 1, 0], 1e-6)


def test_logits_take_several_contexts_and_any_shape():
    logits = Logits(MLP(6, 8), 2, 3)
    assert logits(H, torch.zeros(5, 2)).shape == (7, 5, 2, 3)
    assert Logits(MLP(6, 8))(H, torch.zeros(5, 2)).shape == (7, 5)
    with pytest.raises(TypeError, match="needs out_features"):
        Logits(nn.Sequential(nn.Linear(4, 8)), 3)


@pytest.mark.parametrize(("make", "wrong", "least"), [(Binary, -1, 0), (Categorical, -1, 0), (OneHotCategorical, 0, 1)])
def test_an_impossible_event_dim_is_refused(make, wrong, least):
    with pytest.raises(ValueError, match=f"event_dim must be an integer of at least {least}, got {wrong}"):
        make(nn.Linear(4, 3), wrong)


def test_single_variables_can_be_enumerated():
    values = Categorical(nn.Linear(4, 3))(H).enumerate_support(expand=False)
    assert torch.equal(values.flatten(), torch.arange(3))
    assert torch.equal(Binary(Logits(MLP(4, 8)), 0)(H).enumerate_support(expand=False).flatten(), torch.arange(2.0))
    assert OneHotCategorical(nn.Linear(4, 3))(H).has_enumerate_support
    assert isinstance(Categorical(nn.Linear(4, 3))(H), dist.Categorical)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_draws_are_those_of_torch(dtype):
    logits = torch.randn(5, 3, 4, dtype=dtype)
    made = OneHotCategorical(nn.Identity(), event_dim=1)(logits)
    torch.manual_seed(0)
    found = made.expand([2, 5, 3]).sample((7,))
    torch.manual_seed(0)
    expected = torch.distributions.OneHotCategorical(logits=logits).expand([2, 5, 3]).sample((7,))
    assert torch.equal(found, expected) and found.dtype == dtype
