"""What is trained is what is computed with: methods, closures, guides over functions, one instance after another."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import Trace_ELBO, config_enumerate
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.nn import PyroModule
from torch import nn

from dlvm.inference import SVI, check, evaluate, fit
from dlvm.inference.programs.modules import owner_of, reached, signature_of
from dlvm.inference.programs.pair import Pair, draws_nothing
from dlvm.inference.programs.parameters import declared, own

ADAM = partial(torch.optim.Adam, lr=0.01)
X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])


class Programs:
    """A model and a guide as methods, which register their nets under the same names in every instance."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        noise = pyro.param("noise", torch.ones(()), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), noise).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


class Module(Programs, nn.Module):
    """The same in a module, as in Pyro's tutorial."""


class Decorated(Programs):
    """The same, with a handler around a method."""

    model = config_enumerate(Programs.model)


def closures():
    """The same as plain functions around nets of their own."""
    made, held = Programs(), Programs()
    made.model, made.guide = (lambda x: held.model(x)), (lambda x: held.guide(x))
    made.decoder = held.decoder
    return made


def programs_of(kind):
    made = kind()
    return made, made.model, made.guide


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "captured"])
@pytest.mark.parametrize("kind", [Programs, Module, Decorated])
def test_every_instance_takes_the_steps_of_the_first_one_and_of_stock(kind, engine, float64):
    data, kept = X.double(), []
    for _ in range(2):
        made, model, guide = programs_of(kind)
        svi = SVI(model, guide, ADAM, Trace_ELBO(), engine=engine)
        svi.prepare(data)
        pyro.set_rng_seed(3)
        kept.append(([svi.step(data) for _ in range(12)], made.decoder.weight.detach().clone()))
    with pyro.get_param_store().scope():
        _, model, guide = programs_of(kind)
        stock = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        pyro.set_rng_seed(3)
        expected = [stock.step(data) for _ in range(12)]
    assert kept[0][0] == kept[1][0] == expected
    assert torch.equal(kept[0][1], kept[1][1]) and not torch.equal(kept[0][1], programs_of(kind)[0].decoder.weight)


def test_functions_train_the_nets_that_they_register_whatever_the_store_holds(float64):
    data, found = X.double(), []
    for _ in range(2):
        made, model, guide = programs_of(closures)
        svi = SVI(model, guide, ADAM, Trace_ELBO())
        before = made.decoder.weight.detach().clone()
        with torch.no_grad():
            pyro.param("noise", torch.ones(()), constraint=dist.constraints.positive).unconstrained().zero_()
        pyro.set_rng_seed(3)
        found.append([svi.step(data) for _ in range(5)])
        assert not torch.equal(made.decoder.weight, before)
        assert pyro.get_param_store()._params["decoder$$$weight"] is made.decoder.weight
    assert found[0] == found[1]


def test_a_module_filled_from_the_store_on_purpose_is_filled():
    saved = nn.Linear(2, 3)
    pyro.module("net", saved)

    def model(x):
        net = pyro.module("net", nn.Linear(2, 3), update_module_params=True)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(torch.ones(2)), 1.0).to_event(1), obs=x)

    before = saved.weight.detach().clone()
    SVI(model, draws_nothing, ADAM, Trace_ELBO()).step(X)
    assert not torch.equal(saved.weight, before)


def test_the_store_shows_what_a_method_ran_with_and_no_method_reads_another_ones_there():
    first, second = Programs(), Programs()
    for made in (first, second):
        SVI(made.model, made.guide, ADAM, Trace_ELBO()).step(X)
    assert pyro.get_param_store()._params["noise"] is declared(second)["noise"]
    declared(second)["noise"].data.fill_(5.0)
    site = poutine.trace(own(first.model)).get_trace(X).nodes["noise"]["value"]
    assert site.item() == pytest.approx(declared(first)["noise"].exp().item()) and site < 2


def test_owners_are_modules_and_objects_of_methods_also_inside_handlers_and_partials():
    made, module, net = Programs(), Module(), nn.Linear(1, 1)
    block, plate = poutine.block, pyro.plate("p", 2)
    assert owner_of(made.model) is owner_of(block(made.model)) is owner_of(partial(made.model, x=X)) is made
    assert owner_of(Decorated().model).__class__ is Decorated
    assert owner_of(plate(net)) is owner_of(net) is net and owner_of(draws_nothing) is None
    assert Pair(module.model, module.guide).roots == {"model": module, "guide": module}
    assert set(reached(made.model)) == {made.encoder, made.decoder}
    assert not Pair(made.model, made.guide).has_functions and Pair(draws_nothing).has_functions


def test_declared_parameters_go_with_their_object():
    made = Programs()
    SVI(made.model, made.guide, ADAM, Trace_ELBO()).step(X)
    assert set(declared(made)) >= {"noise", "decoder$$$weight"}
    del made
    again = Programs()
    assert not declared(again)


def gaussian(x):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, scale), obs=x)


class Easy(EasyGuide):
    def guide(self, x):
        group = self.group(match="mu")
        group.sample("g", dist.Normal(pyro.param("m", torch.zeros(1)), 1.0).to_event(1))


class Loose(PyroModule):
    def forward(self, x):
        pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))


@pytest.mark.parametrize("engine", ["eager", "captured"])
@pytest.mark.parametrize(
    "make", [lambda: AutoNormal(gaussian), lambda: Easy(gaussian), Loose], ids=["auto", "easy", "loose"]
)
def test_modules_and_guides_over_functions_with_declared_parameters_take_stock_steps(make, engine, float64):
    x, found = X[:, 0].double(), []
    for kind in (SVI, pyro.infer.SVI):
        pyro.clear_param_store()
        optimizer = ADAM if kind is SVI else pyro.optim.Adam({"lr": 0.01})
        svi = kind(gaussian, make(), optimizer, Trace_ELBO(), **({"engine": engine} if kind is SVI else {}))
        pyro.set_rng_seed(0)
        svi.evaluate_loss(x)  # an AutoGuide draws where it begins
        pyro.set_rng_seed(0)
        found.append(([svi.step(x) for _ in range(8)], pyro.param("scale").item()))
    assert found[0] == found[1] and found[0][1] != 1.0


@pytest.mark.slow
def test_a_method_is_checked_trained_and_evaluated():
    made = Module()
    check(made.model, made.guide, Trace_ELBO(), X)
    records = [*fit(made.model, made.guide, Trace_ELBO(), [(X,)], epochs=150, optimizer=ADAM, seed=0, progress=False)]
    found = evaluate(made.model, made.guide, X, num_particles=500)
    noise = declared(made)["noise"].exp().item()
    cov = made.decoder.weight @ made.decoder.weight.T + noise**2 * torch.eye(3)
    exact = dist.MultivariateNormal(made.decoder.bias, cov).log_prob(X).mean().item()
    assert records[-1].train > records[0].train + 0.9 and found.log_px == pytest.approx(exact, abs=0.05)


def test_a_decorated_program_takes_the_arguments_that_it_was_written_with():
    @poutine.scale(scale=0.5)
    @poutine.infer_config(config_fn=lambda site: {})
    def model(x, y=None):
        pass

    assert list(signature_of(model).parameters) == ["x", "y"]
    assert list(signature_of(poutine.block(nn.Identity())).parameters) == ["input"]


def test_parts_of_a_list_of_guides_run_a_model_that_declares_parameters_as_stock_does():
    """A part's model is blocked, and with it what it declares, out of sight of handlers around the guide."""
    x = 1 + torch.randn(12, generator=torch.Generator().manual_seed(0))

    def model(x):
        sd = pyro.param("sd", torch.tensor(1.0), constraint=dist.constraints.positive)
        a, b = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(a + b, sd), obs=x)

    def run(make):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = AutoGuideList(model)
        for name in "ab":
            guide.append(AutoNormal(poutine.block(model, expose=[name])))
        guide(x)
        svi, losses = make(model, guide), []
        for seed in range(5):
            pyro.set_rng_seed(seed)
            losses.append(svi.step(x))
        return losses, pyro.param("sd").item()

    theirs = run(lambda *pair: pyro.infer.SVI(*pair, pyro.optim.SGD({"lr": 0.01}), Trace_ELBO()))
    ours = run(lambda *pair: SVI(*pair, partial(torch.optim.SGD, lr=0.01), Trace_ELBO(), engine="eager"))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-6) and abs(ours[1] - 1) > 0.01
