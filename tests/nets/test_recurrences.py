import gc
from copy import deepcopy
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from dlvm.distributions import ConditionalChain, GatedTransition
from dlvm.guides import Sequential, latents
from dlvm.inference import ELBO
from dlvm.inference.engine.capture import Captured
from dlvm.inference.engine.module_state import State
from dlvm.nets import Recurrent
from dlvm.nets.recurrences import scan as scans
from dlvm.nets.recurrences.scan import scan
from dlvm.nets.recurrences.states import all_states

NETS = {
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": partial(nn.RNN, nonlinearity="relu"),
    "no bias": partial(nn.GRU, bias=False),
}


@pytest.fixture(params=NETS)
def read(request):
    torch.manual_seed(0)
    net = NETS[request.param](3, 5, 2, batch_first=True).double()
    x, start = (torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((4, 12, 3), (2, 4, 5)))
    return net, x, start


def test_states_and_their_gradients_are_torchs(read):
    net, x, start = read
    found, expected = all_states(net, x, start), net(x, start)[0]
    leaves, weight = [x, start, *net.parameters()], torch.randn_like(expected)
    assert found.grad_fn.next_functions[0][0].name().startswith("_States")  # not torch's own once more
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad((value * weight).sum(), leaves) for value in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_second_derivatives_of_states_are_torchs(read):
    net, x, start = read
    leaves = [x, start, *net.parameters()]

    def second(value):
        first = torch.autograd.grad(value.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    for ours, theirs in zip(second(all_states(net, x, start)), second(net(x, start)[0]), strict=True):
        torch.testing.assert_close(ours, theirs)


def looped(chain, shape=()):
    """A path and the densities of its steps by the definition, on the noise that the chain draws."""
    noise = torch.randn(chain.event_shape[0], *shape, *chain.batch_shape, chain.event_shape[1], dtype=chain.start.dtype)
    z, path, densities = chain.start.expand(noise.shape[1:]), [], []
    for t, e in enumerate(noise):
        p = chain.of_step(z, t).base_dist
        z = p.loc + p.scale * e
        path.append(z)
        densities.append(p.log_prob(z).sum(-1))
    path, densities = torch.stack(path, -2), torch.stack(densities, -1)
    if chain.within is None:
        return path, densities
    return torch.where(chain.within.unsqueeze(-1), path, 0), torch.where(chain.within, densities, 0)


class Steered(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 6).double()

    def forward(self, z, h):
        loc, raw = self.net(torch.cat([z, h], -1)).chunk(2, -1)
        return dist.Normal(loc.sin(), raw.exp()).to_event(1)


@pytest.mark.parametrize("lengths", [None, torch.tensor([12, 3, 1, 9])], ids=["whole", "ragged"])
@pytest.mark.parametrize("shape", [(), (2,)], ids=["one", "particles"])
@pytest.mark.parametrize("inputs", [False, True], ids=["prior", "guide"])
def test_a_scanned_draw_is_the_loop_with_every_gradient(lengths, shape, inputs):
    torch.manual_seed(0)
    step = Steered() if inputs else GatedTransition(3, 8).double()
    start = torch.randn(3, dtype=torch.double, requires_grad=True)
    h = torch.randn(4, 12, 2, dtype=torch.double, requires_grad=True)
    leaves = [start, *step.parameters(), *([h] if inputs else [])]
    found = []
    for draw in (lambda c: ((path := c.rsample(shape)), c.densities(path)), lambda c: looped(c, shape)):
        torch.manual_seed(1)
        path, densities = draw(ConditionalChain(step, start.expand(4, 3), 12, h if inputs else None, lengths))
        loss = (path.cos() * torch.arange(1.0, 4)).sum() + (densities * torch.linspace(0, 1, 12)).sum()
        found.append((path, densities, *torch.autograd.grad(loss, leaves)))
    assert any(cell is not None for cell in scans._owners[step].values())
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


class Drifting(nn.Module):
    """A step with a number of Python's and a weight that can be replaced."""

    def __init__(self):
        super().__init__()
        self.by, self.net = 1.0, nn.Linear(2, 2).double()

    def forward(self, z):
        return dist.Normal(self.net(z).tanh() + self.by, 1.0).to_event(1)


def drawn(step, seed=0):
    torch.manual_seed(seed)
    return ConditionalChain(step, torch.zeros(3, 2, dtype=torch.double), 10).rsample()


def test_a_step_that_has_changed_is_traced_anew():
    step = Drifting()
    drawn(step)
    step.by = -2.0
    torch.testing.assert_close(drawn(step), drawn(deepcopy(step)))
    step.net.weight = nn.Parameter(3 * step.net.weight.detach())
    path = drawn(step)
    torch.testing.assert_close(path, drawn(deepcopy(step)))
    assert torch.autograd.grad(path.sum(), step.net.weight)[0].abs().sum() > 0


def test_a_step_that_always_changes_is_drawn_by_the_loop_in_the_end():
    step = Drifting()
    for number in range(scans.MOST_TRACES + 2):
        step.by = float(number)
        assert (drawn(step).mean() - step.by).abs() < 1.5
    assert scans._owners[step].traces > scans.MOST_TRACES


def test_programs_are_gone_with_their_owner():
    before = len(scans._cells)
    step = Drifting()
    drawn(step)
    assert len(scans._cells) == before + 1
    del step
    gc.collect()
    assert len(scans._cells) == before


class Branching(Drifting):
    def forward(self, z):
        return dist.Normal(self.net(z) if bool(z.sum() > 0) else self.net(z) - 5.0, 1.0).to_event(1)


class Dropping(Drifting):
    def forward(self, z):
        return dist.Normal(nn.functional.dropout(self.net(z) + 4.0, 0.5), 0.01).to_event(1)


@pytest.mark.parametrize("kind", [Branching, Dropping])
def test_a_step_that_is_no_program_is_drawn_by_the_loop(kind):
    step = kind()
    path = drawn(step)
    assert list(scans._owners[step].values()) == [None]
    if kind is Dropping:  # the dropped numbers are 0, and not the same at each step
        dropped = path.abs() < 0.1
        assert 0.2 < dropped.double().mean() < 0.8 and not (dropped == dropped[:, :1]).all()


def test_an_error_of_the_step_is_its_own():
    class Wrong(Drifting):
        def forward(self, z):
            return dist.Normal(self.net(z), -1.0).to_event(1)

    with pytest.raises(ValueError, match="scale"):
        drawn(Wrong())


def test_few_steps_take_the_loop():
    step, x = nn.Linear(2, 2), torch.zeros(scans.FEWEST - 1, 3, 2)
    assert scan(step, lambda z, e: (step(z) + e,), torch.zeros(3, 2), (x,)) is None


def test_second_derivatives_of_a_scanned_draw_are_refused_and_those_of_the_loop_are_not():
    step = Drifting()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(drawn(step).sum(), step.net.weight, create_graph=True)
    path = ConditionalChain(lambda z: step(z), torch.zeros(3, 2, dtype=torch.double), 10).rsample()
    (first,) = torch.autograd.grad(path.sum(), step.net.weight, create_graph=True)
    assert torch.autograd.grad(first.sum(), step.net.weight)[0].abs().sum() > 0


def test_a_recording_does_not_grow_with_the_steps():
    from dlvm.distributions import Bernoulli
    from dlvm.models import DeepMarkov
    from dlvm.nets import MLP

    torch.manual_seed(0)
    model = DeepMarkov(2, Bernoulli(MLP(2, 8, 3)), GatedTransition(2, 4))
    guide = Sequential(latents(model, torch.zeros(4, 10, 3)), Recurrent(3, 6, "both"))
    objective, sizes = ELBO(), []
    for steps in (10, 40):
        x = torch.rand(4, steps, 3).round()

        def gradients(x):
            loss = objective.differentiable_loss(model, guide, x)
            return [loss.detach()], list(torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()]))

        sizes.append(Captured(gradients, State([model, guide, objective]), (x,), {}).graph.size)
    assert sizes[0] == sizes[1] < 600
