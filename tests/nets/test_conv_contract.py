"""What convolutional nets promise: leading dimensions left alone, images as flat vectors, wrong sizes refused."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch import nn
from torch.nn import functional as F

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, Latent
from dlvm.nets import (
    Conv,
    Deconv,
    GatedBlock,
    GatedConv,
    Maps,
    NormedConv2d,
    PixelFeatures,
    PixelReadout,
    ResidualBlock,
)
from dlvm.nets.mlp import last_layer

pytestmark = pytest.mark.usefixtures("float64")

NETS = {
    "maps": (lambda: Maps(nn.Conv2d(3, 4, 3, padding=1), nn.ELU(), nn.ConvTranspose2d(4, 2, 2, 2)), (3, 4, 4)),
    "residual": (lambda: ResidualBlock(3), (3, 5, 4)),
    "conv": (lambda: Conv(36, 4, 5, 7), (36,)),
    "conv, no maps": (lambda: Conv(36, 7), (36,)),
    "deconv": (lambda: Deconv(5, 4, 3, 64), (5,)),
    "deconv, no maps": (lambda: Deconv(5, 9), (5,)),
    "conv of colours and blocks": (lambda: Conv(90, 4, 2, 7, shape=(2, 5, 9), block=GatedBlock), (90,)),
    "deconv of colours and blocks": (lambda: Deconv(5, 4, 3, 90, shape=(2, 5, 9), block=ResidualBlock), (5,)),
    "pixels": (lambda: PixelReadout((3, 5, 4), 40, 2), (60,)),
    "gated": (lambda: GatedConv(3, 4, stride=2), (3, 5, 4)),
    "gated block": (lambda: GatedBlock(3), (3, 5, 4)),
    "weight norm": (lambda: Maps(NormedConv2d(3, 4, 3, padding=1)), (3, 5, 4)),
}


@pytest.fixture(params=NETS)
def net_and_event(request):
    make, event = NETS[request.param]
    return make(), event


def test_leading_dimensions_are_left_alone(net_and_event):
    net, event = net_and_event
    value = torch.randn(2, 3, *event)
    out = net(value)
    assert out.shape[:2] == (2, 3)
    for i in range(2):
        for j in range(3):
            assert_close(out[i, j], net(value[i, j]), 1e-12)
    assert net(value[:, :0]).shape == (2, 0, *out.shape[2:])
    assert_close(net(value.transpose(0, 1)), out.transpose(0, 1), 1e-12)


def test_every_parameter_gets_a_gradient(net_and_event):
    net, event = net_and_event
    net(torch.randn(9, *event)).square().sum().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None and (value.grad != 0).any(), name


def test_a_residual_block_adds_to_its_input():
    block, h = ResidualBlock(3), torch.randn(2, 3, 5, 5)
    _, first, _, second = block
    change = F.conv2d(F.elu(h), first.weight, first.bias, padding=1)
    change = F.conv2d(F.elu(change), second.weight, second.bias, padding=1)
    assert_close(block(h), h + change, 1e-12)
    assert block.in_features == block.out_features == 3


def test_conv_is_the_composition_of_its_layers():
    net, x = Conv(36, 4, 5, 7, activation=nn.Tanh), torch.rand(3, 36)
    h = x.reshape(3, 1, 6, 6)
    for (layer,) in net.layers:
        h = F.conv2d(h, layer.weight, layer.bias, stride=2, padding=1).tanh()
    assert h.shape == (3, 5, 2, 2)
    assert_close(net(x), h.reshape(3, 20) @ net.last.weight.T + net.last.bias, 1e-12)
    assert (net.in_features, net.out_features) == (36, 7) and net.bias is net.last.bias


def test_conv_halves_odd_sides_upwards_and_takes_integers():
    net, x = Conv(49, 2, 3, 4), torch.randint(2, (5, 49))
    assert net.last.in_features == 3 * 2 * 2
    assert torch.equal(net(x), net(x.double()))


def test_conv_without_maps_is_linear_in_the_pixels():
    net, x = Conv(9, 4), torch.randn(5, 9)
    assert_close(net(x), x @ net.last.weight.T + net.last.bias, 1e-12)


def test_the_first_maps_move_with_the_image():
    net, image = Conv(144, 3, 4), torch.zeros(12, 12)
    image[3:7, 2:8] = torch.randn(4, 6)
    maps, moved = (net.layers[0](i[None]) for i in (image, image.roll((2, 4), (0, 1))))
    assert_close(moved[:, 2:, 3:], maps.roll((1, 2), (1, 2))[:, 2:, 3:], 1e-12)
    assert not torch.allclose(moved, maps)


def test_sizes_of_the_nets():
    count = sum(p.numel() for p in Conv(784, 16, 32, 128).parameters())
    assert count == 10 * 16 + (9 * 16 + 1) * 32 + (32 * 49 + 1) * 128
    count = sum(p.numel() for p in Deconv(50, 32, 16, 784).parameters())
    assert count == 51 * 32 * 49 + 16 * 32 * 16 + 16 * 16 + 784


def test_as_an_encoder_its_activation_comes_before_the_heads():
    encoder, x = Conv(36, 4, 7, activation=nn.Softplus), torch.rand(3, 36)
    guide = Diagonal({"z": Latent(torch.Size([2]))}, encoder)
    assert_close(guide.features(x), F.softplus(encoder(x)), 1e-12)


def test_deconv_is_the_composition_of_its_layers():
    net, z = Deconv(5, 4, 3, 64), torch.randn(2, 5)
    h = (z @ net.first.weight.T + net.first.bias).reshape(2, 4, 2, 2)
    for _, layer in net.layers:
        h = F.conv_transpose2d(F.elu(h), layer.weight, stride=2, padding=1)
    assert h.shape == (2, 1, 8, 8)
    with torch.no_grad():
        net.bias.copy_(torch.randn(64))
    assert_close(net(z), h.reshape(2, 64) + net.bias, 1e-12)
    assert_close(net(z[:, :2], z[:, 2:]), net(z), 1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1, 2), (5, 9), (2, 7, 6), (3, 13, 28)])
def test_images_of_any_size_and_channels_go_in_and_come_out(shape):
    """And each pixel that comes out hears the features: none is left at its bias."""
    pixels = torch.Size(shape).numel()
    there, back = Conv(pixels, 4, 3, 6, shape=shape), Deconv(6, 3, 4, pixels, shape=shape)
    x = torch.randn(2, 3, pixels)
    out = back(there(x))
    assert out.shape == x.shape and (out[0, 0] != out[0, 1]).all()


def test_a_cut_column_is_the_last_one():
    wide, odd = Deconv(5, 4, 64), Deconv(5, 4, 56, shape=(8, 7))
    odd.load_state_dict({**wide.state_dict(), "bias": odd.bias.detach()})
    z = torch.randn(3, 5)
    assert_close(odd(z).reshape(3, 8, 7), wide(z).reshape(3, 8, 8)[..., :7], 1e-12)


def test_blocks_stand_behind_the_convolutions_of_an_encoder_and_before_those_of_a_decoder():
    shift = lambda n: nn.Conv2d(n, n, 1)  # noqa: E731
    net, x = Conv(16, 2, 4, block=shift, activation=nn.Tanh), torch.randn(3, 16)
    h = net.blocks[0](net.layers[0](x.reshape(3, 1, 4, 4))).tanh()
    assert_close(net(x), net.last(h.flatten(1)), 1e-12)
    net, z = Deconv(4, 2, 16, block=shift), torch.randn(3, 4)
    assert_close(net(z), net.layers[0](net.blocks[0](net.first(z).reshape(3, 2, 2, 2))).flatten(1) + net.bias, 1e-12)


def test_a_gate_scales_what_a_convolution_says():
    net, h = GatedConv(3, 2), torch.randn(4, 3, 5, 5)
    said, gate = F.conv2d(h, net[0].weight, net[0].bias, padding=1).split(2, 1)
    assert_close(net(h), said * gate.sigmoid(), 1e-12)
    block = GatedBlock(3)
    change = F.conv2d(F.elu(h), block[1].weight, block[1].bias, padding=1)
    said, gate = F.conv2d(F.elu(change), block[3].weight, block[3].bias, padding=1).split(3, 1)
    assert_close(block(h), h + said * gate.sigmoid(), 1e-12)


def test_deconv_starts_a_likelihood_at_the_mean():
    mean = torch.rand(16) * 0.8 + 0.1
    net = Deconv(2, 3, 16)
    likelihood = Bernoulli(net, mean)
    for layer in net.layers:
        nn.init.zeros_(layer[1].weight)
    assert_close(likelihood(torch.randn(4, 2)).mean, mean.expand(4, -1), 1e-12)


@pytest.mark.parametrize("last", [False, True])
def test_what_is_said_of_a_pixel_depends_on_the_maps_where_it_lies(last):
    """Two numbers for each of two channels: the one at (row 2, column 3) hears 3 x 3 places alone."""
    net = PixelFeatures(nn.Linear(4, 3 * 30), (3, 5, 6))
    head = last_layer(net, 60, 2, last)
    assert isinstance(head, PixelReadout) and head.bias.shape == (120,)
    with torch.no_grad():
        head.bias.copy_(torch.arange(120.0))
    found = torch.autograd.functional.jacobian(head, torch.randn(90)).reshape(120, 3, 5, 6)
    channel, pixel = 1, 2 * 6 + 3
    for number in range(2):
        at = (channel * 30 + pixel) * 2 + number if last else number * 60 + channel * 30 + pixel
        seen = (found[at] != 0).any(0)
        assert seen[1:4, 2:5].all() and seen.sum() == 9
    assert_close(head(torch.zeros(90)), head.bias, 1e-12)
    assert_close(net(torch.ones(4)), net.net(torch.ones(4)), 1e-12)


@pytest.mark.parametrize("kind", [Conv, Deconv])
@pytest.mark.parametrize("sizes", [(), (16,), (16, 0, 16), (16, -1, 16), (16, 2.0, 16), ("16", 16)])
def test_bad_sizes_are_refused(kind, sizes):
    with pytest.raises(ValueError, match=rf"sizes must be two or more positive integers.*write {kind.__name__}"):
        kind(*sizes)


def test_images_that_are_no_squares_are_refused():
    with pytest.raises(ValueError, match=r"sizes\[0\] must be the number of pixels of a square image.*got 50"):
        Conv(50, 4, 8)
    with pytest.raises(ValueError, match=r"sizes\[2\] must be the number of pixels of a square image.*got 50"):
        Deconv(8, 4, 50)
    with pytest.raises(ValueError, match=r"shape must be .* of the 50 numbers that sizes\[0\] says .* got \(5, 9\)"):
        Conv(50, 4, 8, shape=(5, 9))
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4; pass 5"):
        GatedConv(3, 2, kernel_size=4)


@pytest.mark.parametrize("shape", [(5, 35), (5, 1, 6, 6), ()])
def test_data_of_another_width_are_refused(shape):
    for net in (Conv(36, 4, 7), Deconv(36, 4, 16)):
        with pytest.raises(ValueError, match=r"features where in_features=36; flatten each datum"):
            net(torch.zeros(shape))
    with pytest.raises(TypeError, match="input 0 must be a tensor, got NoneType"):
        Conv(36, 4, 7)(None)


@pytest.mark.parametrize("shape", [(5, 2, 4, 4), (5, 4, 4, 3), (3,), (3, 4)])
def test_maps_of_another_number_of_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"maps must have shape \(\*batch, 3, height, width\), got"):
        Maps(nn.Conv2d(3, 4, 1))(torch.zeros(shape))


def test_a_chain_without_a_convolution_is_refused():
    with pytest.raises(ValueError, match=r"layers must have a convolution, got \['ELU'\]"):
        Maps(nn.ELU())
    assert (NETS["maps"][0]().in_features, NETS["maps"][0]().out_features) == (3, 2)
