"""Nets of any size, on inputs of any shape, layout and dtype: the composition of their layers, row by row."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from torch import Tensor, nn

from dlvm.nets import MADE, MLP, Conv, Deconv, Maps, ResidualBlock, out_features

BATCHES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
WIDTHS = st.lists(st.integers(1, 5), min_size=2, max_size=4)
NETS = {
    "mlp": lambda: MLP(9, 5, 4, activation=nn.Tanh),
    "conv": lambda: Conv(9, 2, 4),
    "conv, no maps": lambda: Conv(9, 4),
    "deconv": lambda: Deconv(9, 2, 16),
    "deconv, no maps": lambda: Deconv(9, 4),
}


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def laid_out(draw, width: int) -> Tensor:
    """The same kind of numbers in any batch, in the ways in which tensors lie in memory."""
    x = numbers(*draw(BATCHES), width, seed=draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(["plain", "reversed strides", "every second", "expanded", "wants a gradient"]))
    if kind == "reversed strides":
        return x.mT.contiguous().mT if x.dim() > 1 else x
    if kind == "every second":
        return torch.stack([x, -x], -1).flatten(-2)[..., ::2]
    if kind == "expanded":
        return x.expand(2, *x.shape)
    return x.requires_grad_() if kind == "wants a gradient" else x


@quick(40)
@given(WIDTHS, BATCHES, st.integers(0, 99))
def test_an_mlp_is_the_composition_of_its_layers_in_any_batch(sizes, batch, seed):
    net, x = MLP(*map(np.int64, sizes), activation=nn.Tanh), numbers(*batch, sizes[0], seed=seed)
    h = x.double()
    for i, layer in enumerate(net.layers):
        h = (torch.tanh(h) if i else h) @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(net(x), h.float(), atol=1e-5, rtol=1e-4)
    assert out_features(net) == net(x).shape[-1] == sizes[-1]


@pytest.mark.parametrize("name", NETS)
def test_each_row_is_mapped_alone_however_it_lies_in_memory(name):
    net = NETS[name]()

    @quick(15)
    @given(laid_out(9))
    def property(x):
        rows = torch.stack([net(row) for row in x.detach().reshape(-1, 9).clone()])
        torch.testing.assert_close(net(x), rows.view(*x.shape[:-1], -1), atol=1e-5, rtol=1e-4)
        assert net(x).requires_grad

    property()


@pytest.mark.parametrize("name", NETS)
def test_single_precision_is_double_precision_rounded_and_the_two_are_not_mixed(name):
    net = NETS[name]()
    twice = deepcopy(net).double()

    @quick(10)
    @given(st.integers(0, 99), st.sampled_from([1e-20, 1.0, 1e4, 1e20]))
    def property(seed, size):
        x = size * numbers(5, 9, seed=seed)
        expected = twice(x.double())
        assert (net(x) - expected).abs().max() <= 1e-5 * max(1.0, size)
        for other, data in ((net, x.double()), (twice, x), (net, x.half())):
            with pytest.raises(
                ValueError, match=r"inputs are torch.float\d+ and the net's weights torch.float\d+; convert"
            ):
                other(data)

    property()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_and_truth_values_are_taken_as_floats(name, dtype):
    net, x = NETS[name](), torch.arange(18).view(2, 9) % 2
    assert torch.equal(net(x.to(dtype)), net(x.float()))


@pytest.mark.parametrize("name", NETS)
def test_no_data_are_mapped_to_no_features(name):
    net = NETS[name]()
    assert net(torch.zeros(0, 9)).shape == (0, net.out_features) and net(torch.zeros(3, 0, 9)).numel() == 0


@quick(25)
@given(BATCHES, BATCHES, st.integers(1, 3), st.integers(1, 3))
def test_inputs_are_joined_as_broadcasting_joins_them_or_refused(one, other, a, b):
    x, y = numbers(*one, a), numbers(*other, b)
    try:
        batch = torch.broadcast_shapes(one, other)
    except RuntimeError:
        with pytest.raises(ValueError, match="inputs of shapes .* must agree in all but the last dimension"):
            MLP(a + b)(x, y)
    else:
        expected = torch.cat([x.expand(*batch, a), y.expand(*batch, b)], -1)
        assert torch.equal(MLP(a + b)(x, y), expected)


@quick(25)
@given(st.integers(1, 4), st.integers(0, 2), st.lists(st.integers(4, 9), max_size=3), st.integers(1, 3), st.booleans())
def test_an_output_of_made_depends_on_the_inputs_before_its_own_alone(dim, context, hidden, outputs, reverse):
    made = MADE(dim, context, hidden, outputs, reverse, nn.Tanh).double()
    h = (numbers(context).double(),) if context else ()
    jacobian = torch.autograd.functional.jacobian(lambda y: torch.stack(made(y, *h)), numbers(dim).double())
    assert jacobian.shape == (outputs, dim, dim)
    allowed = torch.ones(dim, dim).tril(-1)
    assert not jacobian[:, (allowed.T if reverse else allowed) == 0].any()
    assert jacobian[:, (allowed.T if reverse else allowed) == 1].all(), "an output is cut off from an input"


@quick(15)
@given(st.integers(1, 3), BATCHES, st.integers(1, 5), st.integers(1, 5))
def test_maps_may_have_any_batch_and_any_sides(channels, batch, height, width):
    maps = numbers(*batch, channels, height, width)
    for net in (Maps(nn.Conv2d(channels, 2, kernel_size=3, padding=1)), ResidualBlock(channels)):
        alone = torch.stack([net(each) for each in maps.reshape(-1, *maps.shape[-3:])])
        torch.testing.assert_close(net(maps), alone.view(*batch, *alone.shape[1:]), atol=1e-5, rtol=1e-4)
