"""Linear-Gaussian pairs of programs whose every number is known."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
from oracles import Gaussian, LinearGaussian
from torch import Tensor

from models import PPCA


def _pair(oracle: LinearGaussian, q: Callable[[Tensor], Gaussian]) -> tuple[PPCA, Callable]:
    def guide(x):
        loc, cov = q(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc.expand(len(x), -1), cov))

    return PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt()), guide


@pytest.fixture
def pair(float64) -> Callable[[LinearGaussian, Callable[[Tensor], Gaussian]], tuple[PPCA, Callable]]:
    """(oracle, x -> q(z | x)) -> (model, guide), in double precision; the guide has no parameters."""
    return _pair
