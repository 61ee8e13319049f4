"""Windows on images: what their filters are, and what is read and written through them."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.nets import Read, ReadAll, Write
from dlvm.nets.sequences.recurrent import LSTMCell
from dlvm.nets.windows.attention import Attention, filters


def turned(module: nn.Module, *bias: float) -> nn.Module:
    """The module whose window is where (y, x, log variance, log stride, log strength) say, whatever the state is."""
    net = module.attention.net if hasattr(module, "attention") else module.net
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor(bias))
    return module.double()


def test_every_filter_sums_to_one_wherever_its_window_lies():
    torch.manual_seed(0)
    state = 9 * torch.randn(40, 6)  # windows far outside, and of every width
    window = Attention(6, (9, 5), size=4)(state)
    assert window.rows.shape == (40, 4, 9) and window.columns.shape == (40, 4, 5)
    assert_close(window.rows.sum(-1), torch.ones(40, 4), 1e-5)
    assert_close(window.columns.sum(-1), torch.ones(40, 4), 1e-5)
    assert (window.strength > 0).all()


def test_filters_are_gaussians_about_their_grid():
    centre, stride, scale = (torch.tensor([v], dtype=torch.float64) for v in (3.2, 1.7, 0.9))
    found = filters(centre, stride, scale, side=8, size=3)
    for i in range(3):
        at = 3.2 + (i - 1) * 1.7
        row = (-0.5 * ((torch.arange(8, dtype=torch.float64) - at) / 0.9).square()).exp()
        assert_close(found[i], row / row.sum(), 1e-12)


def test_a_grid_that_is_that_of_the_pixels_reads_and_writes_the_image_itself():
    torch.manual_seed(1)
    x, error = torch.rand(2, 3, 3 * 25, dtype=torch.float64), torch.rand(3, 3 * 25, dtype=torch.float64)
    read = turned(Read(4, (3, 5, 5), size=5), 0, 0, -9.5, 0, 0)  # narrow, the whole image wide, of strength 1
    assert_close(read(x, error, torch.zeros(4).double()), torch.cat([x, error.expand_as(x)], -1), 1e-9)
    assert_close(ReadAll(75)(x, error, torch.zeros(4)), torch.cat([x, error.expand_as(x)], -1), 1e-12)
    write = turned(Write(4, (3, 5, 5), size=5), 0, 0, -9.5, 0, 0)
    h = torch.randn(2, 4).double()
    assert_close(write(h), write.net(h), 1e-9)


def test_a_window_reads_where_it_lies_and_writes_what_it_read_back_there():
    image = torch.zeros(6, 8, dtype=torch.float64)
    image[1, 5] = 1.0
    read = turned(Read(4, (6, 8), size=1), -0.6, 3 / 7, -9.5, 0, 0.7)  # row 1 of 0..5, column 5 of 0..7
    seen, _ = read(image.flatten(), 0 * image.flatten(), torch.zeros(4).double())
    assert_close(seen, torch.exp(10 * torch.tanh(torch.tensor(0.07).double())), 1e-6)
    write = turned(Write(4, (6, 8), size=1), -0.6, 3 / 7, -9.5, 0, 0.7)
    h = torch.zeros(4).double()
    assert_close(write(h).unflatten(-1, (6, 8)), image * write.net(h) / seen, 1e-6)


def test_a_step_of_memory_is_that_of_torch():
    torch.manual_seed(2)
    ours, theirs = LSTMCell(3, 5).double(), nn.LSTMCell(3, 5).double()
    parts = [
        torch.cat([w[:5], w[5:10], w[15:], w[10:15]])
        for w in (theirs.weight_ih, theirs.bias_ih, theirs.weight_hh, theirs.bias_hh)  # theirs has them as i, f, g, o
    ]
    with torch.no_grad():
        for mine, part in zip(
            (ours.input.weight, ours.input.bias, ours.state.weight, ours.state.bias), parts, strict=True
        ):
            mine.copy_(part)
    x, h, c = torch.randn(4, 3).double(), torch.randn(4, 5).double(), torch.randn(4, 5).double()
    for found, expected in zip(ours(x, (h, c)), theirs(x, (h, c)), strict=True):
        assert_close(found, expected, 1e-12)
    many, _ = ours(torch.randn(2, 4, 3).double(), ours.start())
    assert many.shape == (2, 4, 5)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"shape must be \(height, width\) or .* of images, got \(4,\)"):
        Read(4, (4,), size=2)
    with pytest.raises(ValueError, match=r"sides must be \(height, width\)"):
        Attention(4, (3, 4, 4), size=2)
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 3\)"):
        LSTMCell(3, 5)(torch.zeros(2, 4), LSTMCell(3, 5).start())
