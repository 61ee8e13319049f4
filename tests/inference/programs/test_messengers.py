"""Guides of Pyro's that run the model inside them: their density is that of the latent sites alone."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI as Stock
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoHierarchicalNormalMessenger, AutoNormalMessenger, AutoRegressiveMessenger
from pyro.optim import SGD

from dlvm.inference import ELBO, SVI, check

X = torch.tensor([1.0, 2.0, 0.5, -1.0])
MESSENGERS = (AutoNormalMessenger, AutoHierarchicalNormalMessenger, AutoRegressiveMessenger)


def rows(x, size=None):
    m = pyro.sample("m", dist.Normal(pyro.param("m0", torch.tensor(0.3)), 1.0))
    with pyro.plate("data", len(x), subsample_size=size) as index:
        z = pyro.sample("z", dist.Normal(m, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def steps(make, guide, **kwargs):
    pyro.clear_param_store()
    torch.manual_seed(0)
    guide = guide(rows)
    guide(X, **kwargs)  # its parameters are made by a first run
    svi = make(rows, guide)
    torch.manual_seed(1)
    return [svi.step(X, **kwargs) for _ in range(3)], pyro.param("m0").item()


@pytest.mark.parametrize("guide", MESSENGERS)
@pytest.mark.parametrize("objective", [Trace_ELBO, TraceGraph_ELBO, ELBO])
@pytest.mark.parametrize("size", [None, 2])
def test_steps_equal_those_of_stock(guide, objective, size):
    theirs, m0 = steps(lambda *pair: Stock(*pair, SGD({"lr": 0.01}), Trace_ELBO()), guide, size=size)
    sgd = partial(torch.optim.SGD, lr=0.01)
    ours, own_m0 = steps(lambda *pair: SVI(*pair, sgd, objective(), engine="eager"), guide, size=size)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert own_m0 == pytest.approx(m0, rel=1e-5) != 0.3


@pytest.mark.parametrize("guide", MESSENGERS)
def test_parameters_made_inside_a_plate_are_whole(guide):
    pyro.clear_param_store()
    made = guide(rows)
    check(rows, made, Trace_ELBO(), X, size=2)
    svi = SVI(rows, made, partial(torch.optim.Adam, lr=0.01), Trace_ELBO(), engine="eager")
    before = svi.prepare(X, size=2) and made.locs.z.detach().clone()
    assert before.shape == (4,)
    for _ in range(12):
        svi.step(X, size=2)
    assert ((made.locs.z - before).abs() > 0).all()
