"""Encoders of sets and sequences: what is not there is not seen, and leading dimensions are left alone."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.guides import Diagonal, Latent
from dlvm.nets import GRU, MLP, DeepSet

pytestmark = pytest.mark.usefixtures("float64")

NETS = {
    "sum": lambda: DeepSet(MLP(2, 5, 4), MLP(4, 3)),
    "mean": lambda: DeepSet(MLP(2, 5, 4), MLP(4, 3), mean=True),
    "gru": lambda: GRU(2, 3),
    "gru of two layers": lambda: GRU(2, 3, layers=2),
    "gru in reverse": lambda: GRU(2, 3, reverse=True),
}


@pytest.fixture(params=NETS)
def net(request):
    return NETS[request.param]()


def test_each_is_read_to_its_own_length_as_if_it_were_alone(net):
    """What lies behind it, NaN here, changes neither the features nor a gradient."""
    x, lengths = torch.randn(2, 4, 6, 2), torch.tensor([[6, 3, 1, 2], [5, 6, 4, 1]])
    mask = torch.arange(6) < lengths[..., None]
    x = torch.where(mask[..., None], x, torch.nan)
    out = net(x, lengths)
    for i in range(2):
        for j in range(4):
            assert_close(out[i, j], net(x[i, j, : lengths[i, j]]), 1e-12)
    assert_close(net(x, mask), out, 1e-12)
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in net.parameters())


def test_none_are_read_as_nothing(net):
    nothing = net(torch.randn(3, 4, 2), torch.zeros(3, dtype=torch.long))
    expected = net.whole(torch.zeros(3, 4)) if isinstance(net, DeepSet) else torch.zeros(3, 3)
    assert_close(nothing, expected, 1e-12)
    assert_close(net(torch.randn(3, 0, 2)), expected, 1e-12)
    assert net(torch.randn(0, 4, 2)).shape == (0, 3)


@pytest.mark.parametrize("mean", [False, True])
def test_a_set_has_no_order_and_may_have_holes(mean):
    net, x = NETS["mean" if mean else "sum"](), torch.randn(3, 6, 2)
    order, mask = torch.randperm(6), torch.rand(3, 6) < 0.5
    assert_close(net(x[:, order], mask[:, order]), net(x, mask), 1e-12)
    twice = net(torch.cat([x, x], 1))
    assert torch.allclose(twice, net(x)) == mean
    assert not torch.allclose(GRU(2, 3)(x[:, order]), GRU(2, 3)(x))


def test_a_gru_is_its_recursion():
    net, x = GRU(2, 3), torch.randn(4, 5, 2)
    cell = nn.GRUCell(2, 3)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.net.state_dict().items()})
    h = torch.zeros(4, 3)
    for step in x.unbind(1):
        h = cell(step, h)
    assert_close(net(x), h, 1e-12)
    back = GRU(2, 3, reverse=True)
    back.load_state_dict(net.state_dict())
    assert_close(back(x), net(x.flip(1)), 1e-12)


def test_as_encoders_their_last_nonlinearity_comes_before_the_heads():
    x, site = torch.randn(3, 5, 2), {"z": Latent(torch.Size([2]))}
    net = DeepSet(MLP(2, 4), MLP(4, 3, activation=nn.Tanh))
    assert_close(Diagonal(site, net).features(x), net(x).tanh(), 1e-12)


BAD = {
    "too long": (torch.tensor([4, 6, 2]), "present must be between 0 and the 5 elements of x, got 2 to 6"),
    "below 0": (torch.tensor([4, -1, 2]), "between 0 and the 5 elements of x, got -1 to 4"),
    "floats": (torch.ones(3), r"truth values of shape \(3, 5\) or integers of shape \(3,\), got torch.float32"),
    "another batch": (torch.ones(4, dtype=torch.long), r"integers of shape \(3,\), got torch.int64 of shape \(4,\)"),
    "another mask": (torch.ones(3, 4, dtype=torch.bool), r"truth values of shape \(3, 5\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_say_what_there_is_is_refused(case):
    present, words = BAD[case]
    for net in NETS["sum"](), NETS["gru"]():
        with pytest.raises(ValueError, match=words):
            net(torch.randn(3, 5, 2), present)


def test_a_sequence_with_a_hole_is_refused_where_its_end_would_be_misread():
    mask = torch.tensor([[True, False, True]])
    assert NETS["sum"]()(torch.randn(1, 3, 2), mask).shape == (1, 3)
    with pytest.raises(ValueError, match="true from the first step to the last.*use a DeepSet"):
        GRU(2, 3)(torch.randn(1, 3, 2), mask)
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, steps, 2\), got \(1, 3, 4\)"):
        GRU(2, 3)(torch.randn(1, 3, 4))
