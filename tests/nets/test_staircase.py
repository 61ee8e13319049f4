"""Products by blocks of a staircase mask are those of the whole mask, and so are their derivatives."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from dlvm.nets import MADE, staircase
from dlvm.nets.staircase import blocks_of


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(staircase, "SMALLEST", 1)
    monkeypatch.setattr(staircase, "LEAST_ROWS", 2)


def parts(rows: int, columns: int, repeat: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(0)
    places = torch.linspace(0, columns, rows).round()
    mask = (torch.arange(columns) < places[:, None]).double().repeat(repeat, 1)
    weight, bias = torch.randn(rows * repeat, columns).double(), torch.randn(rows * repeat).double()
    return [torch.randn(3, 2, columns).double(), weight, mask, bias]


@pytest.mark.parametrize("rows, columns, repeat", [(9, 7, 1), (5, 12, 1), (12, 5, 1), (8, 8, 2)])
def test_blocks_give_what_the_whole_mask_gives(small, rows, columns, repeat):
    value, weight, mask, bias = parts(rows, columns, repeat)
    blocks = blocks_of(mask)
    assert len(blocks) > 1 and blocks[-1].stop == rows * repeat
    expected = F.linear(value, mask * weight, bias)
    torch.testing.assert_close(staircase.staircase(value, weight, mask, bias, blocks), expected, atol=1e-12, rtol=1e-12)
    without = staircase.staircase(value, weight, mask, None, blocks)
    torch.testing.assert_close(without, expected - bias, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_its_derivatives_are_its_own_of_both_orders(small, bias):
    value, weight, mask, shift = parts(6, 5)
    blocks = blocks_of(mask)
    inputs = [value[:, 0].requires_grad_(), weight.requires_grad_(), *([shift.requires_grad_()] if bias else [])]

    def function(value, weight, shift=None):
        return staircase.staircase(value, weight, mask, shift, blocks)

    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def test_what_is_no_staircase_is_multiplied_as_a_whole():
    large = torch.ones(800, 800).tril(-1)
    assert blocks_of(large) and not blocks_of(large[:100, :100])
    assert not blocks_of(large.flip(1)) and not blocks_of(torch.ones(800, 800))


def test_a_large_net_is_the_small_ones_formula():
    """By blocks, and by the masks of its own order given from outside, which is never by blocks."""
    torch.manual_seed(1)
    made = MADE(400, hidden=(500, 450), outputs=1, direct=True)
    torch.nn.init.normal_(made.direct.weight, std=0.05)
    assert all(layer.blocks for layer in made.layers) and made.blocks
    x, found = torch.rand(6, 400), []
    for order in (None, made.order):
        made.zero_grad()
        (out,) = made(x, order=order)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in made.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
