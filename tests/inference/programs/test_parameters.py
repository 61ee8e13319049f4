"""Two runs in one process never touch each other, and whatever goes wrong in one leaves nothing behind."""

from __future__ import annotations

import sys
from functools import cache, partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from rich.console import Console
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import IWAE, SVI, Renyi, check, evaluate, fit, log_weights
from dlvm.inference.programs.randomness import generator_state
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

X = (torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
BATCHES = [(X[:5],), (X[5:],)]
RUNS = {
    "vae": (lambda: VAE(2, Bernoulli(MLP(2, 6, 4))), Diagonal, lambda: IWAE(3), 1),
    "same names": (lambda: VAE(2, Bernoulli(MLP(2, 6, 4))), Diagonal, Trace_ELBO, 2),
    "flow": (lambda: VAE(2, Bernoulli(MLP(2, 6, 4))), partial(IAF, width=6), lambda: Renyi(0.5, 2), 3),
    "ppca": (lambda: PPCA(torch.randn(4, 2), torch.zeros(4), 1.0), FullRank, TraceMeanField_ELBO, 4),
}


def values(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(left, right) for left, right in zip(a, b, strict=True))


def pair(name="vae"):
    model, guide, objective, seed = RUNS[name]
    pyro.set_rng_seed(seed)
    p = model()
    return p, guide(latents(p, X), MLP(4, 6)), objective(), seed


def start(name, **settings):
    p, q, objective, seed = pair(name)
    return fit(p, q, objective, BATCHES, valid=BATCHES, seed=seed, **({"epochs": 3} | settings)), p, q


@cache
def alone(name):
    run, p, q = start(name)
    return [(r.train, r.valid) for r in run], values(p, q)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["same names", "flow", "ppca"])
def test_runs_interleaved_epoch_by_epoch_equal_each_alone(other):
    expected = {name: alone(name) for name in ("vae", other)}
    together = {name: start(name) for name in ("vae", other)}
    bounds = {name: [] for name in together}
    for records in zip(*(run for run, _, _ in together.values()), strict=True):
        for name, record in zip(together, records, strict=True):
            bounds[name].append((record.train, record.valid))
    for name, (_, p, q) in together.items():
        assert bounds[name] == expected[name][0] and same(values(p, q), expected[name][1])


@pytest.mark.slow
def test_interleaved_steps_equal_each_alone():
    """Two engines on models of the same names, one random state each."""
    outcomes = []
    for order in ("aabb", "abab"):
        made = {key: pair(name) for key, name in (("a", "vae"), ("b", "same names"))}
        engines = {key: SVI(p, q, torch.optim.Adam, o) for key, (p, q, o, _) in made.items()}
        count = dict.fromkeys("ab", 0)
        for key in order:
            count[key] += 1
            pyro.set_rng_seed(100 * ord(key) + count[key])
            engines[key].step(X)
        outcomes.append([v for p, q, _, _ in made.values() for v in values(p, q)])
    assert same(*outcomes)


class Net(PyroModule):
    """A model or a guide whose submodule is called `net` in both, as is the parameter `free`."""

    def __init__(self, name, wide, site):
        super().__init__(name)
        self.net, self.site = nn.Linear(*wide), site
        self.free = PyroParam(torch.ones(2), constraint=dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            if self.site == "x":
                z = pyro.sample("z", dist.Normal(torch.zeros(2), self.free).to_event(1))
                return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)
            return pyro.sample("z", dist.Normal(self.net(x), self.free).to_event(1))


@pytest.mark.parametrize("objective", [Trace_ELBO, lambda: IWAE(2)], ids=["ELBO", "IWAE"])
@pytest.mark.parametrize("name", ["", "program"])
def test_modules_of_the_same_name_in_model_and_guide_both_train(name, objective):
    p, q = Net(name, (2, 4), "x"), Net(name, (4, 2), "z")
    before = values(p, q)
    svi = SVI(p, q, partial(torch.optim.Adam, lr=0.1), objective())
    for _ in range(2):
        svi.step(X)
    assert len(before) == 6 and all((a != b).all() for a, b in zip(before, values(p, q), strict=True))
    assert not list(pyro.get_param_store().keys())


def test_what_lies_in_the_global_store_under_the_same_names_is_neither_read_nor_written():
    bounds, reference = alone("vae")
    run, p, q = start("vae")
    names = [f"model.{n}" for n, _ in p.named_parameters()] + [f"guide.{n}" for n, _ in q.named_parameters()]
    for name, value in zip(names, values(p, q), strict=True):
        pyro.param(name.replace(".", "$$$", 1), value + 5)
        pyro.param(name, value + 5)
    kept = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    assert [(r.train, r.valid) for r in run] == bounds and same(values(p, q), reference)
    assert set(pyro.get_param_store().keys()) == set(kept)
    assert all(torch.equal(pyro.param(name), value) for name, value in kept.items())


def test_a_run_after_a_stock_run_of_the_same_names_equals_one_alone():
    expected = alone("vae")
    p, q, objective, _ = pair("vae")
    stock = pyro.infer.SVI(p, q, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    stock.step(X)
    assert list(pyro.get_param_store().keys())
    run, p, q = start("vae")
    assert [(r.train, r.valid) for r in run] == expected[0] and same(values(p, q), expected[1])


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_left_in_the_global_store(name):
    p, q, objective, seed = pair(name)
    store = pyro.get_param_store()
    for work in (
        lambda: latents(p, X),
        lambda: check(p, q, objective, X),
        lambda: SVI(p, q, torch.optim.Adam, objective).step(X),
        lambda: list(fit(p, q, objective, BATCHES, valid=BATCHES, epochs=2, patience=1)),
        lambda: evaluate(p, q, X, num_particles=5),
        lambda: log_weights(p, q, X, num_particles=3),
    ):
        work()
        assert not list(store.keys()) and not store.get_state()["constraints"]


class Trip(Exception):
    pass


class Trap(VAE):
    """A VAE that raises at its n-th run."""

    runs, at = 0, None

    def forward(self, x=None, n=1):
        self.runs += 1
        if self.runs == self.at:
            raise Trip
        return super().forward(x, n)


def settings():
    """Everything global that a run might alter."""
    return (
        generator_state()[0]["torch"].tolist(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        pyro.poutine.runtime._PYRO_STACK[:],
        list(pyro.get_param_store().keys()),
        pyro.settings.get("module_local_params"),
        pyro.infer.util.is_validation_enabled(),
        torch.distributions.Distribution._validate_args,
    )


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("objective", [Trace_ELBO, lambda: IWAE(3), TraceMeanField_ELBO])
def test_an_error_in_the_middle_of_a_seeded_run_leaks_nothing(objective, validate):
    with pyro.validation_enabled(validate):
        model = Trap(2, Bernoulli(MLP(2, 6, 4)))
        guide = Diagonal(latents(model, X), MLP(4, 6))
        before = settings()
        run = fit(model, guide, objective(), BATCHES, valid=BATCHES, epochs=5, seed=1)
        next(run)
        model.at = model.runs + 2
        with pytest.raises(Trip):
            next(run)
        assert settings() == before
        assert model.training and guide.training
        with pytest.raises(StopIteration):
            next(run)


def test_an_error_in_validation_puts_training_mode_back():
    model = Trap(2, Bernoulli(MLP(2, 6, 4)))
    guide = Diagonal(latents(model, X), MLP(4, 6))
    run = fit(model, guide, Trace_ELBO(), BATCHES, valid=BATCHES, epochs=5, seed=1)
    next(run)
    model.at = model.runs + 3
    with pytest.raises(Trip):
        next(run)
    assert model.training and guide.training


@pytest.mark.parametrize("work", ["check", "latents", "evaluate", "log_weights"])
def test_an_error_elsewhere_leaks_nothing(work):
    model = Trap(2, Bernoulli(MLP(2, 6, 4)))
    guide = Diagonal(latents(model, X), MLP(4, 6))
    before = settings()
    model.at = model.runs + 1
    with pytest.raises(Trip):
        {
            "check": lambda: check(model, guide, Trace_ELBO(), X),
            "latents": lambda: latents(model, X),
            "evaluate": lambda: evaluate(model, guide, X, num_particles=3),
            "log_weights": lambda: log_weights(model, guide, X, num_particles=3),
        }[work]()
    after = settings()
    assert after[1:] == before[1:] and model.training and guide.training
    assert work == "log_weights" or after[0] == before[0]


def test_a_step_after_a_failed_one_equals_a_step_without_it():
    """What a first particle's backward pass left in the gradients is not added to the next step's."""
    outcomes = []
    for fails in (False, True):
        pyro.set_rng_seed(7)
        model = Trap(2, Bernoulli(MLP(2, 6, 4)))
        guide = Diagonal(latents(model, X), MLP(4, 6))
        svi = SVI(model, guide, torch.optim.Adam, Trace_ELBO(num_particles=2))
        svi.step(X)
        if fails:
            model.at = model.runs + 2
            with pytest.raises(Trip):
                svi.step(X)
        pyro.set_rng_seed(8)
        outcomes.append([svi.step(X), *values(model, guide)])
    assert outcomes[0][0] == outcomes[1][0] and same(outcomes[0][1:], outcomes[1][1:])


def test_a_progress_bar_leaves_standard_output_alone(monkeypatch, capsys):
    """What a script prints goes where its output goes, not to the terminal that shows the bar."""
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    before = sys.stdout
    for run, _, _ in (start("vae", progress=True),):
        for record in run:
            print(record)
    assert sys.stdout is before
    assert capsys.readouterr().out.count("nats per datum") == 3
