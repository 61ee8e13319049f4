"""Batch normalisation and weight normalisation: what they compute, and what stays as it is."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch import nn
from torch.nn import functional as F

from dlvm.nets import MLP, BatchNorm, BatchNorm2d, Maps, NormedConv2d, NormedLinear, SpectralLinear

pytestmark = pytest.mark.usefixtures("float64")

KINDS = {"vectors": (BatchNorm, nn.BatchNorm1d, (3,)), "maps": (BatchNorm2d, nn.BatchNorm2d, (3, 2, 4))}


@pytest.fixture(params=KINDS)
def kinds(request):
    """Ours and torch's, with the same gains and shifts, and the shape of an event."""
    ours, torchs, event = KINDS[request.param]
    ours, torchs = ours(3), torchs(3)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2), ours.bias.normal_()
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs, event


def test_with_rows_alone_it_is_torchs_own_in_training_and_evaluation(kinds):
    ours, torchs, event = kinds
    for _ in range(3):
        value = torch.randn(6, *event) * 3 + 1
        assert_close(ours(value), torchs(value), 1e-12)
    for name, kept in torchs.state_dict().items():
        assert_close(ours.state_dict()[name].double(), kept.double(), 1e-12)
    assert_close(ours.eval()(value), torchs.eval()(value), 1e-12)


def test_leading_dimensions_are_normalised_as_if_they_came_one_after_the_other(kinds):
    ours, torchs, event = kinds
    value = torch.randn(2, 4, 6, *event)
    each = torch.stack([torch.stack([torchs(rows) for rows in outer]) for outer in value])
    before = ours.running_mean.clone()
    assert_close(ours(value), each, 1e-12)
    dims = [0, 1, 2, *range(4, value.dim())]
    assert_close(ours.running_mean, 0.9 * before + 0.1 * value.mean(dims), 1e-12)
    ours.eval(), torchs.load_state_dict(ours.state_dict()), torchs.eval()
    assert_close(ours(value)[1, 2], torchs(value[1, 2]), 1e-12)
    assert_close(ours(value)[1, 2, 3], ours(value[1, 2, 3]), 1e-12)
    assert ours(value[:0]).shape == (0, 4, 6, *event)


def test_a_row_alone_is_refused_in_training(kinds):
    ours, _, event = kinds
    places = 1 if len(event) == 1 else 8
    value = torch.randn(5, 1, *event)
    if places == 1:
        with pytest.raises(ValueError, match=r"shape \(5, 1, 3\) has a single row.*leave the last batch out"):
            ours(value)
    else:
        assert ours(value).shape == value.shape
    with pytest.raises(ValueError, match=r"value must have shape \(\*batch, rows, 3.*\), got"):
        ours(torch.randn(event))


def test_weight_norm_starts_as_the_layer_and_scales_by_its_gain():
    layer, h = NormedLinear(3, 4), torch.randn(5, 2, 3)
    assert_close(layer(h), F.linear(h, layer.weight, layer.bias), 1e-12)
    maps, x = NormedConv2d(3, 4, 3, padding=1), torch.randn(5, 3, 4, 4)
    assert_close(maps(x), F.conv2d(x, maps.weight, maps.bias, padding=1), 1e-12)
    with torch.no_grad():
        layer.gain.mul_(3), layer.weight.mul_(7)
    assert_close(layer(h) - layer.bias, 3 / 7 * F.linear(h, layer.weight), 1e-12)


def test_the_gradient_of_a_direction_is_orthogonal_to_it():
    for layer, value in (NormedLinear(3, 4), torch.randn(5, 3)), (NormedConv2d(3, 4), torch.randn(2, 3, 5, 5)):
        layer(value).square().sum().backward()
        assert_close((layer.weight.grad * layer.weight).flatten(1).sum(1), torch.zeros(4), 1e-12)
        assert (layer.gain.grad != 0).all()


def test_a_direction_of_zero_gives_its_bias_and_no_nan():
    layer = NormedLinear(3, 2)
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.gain)
    out = layer(torch.ones(5, 3))
    out.sum().backward()
    assert_close(out, layer.bias.expand(5, 2), 1e-12)
    assert layer.weight.grad.isfinite().all()


def test_a_spectral_layer_is_a_map_divided_by_its_largest_singular_value():
    """Values and gradients are those of singular values, once iterations have found the direction."""
    layer, h = SpectralLinear(5, 3), torch.randn(7, 5)
    for _ in range(300):
        layer(h)
    found = layer(h)
    largest = torch.linalg.svdvals(layer.weight)[0]
    expected = F.linear(h, layer.weight / largest, layer.bias)
    assert_close(found, expected, 1e-9)
    mine, exact = (torch.autograd.grad(out.square().sum(), layer.weight)[0] for out in (found, expected))
    assert_close(mine, exact, 1e-8)


def test_a_spectral_layer_follows_its_weights_while_training_alone_and_may_be_called_twice_before_a_gradient():
    layer, h = SpectralLinear(4, 6), torch.randn(3, 4)
    (layer(h) + layer(2 * h)).sum().backward()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6, 4))
    layer.eval()
    assert torch.equal(layer(h), layer(h))
    before = torch.linalg.matrix_norm(layer.weight / (layer.weight.T @ layer.left).norm(), 2)
    layer.train()
    for _ in range(300):
        layer(h)
    after = torch.linalg.matrix_norm(layer.weight / (layer.weight.T @ layer.left).norm(), 2)
    assert before > 1.01 and abs(after - 1) < 1e-9
    nn.init.zeros_(layer.weight)
    assert_close(layer(h), layer.bias.expand(3, 6), 1e-12)


def test_an_mlp_takes_layers_and_norms():
    net = MLP(3, 5, 4, 2, layer=NormedLinear, norm=BatchNorm, activation=nn.Tanh)
    x, (a, b, c), (first, second) = torch.randn(6, 3), net.layers, net.norms
    assert {type(layer) for layer in net.layers} == {NormedLinear} and net.bias is c.bias
    assert_close(net(x), c(second(b(first(a(x)).tanh())).tanh()), 1e-12)
    assert len(MLP(3, 2, norm=BatchNorm).norms) == 0
    assert Maps(NormedConv2d(3, 4)).out_features == 4
