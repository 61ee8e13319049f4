"""Independent Bernoulli pixels: exact values, starting bias, and data that no Bernoulli can have produced."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx

from dlvm.distributions import Bernoulli
from dlvm.distributions.bernoulli import GROUP, IndependentBernoulli
from dlvm.nets import MLP

WIDTHS = [1, 3, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 784, 787]


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Pyro's own log p(x)."""
    return dist.Bernoulli(logits=logits).to_event(1).log_prob(x)


def unchecked(logits: Tensor, x: Tensor) -> Tensor:
    """Ours without validation, which no tracer can follow: it decides by values."""
    return IndependentBernoulli(logits, validate_args=False).log_prob(x)


def images(logits: Tensor) -> Tensor:
    return torch.bernoulli(logits.sigmoid())


def test_log_prob_is_the_cross_entropy_summed_over_pixels():
    likelihood = Bernoulli(MLP(2, 8, 6)).double()
    z, x = torch.randn(4, 5, 2).double(), (torch.rand(5, 6) < 0.5).double()
    rates = torch.sigmoid(likelihood.net(z))
    expected = (x * rates.log() + (1 - x) * (1 - rates).log()).sum(-1)
    assert_close(likelihood(z).log_prob(x), expected, 1e-12)
    assert likelihood(z).log_prob(x).shape == (4, 5) and likelihood(z).event_shape == (6,)


def test_probabilities_of_all_images_sum_to_one():
    likelihood = Bernoulli(MLP(2, 8, 6)).double()
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6)
    assert_close(likelihood(torch.randn(2).double()).log_prob(every).logsumexp(0), 0.0, 1e-12)


def test_extreme_logits_stay_finite():
    net = nn.Linear(1, 3)
    nn.init.constant_(net.weight, 1e4)
    log_px = Bernoulli(net)(torch.tensor([[1.0], [-1.0]])).log_prob(torch.tensor([1.0, 0.0, 1.0]))
    assert log_px.isfinite().all()


def test_mean_sets_the_starting_rates():
    net = MLP(2, 8, 3)
    nn.init.zeros_(net.layers[-1].weight)
    likelihood = Bernoulli(net, mean=torch.tensor([0.2, 0.5, 0.9]))
    assert_close(torch.sigmoid(likelihood.net(torch.zeros(2))), torch.tensor([0.2, 0.5, 0.9]), 1e-6)
    Bernoulli(net, mean=torch.tensor([0.0, 0.5, 1.0]))
    assert net.bias.isfinite().all() and net.bias.abs().max() < 8


@pytest.mark.parametrize("net", [MLP(2, 8, 4), nn.Sequential(nn.Linear(2, 3)), nn.Linear(2, 3, bias=False)])
def test_mean_without_a_place_is_refused(net):
    with pytest.raises(ValueError, match=r"mean has shape \(3,\) and needs a net with a bias of that shape"):
        Bernoulli(net, mean=torch.full((3,), 0.5))


# --- the formula without the cross entropy, with gradients enabled and not


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
def test_single_precision_is_within_rounding_of_double(width, grad):
    logits = 4 * torch.randn(20, 50, width) - 2
    x = images(logits)
    with torch.set_grad_enabled(grad):
        assert_close(IndependentBernoulli(logits).log_prob(x), cross_entropy(logits.double(), x.double()), 2e-4)
        doubles = IndependentBernoulli(logits.double()).log_prob(x.double())
        assert_close(doubles, cross_entropy(logits.double(), x.double()), 1e-11)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_of_halves_does_not_underflow(dtype, grad):
    logits = torch.zeros(10 * GROUP, dtype=dtype)
    with torch.set_grad_enabled(grad):
        log_px = IndependentBernoulli(logits).log_prob(torch.ones_like(logits))
    assert_close(log_px / len(logits), -torch.tensor(2.0).double().log(), 1e-6)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("logit", [200.0, -200.0, 1e4, -1e4, 1e30])
def test_large_logits_cost_nothing_where_right_and_themselves_where_wrong(logit, grad):
    logits = torch.full((784,), logit, requires_grad=grad)
    right = torch.full((784,), float(logit > 0))
    wrong = right.clone()
    wrong[5] = 1 - wrong[5]
    with torch.set_grad_enabled(grad):
        p = IndependentBernoulli(logits)
        assert p.log_prob(right).item() == 0.0
        assert p.log_prob(wrong).item() == pytest.approx(-abs(logit), rel=1e-6)
    if grad:
        p.log_prob(wrong).backward()
        assert_close(logits.grad, wrong - right, 0.0)


@pytest.mark.parametrize("grad", [True, False])
def test_infinite_logits_are_never_taken_for_a_likelihood(grad):
    for logit in (torch.inf, -torch.inf):
        with torch.set_grad_enabled(grad):
            p = IndependentBernoulli(torch.full((784,), logit))
            assert not any(p.log_prob(torch.full((784,), value)).isfinite() for value in (0.0, 1.0))


@pytest.mark.parametrize("logits_shape", [(4, 5), (3, 4, 5), (1, 5), (5,)])
@pytest.mark.parametrize("x_shape", [(4, 5), (3, 4, 5), (5,)])
def test_values_and_gradients_are_those_of_the_cross_entropy(logits_shape, x_shape, float64):
    logits = torch.randn(logits_shape, requires_grad=True)
    x = images(torch.randn(x_shape)).requires_grad_()
    ours, theirs = IndependentBernoulli(logits).log_prob(x), cross_entropy(logits, x)
    assert ours.shape == theirs.shape
    assert_close(ours, theirs, 1e-13)
    weights = torch.randn(ours.shape)
    mine, expected = (torch.autograd.grad((weights * log_px).sum(), (logits, x)) for log_px in (ours, theirs))
    for a, b in zip(mine, expected, strict=True):
        assert_close(a, b, 1e-13)
    with torch.no_grad():
        assert torch.equal(IndependentBernoulli(logits).log_prob(x), ours)
    assert torch.autograd.gradgradcheck(unchecked, (logits, x))


def test_gradients_in_single_precision_are_bitwise_those_of_the_cross_entropy():
    logits = torch.randn(20, 784, requires_grad=True)
    x = images(logits.detach())
    ours, theirs = (torch.autograd.grad(f(logits, x).sum(), logits)[0] for f in (unchecked, cross_entropy))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("grad", [True, False])
def test_function_transforms_work(grad, float64):
    logits, x = torch.randn(6), images(torch.randn(4, 6))
    with torch.set_grad_enabled(grad):
        assert_close(torch.vmap(unchecked, (None, 0))(logits, x), cross_entropy(logits, x), 1e-13)
    rates = logits.sigmoid()
    hessian = torch.func.hessian(lambda free: unchecked(free, x[0]))(logits)
    assert_close(hessian, -torch.diag(rates * (1 - rates)), 1e-13)


def test_tracers_follow_values_and_gradients():
    def step(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = logits.detach().requires_grad_()
        log_px = unchecked(leaf, x)
        return log_px.detach(), *torch.autograd.grad(log_px.sum(), leaf)

    logits = torch.randn(2, 3, 4, 787)
    x = images(logits[0, 0])
    graph = make_fx(step)(logits[0], x)
    for eager, traced in zip(step(logits[1], x), graph(logits[1], x), strict=True):
        assert torch.equal(eager, traced)
    with torch.no_grad():
        assert torch.equal(make_fx(unchecked)(logits[0], x)(logits[1], x), unchecked(logits[1], x))


@pytest.mark.parametrize("grad", [pytest.param(True, marks=pytest.mark.slow), False])
def test_one_graph_is_compiled(grad):
    logits = torch.randn(3, 4, 787, requires_grad=grad)
    x = images(logits[0].detach())
    with pyro.validation_enabled(False), torch.set_grad_enabled(grad):  # torch.compile turns it off, for good
        log_px = torch.compile(unchecked, fullgraph=True, backend="aot_eager")(logits, x)
    assert torch.equal(log_px, unchecked(logits, x))
    if grad:
        mine, expected = (torch.autograd.grad(value.sum(), logits)[0] for value in (log_px, unchecked(logits, x)))
        assert torch.equal(mine, expected)


# --- otherwise what Pyro's own would be


def test_it_is_pyros_own_in_everything_but_the_formula():
    logits, x = torch.randn(4, 6), images(torch.randn(4, 6))
    ours, theirs = IndependentBernoulli(logits), dist.Bernoulli(logits=logits).to_event(1)
    for p, q in ((ours, theirs), (ours.expand((3, 4)), theirs.expand((3, 4))), (ours.expand_by((2,)),) * 2):
        assert (p.batch_shape, p.event_shape, p.event_dim) == (q.batch_shape, q.event_shape, q.event_dim)
        assert repr(p.support) == repr(q.support) and p.has_rsample == q.has_rsample
        assert torch.equal(p.mean, q.mean) and torch.equal(p.variance, q.variance)
        assert_close(p.log_prob(x), q.log_prob(x), 1e-5)
        assert_close(p.entropy(), q.entropy(), 1e-5)
    assert isinstance(ours.expand((3, 4)), IndependentBernoulli)
    torch.manual_seed(1)
    drawn = ours.sample((2,))
    torch.manual_seed(1)
    assert torch.equal(drawn, theirs.sample((2,)))
    with pytest.raises(NotImplementedError, match="Enumeration over cartesian product"):
        ours.enumerate_support()


@pytest.mark.parametrize("grad", [True, False])
def test_masks_and_more_event_dimensions_work(grad):
    logits, x = torch.randn(4, 6), images(torch.randn(4, 6))
    p, mask = IndependentBernoulli(logits), torch.tensor([True, False, True, True])
    with torch.set_grad_enabled(grad):
        assert_close(p.mask(mask).log_prob(x), cross_entropy(logits, x) * mask, 1e-5)
        assert_close(p.to_event(1).log_prob(x), cross_entropy(logits, x).sum(), 1e-5)


def test_divergences_are_the_sum_over_pixels():
    p, q = torch.randn(2, 4, 6)
    expected = kl_divergence(dist.Bernoulli(logits=p), dist.Bernoulli(logits=q)).sum(-1)
    for other in (IndependentBernoulli(q), dist.Bernoulli(logits=q).to_event(1)):
        assert_close(kl_divergence(IndependentBernoulli(p), other), expected, 1e-6)


def test_particles_share_the_data_in_a_plate():
    likelihood, x = Bernoulli(MLP(2, 8, 6)), images(torch.randn(4, 6))

    def model() -> None:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("data", 4, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    assert z.shape == (3, 4, 2)
    assert_close(trace.nodes["x"]["log_prob"], cross_entropy(likelihood.net(z), x), 1e-5)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((5, 3), 0.4), "support"),
        (torch.zeros(5, 4), "not broadcastable"),
        (torch.full((5, 3), torch.nan), "support"),
        (1.0, "must be a Tensor"),
    ],
)
def test_what_is_no_image_is_refused(x, message, grad):
    with torch.set_grad_enabled(grad), pytest.raises(ValueError, match=message):
        Bernoulli(MLP(2, 3))(torch.zeros(5, 2)).log_prob(x)


def test_logits_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="logits"):
        IndependentBernoulli(torch.tensor([0.0, torch.nan]))


@pytest.mark.parametrize("grad", [True, False])
def test_without_validation_greys_get_the_cross_entropy(grad):
    logits, greys = torch.randn(4, 6), torch.rand(4, 6)
    expected = (greys * logits - nn.functional.softplus(logits)).sum(-1)
    with torch.set_grad_enabled(grad):
        assert_close(unchecked(logits, greys), expected, 1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_data_in_double_precision_keep_theirs(grad):
    logits, x = torch.randn(4, 6), images(torch.randn(4, 6)).double()
    with torch.set_grad_enabled(grad):
        log_px = IndependentBernoulli(logits).log_prob(x)
        assert log_px.dtype == torch.float64
        assert torch.equal(log_px, cross_entropy(logits, x))
