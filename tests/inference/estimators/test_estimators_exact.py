"""The exact mean of every estimator's gradient, over all noise and all classes, against autograd of the exact bound."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles.forcing import Lattice, gradient
from torch import nn

from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    NVIL,
    STL,
    TVO,
    VIMCO,
    DReG,
    GumbelSoftmax,
    MovingAverage,
    Renyi,
    ScoreFunction,
    Separate,
    StraightThrough,
    Total,
    VRMax,
)

pytestmark = pytest.mark.usefixtures("float64")
X = torch.tensor([[0.8, -0.4]], dtype=torch.float64)

BOUNDS = {
    "ELBO": lambda e=None: ELBO(2, e),
    "IWAE": lambda e=None: IWAE(2, e),
    "Renyi(.5)": lambda e=None: Renyi(0.5, 2, e),
    "Renyi(-1)": lambda e=None: Renyi(-1.0, 2, e),
    "MIWAE(2,1)": lambda e=None: MIWAE(2, 1, e),
    "MIWAE(1,2)": lambda e=None: MIWAE(1, 2, e),
    "CIWAE": lambda e=None: CIWAE(0.3, 2, e),
    "TVO": lambda e=None: TVO(2, 3, 0.2, e),
    "CUBO": lambda e=None: CUBO(2, 2, e),
}
LINEAR = {"ELBO", "MIWAE(2,1)"}


def fixed_average() -> MovingAverage:
    average = MovingAverage()
    average.sum.fill_(-0.8)
    average.weight.fill_(0.5)
    return average


ESTIMATORS = {
    "Total": Total,
    "STL": STL,
    "DReG": DReG,
    "score": lambda: ScoreFunction(everywhere=True),
    "average": lambda: ScoreFunction(fixed_average(), everywhere=True),
    "NVIL": lambda: ScoreFunction(NVIL(nn.Linear(2, 1)), everywhere=True),
    "VIMCO": lambda: VIMCO(everywhere=True),
}


def leaves(*values) -> list[torch.Tensor]:
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


def continuous(nodes: int = 40):
    """z ~ N(m, 1), x | z ~ N(tanh(a z + b), s); q(z | x) = N(u x + v, exp(w)), off on purpose."""
    theta = [m, a, b, s] = leaves(0.3, [0.7, -0.5], [0.1, 0.2], 1.1)
    phi = [u, v, w] = leaves([0.4, -0.3], -0.5, -0.3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(m, 1.0))
            pyro.sample("x", dist.Normal(torch.tanh(z.unsqueeze(-1) * a + b), s).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ u + v, w.exp()))

    return Lattice(model, guide, X, noise={"z": 1}, nodes=nodes), theta, phi


def mixed(y_first: bool, one_hot: bool = False, nodes: int = 24):
    """y picks the prior of z, and both the mean of x; q(y|x) q(z|y,x), or q(z|x) q(y|z,x)."""
    classes = torch.eye(3 if one_hot else 2, dtype=torch.float64)
    means = [[0.5, 0.1], [-0.4, 0.3], [0.0, 0.2]]
    theta = [logit, m, a, c] = leaves([0.4, -0.3, 0.1], [0.3, -0.5, 0.2], [0.6, -0.4], means)
    phi = [k, u, v, w] = leaves([[0.5, -0.3], [0.2, 0.4], [0.1, -0.2]], [0.4, -0.3], [0.2, -0.4, 0.3], -0.1)

    def sample(logits):
        if one_hot:
            return pyro.sample("y", dist.OneHotCategorical(logits=logits))
        y = pyro.sample("y", dist.Bernoulli(logits=logits[..., 1] - logits[..., 0]))
        return torch.stack([1 - y, y, torch.zeros_like(y)], -1)

    def model(x):
        with pyro.plate("data", len(x)):
            y = sample(logit)
            z = pyro.sample("z", dist.Normal(y @ m, 1.0))
            pyro.sample("x", dist.Normal(torch.tanh(z.unsqueeze(-1) * a) + y @ c, 1.2).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            if y_first:
                y = sample(x @ k.T)
                pyro.sample("z", dist.Normal(x @ u + y @ v, w.exp()))
            else:
                z = pyro.sample("z", dist.Normal(x @ u, w.exp()))
                sample(x @ k.T + z.unsqueeze(-1) * v)

    values = {"y": classes if one_hot else torch.tensor([0.0, 1.0], dtype=torch.float64)}
    return Lattice(model, guide, X, values, {"z": 1}, nodes), theta, phi


def exact(lattice, name, theta, phi):
    """Of the bound, whose K is 2; CUBO is lowered, and by the guide alone."""
    found = gradient(lattice.expected(BOUNDS[name]().bound, 2), [*theta, *phi])
    count = sum(p.numel() for p in theta)
    return torch.cat([0 * found[:count], -found[count:]]) if name == "CUBO" else found


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", BOUNDS)
def test_estimators_of_a_gaussian_site_are_unbiased(name, estimator):
    """To 1e-6, by quadrature over the noise of both particles; STL is off by far more where the bound is not linear."""
    lattice, theta, phi = continuous()
    expected = exact(lattice, name, theta, phi)
    objective = BOUNDS[name](ESTIMATORS[estimator]())
    error = (lattice.expected_gradient(objective, [*theta, *phi]) - expected).abs()
    assert expected[6:].abs().max() > 0.02
    assert error[:6].max() < 1e-6
    assert error[6:].max() > 0.02 if estimator == "STL" and name not in LINEAR else error[6:].max() < 1e-6


MIXED = {"total, score": ScoreFunction, "total, VIMCO": VIMCO} | {
    name: make for name, make in ESTIMATORS.items() if name not in ("Total", "STL", "DReG")
}


@pytest.mark.parametrize("estimator", MIXED)
@pytest.mark.parametrize("name", ["ELBO", "IWAE", "Renyi(-1)", "CIWAE", "TVO", "CUBO"])
@pytest.mark.parametrize("y_first", [True, False], ids=["y, z", "z, y"])
def test_estimators_of_a_class_and_a_gaussian_are_unbiased(y_first, name, estimator):
    """By enumeration over y and quadrature over z, of both particles, whichever of them the guide draws first."""
    lattice, theta, phi = mixed(y_first)
    expected = exact(lattice, name, theta, phi)
    objective = BOUNDS[name](MIXED[estimator]())
    error = (lattice.expected_gradient(objective, [*theta, *phi]) - expected).abs()
    assert error.max() < 1e-6 and expected[-10:].abs().max() > 0.02


@pytest.mark.parametrize("y_first", [True, False], ids=["y, z", "z, y"])
def test_one_hot_classes_are_no_different(y_first):
    lattice, theta, phi = mixed(y_first, one_hot=True, nodes=16)
    expected = exact(lattice, "IWAE", theta, phi)
    for estimator in (ScoreFunction(), VIMCO(), VIMCO(everywhere=True)):
        error = (lattice.expected_gradient(IWAE(2, estimator), [*theta, *phi]) - expected).abs()
        assert error.max() < 1e-5


@pytest.mark.parametrize("estimator", [Total(), STL(), DReG()], ids=repr)
@pytest.mark.parametrize("make", [IWAE, CUBO, ELBO], ids=lambda make: make.__name__)
def test_what_goes_through_the_draws_refuses_a_class(make, estimator):
    lattice, theta, phi = mixed(True)
    with pytest.raises(ValueError, match=r"differentiates through the latent sites, but 'y' \(Bernoulli\).*VIMCO\(\)"):
        make(num_particles=2, estimator=estimator).loss(lattice.model, lattice.guide, X)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: VRMax(3, DReG()), r"DReG needs a bound with continuous slopes, which VRMax has not; use Total"),
        (lambda: IWAE(1, VIMCO()), r"VIMCO needs at least 2 particles.*ScoreFunction\(MovingAverage\(\)\)"),
        (lambda: CUBO(2, 3, GumbelSoftmax()), r"GumbelSoftmax.*is not defined for CUBO; use Total"),
        (lambda: Separate(IWAE(3), ELBO(3, StraightThrough())), r"guide=.*StraightThrough.*step it by itself"),
        (lambda: Separate(ELBO(3, analytic_kl=True), IWAE(3)), r"model=.*analytic_kl=True.*step it by itself"),
        (lambda: Separate(IWAE(3), ELBO(2)), r"as many particles, got 3 and 2"),
        (lambda: ELBO(2, DReG(), analytic_kl=True), r"leaves no sampled log q for DReG\(\)"),
        (lambda: ScoreFunction(nn.Linear(2, 1)), r"baseline must be None, MovingAverage\(\) or NVIL\(net\)"),
        (lambda: IWAE(2, "dreg"), r"estimator must be one of inference's.*'dreg'"),
    ],
)
def test_impossible_pairs_are_refused_at_once(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_separate_joins_the_parts_of_both():
    lattice, theta, phi = continuous(20)
    for estimator in (Total, DReG, lambda: ScoreFunction()):
        wanted = IWAE(2), CUBO(2, 2, estimator()), Separate(IWAE(2), CUBO(2, 2, estimator()))
        model, guide, joined = (lattice.expected_gradient(objective, [*theta, *phi]) for objective in wanted)
        assert torch.allclose(joined, torch.cat([model[:6], guide[6:]]), atol=1e-12)
