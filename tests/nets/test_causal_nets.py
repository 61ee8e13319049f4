"""Which output sees which input, from autograd Jacobians: every order, every receptive field, no blind spot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from dlvm.nets import NADE, CausalAttention, CausalTransformer, OrderedMADE, PixelCNN, PixelsLeft, RowsAbove


def stirred(net: nn.Module) -> nn.Module:
    """In double precision, with parameters that leave no path at 0."""
    for name, parameter in net.double().named_parameters():
        if "norm" not in name:
            nn.init.uniform_(parameter, 0.1, 0.5)
    return net


def sees(function, dim: int, points: int = 3) -> Tensor:
    """Whether output d depends on input e, shape (dim, dim)."""
    found = torch.zeros(dim, dim).bool()
    for _ in range(points):
        each = jacobian(lambda x: function(x).sum(-1), torch.rand(dim).double())
        found |= each != 0
    return found


@pytest.mark.parametrize("hidden, direct", [((), True), ((12,), False), ((9, 8), False), ((3,), True), ((3, 12), True)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_each_reading_of_made_sees_exactly_what_comes_before_in_its_order(hidden, direct, outputs):
    net = stirred(OrderedMADE(7, hidden, outputs, orders=4, direct=direct, activation=nn.Softplus))
    assert len({tuple(order.tolist()) for order in net.orders}) == 4
    for order, read in zip(net.orders, net.readings(), strict=True):
        assert torch.equal(sees(read, 7), order[:, None] > order[None, :])


def test_nade_sees_exactly_what_comes_before():
    assert torch.equal(sees(stirred(NADE(7, 4, 2)), 7), torch.ones(7, 7).tril(-1).bool())


def test_nade_is_its_formula():
    net = NADE(4, 3, 2, context=2).double()
    x, h = torch.rand(5, 4).double(), torch.randn(5, 2).double()
    w, c = net.inputs.weight, net.inputs.bias + h @ net.context.weight.T
    for d in range(4):
        hidden = torch.sigmoid(x[:, :d] @ w[:, :d].T + c)
        torch.testing.assert_close(net(x, h)[:, d], hidden @ net.weight[d].T + net.bias[d])


def test_a_transformer_sees_exactly_the_tokens_before():
    """Tokens are whole numbers, without derivatives: each is changed."""
    net = CausalTransformer(6, 4, width=8, heads=2).double()
    x = torch.randint(4, (6,)).double()
    for e in range(6):
        other = x.clone()
        other[e] = (x[e] + 1) % 4
        assert torch.equal((net(x) != net(other)).any(-1), torch.arange(6) > e)


def test_attention_sees_itself_and_what_comes_before():
    net = CausalAttention(4, heads=2).double()
    found = jacobian(lambda h: net(h).sum(-1), torch.randn(5, 4).double()).abs().sum(-1) != 0
    assert torch.equal(found, torch.ones(5, 5).tril().bool())


def square(height: int, width: int, reach: int) -> Tensor:
    """Which pixels come before a pixel and lie no farther than ``reach`` in rows and in columns."""
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    i, j = i.flatten(), j.flatten()
    near = ((i[:, None] - i).abs() <= reach) & ((j[:, None] - j).abs() <= reach)
    return near & (torch.arange(len(i))[:, None] > torch.arange(len(i)))


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("reach", [0, 1, 2, 3, 5, 9])
def test_the_receptive_field_is_what_it_is_said_to_be(reach, layers):
    net = stirred(PixelCNN((1, 5, 6), channels=2, layers=layers, receptive_field=reach))
    assert torch.equal(sees(net, 30), square(5, 6, reach))


@pytest.mark.parametrize("reach", [1, 2])
def test_a_colour_sees_the_colours_of_its_pixel_that_come_before(reach):
    net = stirred(PixelCNN((3, 3, 4), outputs=2, channels=2, layers=2, receptive_field=reach))
    found = sees(net, 36).unflatten(0, (3, 12)).unflatten(2, (3, 12))
    for k in range(3):
        for earlier in range(3):
            same = torch.eye(12).bool() if earlier < k else torch.zeros(12, 12).bool()
            assert torch.equal(found[k, :, earlier], square(3, 4, reach) | same)


@pytest.mark.parametrize("strict", [False, True])
def test_a_causal_convolution_sees_its_reach(strict):
    above, left = (stirred(kind(1, 1, 2, strict)) for kind in (RowsAbove, PixelsLeft))
    for net, rows, columns in ((above, range(-2, 0 if strict else 1), range(-2, 3)),
                               (left, range(1), range(-2, 0 if strict else 1))):  # fmt: skip
        found = jacobian(lambda x, net=net: net(x)[0, 3, 3], torch.rand(1, 7, 7).double())[0].nonzero() - 3
        assert {tuple(place) for place in found.tolist()} == {(i, j) for i in rows for j in columns}


@pytest.mark.parametrize("kind", [RowsAbove, PixelsLeft])
def test_a_strict_convolution_without_reach_is_refused(kind):
    with pytest.raises(ValueError, match="reach must be at least 1 where strict, got 0"):
        kind(1, 1, 0, strict=True)


def test_an_output_sees_the_context_at_once():
    blind = PixelCNN((1, 2, 3), channels=2, layers=2, receptive_field=0, context=3)
    transformer = CausalTransformer(6, 2, width=8, context=3)
    for net in [OrderedMADE(6, (7,), context=3), NADE(6, 4, context=3), blind, transformer]:
        net, x = stirred(net), torch.ones(6).double()
        found = jacobian(lambda h, net=net, x=x: net(x, h).sum(-1), torch.rand(3).double())
        assert (found.abs().amax(-1) > 0).all(), type(net).__name__
