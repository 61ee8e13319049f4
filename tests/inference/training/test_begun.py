"""Before the first epoch: what can be trained at all, what nobody goes through, streams, and gradients of others."""

from __future__ import annotations

import gc
import inspect
import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from dlvm.distributions import ConstantScaleNormal
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, SVI, console, evaluate, fit, train
from dlvm.inference.programs.pair import draws_nothing
from dlvm.models import VAE
from dlvm.nets import MLP

X = torch.randn(25, 6, generator=torch.Generator().manual_seed(0))


def pair():
    torch.manual_seed(0)
    model = VAE(2, ConstantScaleNormal(MLP(2, 8, 6)))
    return model, Diagonal(latents(model, X), MLP(6, 8))


class Stream(IterableDataset):
    def __iter__(self):
        yield from X


class NoLength:
    def __iter__(self):
        yield from X.split(10)


@pytest.mark.parametrize(
    ("stream", "batches"),
    [(DataLoader(Stream(), 10), DataLoader(TensorDataset(X), 10)), (NoLength(), [*X.split(10)])],
    ids=["loader", "object"],
)
def test_a_stream_without_a_length_trains_and_evaluates_as_its_batches_do(stream, batches):
    found = []
    for given in (stream, batches):
        model, guide = pair()
        records = train(model, guide, ELBO(), given, valid=given, epochs=2, seed=0, progress=False, engine="eager")
        numbers = [(record.train, record.valid) for record in records]
        found.append((numbers, evaluate(model, guide, given, num_particles=20).log_px))
    assert found[0] == found[1] and len(found[0][0]) == 2


def test_train_gives_the_records_of_fit_and_takes_its_arguments():
    how = dict(epochs=3, seed=0, progress=False)
    numbers = [[record.train for record in run(*pair(), ELBO(), [(X,)], **how)] for run in (fit, train)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 3
    assert inspect.signature(train).parameters == inspect.signature(fit).parameters


@pytest.mark.parametrize("goes", [True, False])
def test_a_run_that_nobody_goes_through_says_so_when_it_is_dropped(goes, caplog, tmp_path):
    caplog.set_level(logging.INFO, "dlvm")
    run = fit(*pair(), ELBO(), [(X,)], epochs=3, progress=False, engine="eager", checkpoint=tmp_path)
    if goes:
        next(run)
    del run
    gc.collect()
    assert ("nothing was trained" in caplog.text) is not goes
    train(*pair(), ELBO(), [(X,)], epochs=1, progress=False, engine="eager", checkpoint=tmp_path)  # nobody is in there


def made_anew(x):
    net = pyro.module("net", nn.Linear(6, 6))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(net(x), 1.0).to_event(1), obs=x)


class Dead(nn.Module):
    """Nothing goes through its only layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal((self.layer(x) - 1e6).relu(), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    "model",
    [made_anew, Dead()],  # the second is a module that declares nothing, which Pyro's objectives leave alone
)
def test_a_pair_that_nothing_would_be_trained_of_is_refused_before_the_first_epoch(model):
    with pytest.raises(ValueError, match="nothing would be trained.*no parameter of model and guide has one"):
        fit(model, draws_nothing, Trace_ELBO(), [(X,)], epochs=2, progress=False)


def test_a_gradient_that_is_zero_for_all_is_said_so_since_it_may_not_stay_so(caplog, monkeypatch):
    monkeypatch.setattr(console, "_said", set())
    caplog.set_level(logging.INFO, "dlvm")
    fit(Dead(), draws_nothing, ELBO(), [(X,)], epochs=2, progress=False)
    assert "the gradient on the first batch is zero for all parameters" in caplog.text


@pytest.mark.parametrize("engine", ["eager", "captured"])
def test_gradients_that_others_have_left_are_cleared(engine):
    found = []
    for stale in (False, True):
        model, guide = pair()
        svi = SVI(model, guide, torch.optim.Adam, ELBO(), engine=engine)
        losses = []
        for step in range(4):
            if stale and step in (0, 2):
                for parameter in model.parameters():
                    parameter.grad = torch.full_like(parameter, 100.0)
            pyro.set_rng_seed(step)
            losses.append(svi.step(X))
        found.append(losses)
    assert found[0] == found[1]


class Disk(Dataset):
    """Data that are read row by row; the last of them is no datum of a Bernoulli's if told so."""

    def __init__(self, grey=False):
        self.reads, self.grey = 0, grey

    def __len__(self):
        return 200

    def __getitem__(self, row):
        self.reads += 1
        return torch.full((1, 2, 3), 0.5 if self.grey and row == 199 else 1.0)


class Reshaping(PyroModule):
    """It observes its argument reshaped, so that only a run of it tells what a batch is held against."""

    def __init__(self):
        super().__init__("model")
        self.net, self.runs = nn.Linear(2, 6), 0

    def forward(self, x):
        self.runs += 1
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x.reshape(len(x), -1))


class Flat(MLP):
    def forward(self, x):
        return super().forward(x.flatten(1))


def test_before_the_first_step_few_rows_are_read_and_the_model_runs_few_times():
    model, disk = Reshaping(), Disk()
    guide = Diagonal(latents(model, torch.zeros(5, 1, 2, 3)), Flat(6, 4))
    model.runs = 0
    run = fit(model, guide, ELBO(), DataLoader(disk, 10), epochs=1, progress=False, engine="eager")
    assert disk.reads <= 20 and model.runs <= 10
    next(run)


def test_a_batch_that_is_read_from_elsewhere_is_held_against_the_likelihood_as_it_comes():
    model = Reshaping()
    guide = Diagonal(latents(model, torch.zeros(5, 1, 2, 3)), Flat(6, 4))
    run = fit(model, guide, ELBO(), DataLoader(Disk(grey=True), 10), epochs=1, progress=False)
    with pytest.raises(ValueError, match="observed site 'x' holds values outside its likelihood's support.*0.5"):
        next(run)


def test_an_analytic_kl_takes_parameters_with_a_row_per_datum_of_a_subsampled_plate(float64):
    x, rows = torch.arange(10.0), torch.tensor([1, 3, 4])

    def model(rows):
        with pyro.plate("data", 10, subsample=rows) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def guide(rows):
        with pyro.plate("data", 10, subsample=rows):
            loc = pyro.param("loc", torch.linspace(-1, 1, 10), event_dim=0)
            pyro.sample("z", dist.Normal(loc, 0.5))

    losses = []
    for objective in (ELBO(analytic_kl=True), TraceMeanField_ELBO()):
        pyro.set_rng_seed(0)
        losses.append(objective.loss(model, guide, rows))
        pyro.set_rng_seed(0)
        losses.append(SVI(model, guide, torch.optim.Adam, objective).evaluate_loss(rows))
    assert losses == pytest.approx([losses[-1]] * 4, rel=1e-12)
