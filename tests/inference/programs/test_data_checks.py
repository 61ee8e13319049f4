"""What data are held against: the support of a likelihood that states one, and nothing where it states none."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import TorchDistribution
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, IWAE, ScoreFunction, check, evaluate, fit
from dlvm.nets import MLP


class Laplace(TorchDistribution):
    """Only what Pyro's documentation asks for: ``sample``, ``log_prob``, ``expand``."""

    arg_constraints: dict = {}

    def __init__(self, loc: Tensor, validate_args: bool | None = None):
        self.loc = loc
        super().__init__(loc.shape, torch.Size(), validate_args=validate_args)

    def expand(self, shape, _instance=None):
        return type(self)(self.loc.expand(shape))

    def sample(self, shape=()):
        return dist.Laplace(self.loc, 1.0).sample(torch.Size(shape))

    def log_prob(self, value):
        return dist.Laplace(self.loc, 1.0).log_prob(value)


class Stated(Laplace):
    support = constraints.real


class Positive(Laplace):
    support = constraints.positive


class Model(PyroModule):
    def __init__(self, family: type[Laplace]):
        super().__init__("model")
        self.net, self.family = nn.Linear(2, 4), family

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", self.family(self.net(z)).to_event(1), obs=x)


def numbers(family: type[Laplace]) -> list[float]:
    torch.manual_seed(0)
    model, x = Model(family), torch.randn(20, 4)
    guide = Diagonal(latents(model, x), MLP(4, 8))
    check(model, guide, ELBO(), x)
    pyro.set_rng_seed(0)
    stock = Trace_ELBO().loss(model, guide, x)
    trained = [epoch.train for epoch in fit(model, guide, IWAE(3), [(x,)], valid=[(x,)], epochs=2, seed=0)]
    found = evaluate(model, guide, x, num_particles=30)
    return [stock, *trained, found.log_px, found.elbo, found.bits_per_dim]


@pytest.mark.filterwarnings("ignore:.*does not define `support`")
def test_a_likelihood_that_states_no_support_gives_the_numbers_of_one_that_does():
    assert numbers(Laplace) == numbers(Stated)


def test_data_outside_a_support_that_is_stated_are_refused():
    with pytest.raises(ValueError, match=r"observed site 'x' holds values outside .*GreaterThan"):
        numbers(Positive)


def trials(x, most=None):
    """n ~ Poisson(5) trials, of which x succeed; or ``most`` trials, as they are given."""
    rate = pyro.param("rate", torch.tensor(5.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        n = pyro.sample("n", dist.Poisson(rate))
        pyro.sample("x", dist.Binomial(n if most is None else most, 0.5), obs=x)


def more_trials(x, most=None):
    with pyro.plate("data", len(x)):
        pyro.sample("n", Shifted(x, torch.full_like(x, 2.5)))


class Shifted(TorchDistribution):
    """``seen`` and a Poisson number more."""

    arg_constraints: dict = {}
    support = constraints.nonnegative_integer

    def __init__(self, seen: Tensor, rate: Tensor):
        self.seen, self.rate = seen, rate
        super().__init__(seen.shape, validate_args=False)

    def expand(self, shape, _instance=None):
        return Shifted(self.seen.expand(shape), self.rate.expand(shape))

    def sample(self, shape=()):
        return self.seen + torch.poisson(self.rate.expand(torch.Size(shape) + self.seen.shape))

    def log_prob(self, value):
        return dist.Poisson(self.rate, validate_args=False).log_prob(value - self.seen)


def test_a_support_made_of_latents_is_not_held_against_one_draw():
    x = torch.tensor([0.0, 3.0, 9.0, 14.0])  # the prior seldom has so many trials
    exact = dist.Poisson(torch.tensor(2.5)).log_prob(x).mean().item()  # thinned; this guide is the posterior
    objective = ELBO(1, ScoreFunction())
    check(trials, more_trials, objective, x)
    assert evaluate(trials, more_trials, x, num_particles=3).log_px == pytest.approx(exact, abs=1e-4)
    (epoch,) = fit(trials, more_trials, objective, [(x,)], epochs=1, progress=False, engine="eager")
    assert epoch.train == pytest.approx(exact, abs=1e-4)


def test_a_support_made_of_arguments_is():
    x = torch.tensor([0.0, 3.0, 9.0])
    with pytest.raises(ValueError, match="observed site 'x' holds values outside its likelihood's support"):
        check(trials, more_trials, ELBO(1, ScoreFunction()), x, torch.tensor([4.0, 4.0, 4.0]))
