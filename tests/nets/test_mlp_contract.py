"""What the MLP promises: leading dimensions left alone, inputs joined, wrong widths refused."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.nets import MLP


def test_leading_dimensions_are_left_alone():
    net = MLP(3, 8, 2).double()
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    assert net(x).shape == (4, 5, 2) and net(x[0, 0]).shape == (2,)
    assert_close(net(x)[2, 3], net(x[2, 3]), 1e-14)


def test_it_is_the_composition_of_its_layers():
    net = MLP(3, 8, 2, activation=nn.Tanh, output=nn.Sigmoid).double()
    first, second = net.layers
    x = torch.randn(6, 3, dtype=torch.float64)
    hidden = torch.tanh(x @ first.weight.T + first.bias)
    assert_close(net(x), torch.sigmoid(hidden @ second.weight.T + second.bias), 1e-14)
    assert second.bias is net.bias


def test_several_inputs_are_broadcast_then_concatenated_in_order():
    net = MLP(3, 8, 2).double()
    a, b = torch.randn(5, 1, 1, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    joined = torch.cat([a.expand(5, 4, 1), b.expand(5, 4, 2)], -1)
    assert_close(net(a, b), net(joined), 1e-14)
    assert not torch.allclose(net(a, b), net(joined.flip(-1)))


def test_one_size_only_concatenates():
    assert torch.equal(MLP(3)(torch.ones(4, 1), torch.zeros(4, 2)), torch.tensor([1.0, 0, 0]).expand(4, 3))
    assert (MLP(3).in_features, MLP(3).out_features, MLP(3, 8, 2).out_features) == (3, 3, 2)
    with pytest.raises(ValueError, match="bias"):
        _ = MLP(3).bias


def test_identity_activation_makes_it_affine():
    net = MLP(3, 8, 2, activation=nn.Identity).double()
    a, b = torch.randn(2, 3, dtype=torch.float64)
    assert_close(net(0.3 * a + 0.7 * b), 0.3 * net(a) + 0.7 * net(b), 1e-14)


@pytest.mark.parametrize("sizes", [(), (3, 0), (3, -1, 2), (3, 2.0), ("3",)])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must be one or more positive integers"):
        MLP(*sizes)


@pytest.mark.parametrize(
    "inputs, error, words",
    [
        ((torch.zeros(5, 4),), ValueError, r"4 features where in_features=3"),
        ((torch.zeros(5, 1, 28, 28),), ValueError, r"\(5, 1, 28, 28\).*flatten"),
        ((torch.zeros(5, 3), torch.zeros(5, 1)), ValueError, r"4 features where in_features=3"),
        ((), ValueError, r"0 features where in_features=3"),
        ((torch.zeros(5, 2), None), TypeError, r"input 1 must be a tensor, got NoneType"),
    ],
)
def test_bad_inputs_are_refused(inputs, error, words):
    with pytest.raises(error, match=words):
        MLP(3, 8, 2)(*inputs)
