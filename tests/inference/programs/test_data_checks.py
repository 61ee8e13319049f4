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
from dlvm.inference import ELBO, IWAE, check, evaluate, fit
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
