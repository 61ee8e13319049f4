"""Data simulated from a model: joint draws, of a stream of their own, also where there are inputs."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from dlvm.evidence.annealing.annealed import annealed, reverse_annealed
from dlvm.evidence.diagnostics.calibration import calibration
from dlvm.evidence.log_px.sandwich import sandwich
from dlvm.evidence.simulate import simulate
from dlvm.models import PPCA


def test_what_is_simulated_is_a_joint_draw():
    """x given z has the likelihood's moments, and z the prior's; neither shares draws with an estimator's seed."""
    model = PPCA(torch.tensor([[0.8, 0.3], [0.0, 0.6], [0.7, -0.5]]), torch.tensor([0.1, -0.2, 0.0]), 0.8)
    (x,), values = simulate(model, 5000, seed=3)
    noise = (x - values["z"] @ model.weight.T - model.loc) / model.scale
    assert (noise.square().mean(0) - 1).abs().max() < 0.1 and (values["z"].square().mean(0) - 1).abs().max() < 0.1
    torch.manual_seed(3)
    assert not torch.equal(torch.randn(5000, 2), values["z"])


def conditional(x: Tensor | None, c: Tensor, n: int = 1) -> Tensor:
    with pyro.plate("data", len(c)):
        z = pyro.sample("z", dist.Normal(c, torch.ones(1)).to_event(1))
        return pyro.sample("x", dist.Normal(z, torch.ones(1)).to_event(1), obs=x)


@pytest.mark.slow
def test_a_conditional_model_is_simulated_at_its_inputs(float64):
    c = torch.linspace(-3, 3, 6)[:, None]
    pairs = simulate(conditional, 6, example=(c, c))
    assert torch.equal(pairs.args[1], c) and not torch.equal(pairs.args[0], c) and set(pairs.values) == {"z"}
    truth = dist.Normal(c, 2**0.5).log_prob(pairs.args[0]).squeeze(-1)
    lower, upper = (
        f(conditional, d, num_chains=20, temperatures=10, leaps=3)
        for f, d in ((annealed, [pairs.args]), (reverse_annealed, pairs))
    )
    assert abs(lower.mean - truth.mean()) < 0.2 and abs(upper.mean - truth.mean()) < 0.2


W = torch.tensor([0.9, -0.6])
COVARIANCE = torch.outer(W, W) + 0.25 * torch.eye(2)


def plain(images, labels=None):
    """z ~ N(0, 1), pixels ~ N(w z, 1/4), and a label z + noise, where labels are given; nobody asks it for n data."""
    w = W.to(images)
    with pyro.plate("data", len(images)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("left", dist.Normal(w[0] * z[..., 0], 0.5), obs=images[:, 0])
        pyro.sample("right", dist.Normal(w[1] * z[..., 0], 0.5), obs=images[:, 1])
        if labels is not None:
            pyro.sample("y", dist.Normal(z[..., 0], 0.5), obs=labels)


def posterior(images, off=1.0):
    w = W.to(images)
    precision = 1 + 4 * w.square().sum()
    with pyro.plate("data", len(images)):
        loc = 4 * (images @ w)[:, None] / precision
        pyro.sample("z", dist.Normal(loc, off * precision.rsqrt()).to_event(1))


def test_a_model_without_n_is_simulated_in_the_shapes_of_an_example():
    (images, labels), values = simulate(plain, 20_000, example=(torch.full((5, 2), 9.0), torch.zeros(5)))
    z = values["z"][:, 0]
    joint = torch.stack([z, *images.T, labels])
    weights = torch.tensor([1.0, *W, 1.0])
    expected = torch.outer(weights, weights) + torch.tensor([0.0, 0.25, 0.25, 0.25]).diag()
    assert (joint.cov() - expected).abs().max() < 0.04 and joint.mean(1).abs().max() < 0.03
    assert set(values) == {"z"} and set(simulate(plain, 3, example=(images[:3],)).values) == {"z"}


def test_an_example_gives_shapes_alone():
    first, second = (simulate(plain, 6, seed=4, example=(torch.full((rows, 2), 7.0 * rows),)) for rows in (2, 6))
    assert torch.equal(first.args[0], second.args[0]) and torch.equal(first.values["z"], second.values["z"])


@pytest.mark.slow
def test_a_bracket_of_a_model_without_n_holds_the_exact_value(float64):
    example = (torch.zeros(4, 2, dtype=torch.float64),)
    found = sandwich(
        plain, posterior, 20, num_particles=50, num_chains=8, temperatures=10, leaps=3, from_prior=True, example=example
    )
    x = simulate(plain, 20, 0, example).args[0]
    exact = dist.MultivariateNormal(torch.zeros(2), COVARIANCE.to(x)).log_prob(x).mean().item()
    assert found.rows["IWAE"].mean == pytest.approx(exact, abs=1e-6)
    assert found.rows["AIS"].mean - 0.05 < exact < found.rows["reverse AIS"].mean + 0.05


def test_calibration_of_a_model_without_n():
    example, settings = (torch.zeros(4, 2),), dict(num_data=600, num_particles=50)
    assert calibration(plain, posterior, example=example, **settings).calibrated
    assert not calibration(plain, partial(posterior, off=0.5), example=example, **settings).calibrated


def unnamed(data=None, n=1):
    with pyro.plate("data", n if data is None else len(data)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        return pyro.sample("x", dist.Normal(z, 0.1), obs=data)


@pytest.mark.parametrize("example", [None, (torch.zeros(3),)], ids=["alone", "example"])
def test_an_argument_may_have_another_name_than_its_site(example):
    (data,), values = simulate(unnamed, 2000, example=example)
    assert set(values) == {"z"}
    assert (data - values["z"]).std() == pytest.approx(0.1, rel=0.1) and values["z"].std() > 0.9


def no_n(x=None):
    return x


def unseen(data=None, n=1):
    with pyro.plate("data", n):
        return pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0))


def tilted(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.factor("tilt", z[..., 0])
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def on_the_second_axis(x):
    with pyro.plate("data", x.shape[1]):
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x.T)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: simulate(no_n, 3), TypeError, "cannot be asked for n data"),
        (lambda: simulate(unseen, 3), ValueError, "none of which observes its argument 'data'"),
        (lambda: simulate(tilted, 3, example=(torch.zeros(3, 1),)), ValueError, "weighs its draws by site 'tilt'"),
        (lambda: simulate(on_the_second_axis, 3, example=(torch.zeros(2, 3),)), ValueError, "along the first axis"),
        (lambda: simulate(no_n, 3, example=(torch.zeros(3, 1),)), ValueError, "observes none of the arguments"),
        (lambda: simulate(PPCA(torch.ones(3, 1), torch.zeros(3), 1.0), 0), ValueError, "n must be at least 1, got 0"),
        (lambda: simulate(conditional, 3, example=(torch.zeros(2, 1),) * 2), ValueError, "expected n=3 rows"),
    ],
)
def test_refused_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_data_in_a_type_that_rounds_what_is_drawn_are_refused_with_the_cast_and_whole_numbers_in_it_pass():
    def normal(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.float())

    for cast, wanted in ((torch.half, r"x\.float\(\)"), (torch.long, r"x\.float\(\)")):
        with pytest.raises(ValueError, match=f"argument 0 of example holds {cast}, which rounds .* as {wanted}"):
            simulate(normal, 4, example=(torch.zeros(4).to(cast),))
    assert simulate(normal, 4, example=(torch.zeros(4),)).args[0].dtype is torch.float32

    def bits(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z), obs=x)

    found = simulate(bits, 40, example=(torch.zeros(40).half(),)).args[0]
    assert found.dtype is torch.half and set(found.tolist()) == {0.0, 1.0}
