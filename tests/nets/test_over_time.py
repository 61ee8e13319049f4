"""Features of each step: what lies behind a sequence's end is not seen, and a direction sees its own side alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.nets import MLP, Filled, Recurrent

pytestmark = pytest.mark.usefixtures("float64")

NETS = {
    "forward": lambda: Recurrent(2, 3, "forward"),
    "backward": lambda: Recurrent(2, 3),
    "both": lambda: Recurrent(2, 3, "both", cell=partial(nn.RNN, nonlinearity="relu"), layers=2),
    "after a net": lambda: Recurrent(2, 3, inputs=MLP(2, 5)),
}
# Which steps' features change with step 2 of 5, from 0.
SEES = {"forward": {2, 3, 4}, "backward": {0, 1, 2}, "both": {0, 1, 2, 3, 4}, "after a net": {0, 1, 2}}


def started(net: Recurrent) -> Recurrent:
    """With a state to start at that is not 0, as after training."""
    for start in net.starts:
        nn.init.normal_(start)
    return net


@pytest.mark.parametrize("name", NETS)
def test_each_sequence_is_read_as_if_it_were_alone(name):
    """What lies behind it, NaN here, changes neither its features nor a gradient."""
    net = started(NETS[name]())
    x, lengths = torch.randn(2, 4, 6, 2), torch.tensor([[6, 3, 1, 2], [5, 6, 4, 0]])
    within = torch.arange(6) < lengths[..., None]
    x = torch.where(within[..., None], x, torch.nan)
    out = net(x, lengths)
    for i in range(2):
        for j in range(4):
            assert_close(out[i, j, : lengths[i, j]], net(x[i, j, : lengths[i, j]]), 1e-12)
    assert (out[~within] == 0).all()
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_a_direction_sees_its_own_side(name):
    net, x = NETS[name](), torch.randn(5, 2)
    moved = x.clone()
    moved[2] += 1
    change = (net(moved) - net(x)).abs().amax(-1)
    assert set(change.nonzero().flatten().tolist()) == SEES[name]


@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_the_recursion_of_its_cell(reverse):
    net, x = started(Recurrent(2, 3, "backward" if reverse else "forward")), torch.randn(4, 5, 2)
    cell = nn.GRUCell(2, 3)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.nets[0].state_dict().items()})
    h, expected = net.starts[0][0].expand(4, 3), []
    for step in x.unbind(1)[:: -1 if reverse else 1]:
        h = cell(step, h)
        expected.append(h)
    assert_close(net(x), torch.stack(expected[:: -1 if reverse else 1], 1), 1e-12)


def test_a_step_that_was_not_seen_is_told_from_one_of_zeros():
    net = Recurrent(2, 3, inputs=Filled(MLP(4, 5)))
    hole, zeros = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    hole[0, 2] = torch.nan
    assert net(hole).isfinite().all()
    assert not torch.allclose(net(hole), net(zeros))


def test_lengths_that_do_not_fit_are_refused():
    net, x = Recurrent(2, 3), torch.randn(3, 5, 2)
    with pytest.raises(ValueError, match=r"lengths must be of shape \(3,\), from 0 to the 5 steps of x, got up to 6"):
        net(x, torch.tensor([6, 1, 1]))
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        net(x, torch.tensor([1, 1]))
    assert net(torch.randn(0, 5, 2)).shape == (0, 5, 3) and net(torch.randn(3, 0, 2)).shape == (3, 0, 3)
