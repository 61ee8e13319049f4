"""`fit`: what its records say, when it stops, what it leaves behind, and what it refuses."""

from __future__ import annotations

import gc
import math
import random
import re
import warnings
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import from_tensor
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, IWAE, RWS, evaluate, fit
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

SGD = partial(torch.optim.SGD, lr=0.0)


def data(n=20, seed=3):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.get_default_dtype())


def pair(seed=11):
    pyro.set_rng_seed(seed)
    model = PPCA(torch.randn(3, 2), torch.zeros(3), 0.8)
    return model, Diagonal(latents(model, data()), MLP(3, 6))


def values(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(left, right) for left, right in zip(a, b, strict=True))


def exact(model):
    """The posterior as a guide: every importance weight is p(x), so bounds have no noise and are known."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", model.posterior(x))

    return guide


def run(seed=None, epochs=2, **settings):
    model, guide = pair()
    x = data()
    records = list(fit(model, guide, Trace_ELBO(), [(x[:8],), (x[8:],)], epochs=epochs, seed=seed, **settings))
    return records, values(model, guide)


def test_records_are_means_over_data_of_stock_losses(float64):
    """Batches of 8 and 12: a mean over data, not over batches; stock SVI is the second computation."""
    x = data()
    batches = [(x[:8],), (x[8:],)]
    records, trained = run(seed=5, optimizer=partial(torch.optim.Adam, lr=1e-2))
    model, guide = pair()
    stock = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    pyro.set_rng_seed(5)
    for number, record in enumerate(records, start=1):
        assert record.epoch == number and record.valid is None and record.best is False and record.seconds > 0
        assert record.train == pytest.approx(-sum(stock.step(*batch) for batch in batches) / 20, abs=1e-12)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(trained, values(model, guide), strict=True))


@pytest.mark.parametrize("objective", [Trace_ELBO(), IWAE(3), TraceMeanField_ELBO()], ids=lambda o: type(o).__name__)
def test_records_are_log_px_under_the_exact_posterior(objective, float64):
    model, _ = pair()
    x, y = data(), data(7, seed=4)
    batches = [(x[:8],), (x[8:],)]
    (record,) = fit(model, exact(model), objective, batches, valid=[(y[:2],), (y[2:],)], epochs=1, optimizer=SGD)
    if not isinstance(objective, TraceMeanField_ELBO):
        assert record.train == pytest.approx(model.log_px(x).mean().item(), abs=1e-10)
        assert record.valid == pytest.approx(model.log_px(y).mean().item(), abs=1e-10)
    assert record.best is True and record.grad_norm > 0 and record.lr == 0
    assert record.kl == {"z": "analytic" if isinstance(objective, TraceMeanField_ELBO) else "Monte Carlo"}


@pytest.mark.parametrize("objective", [Trace_ELBO(), IWAE(3)], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_units_stay_nats_per_datum_in_a_subsampled_and_scaled_plate(objective, scale, float64):
    truth, _ = pair()

    class Subsampled(PyroModule):
        def __init__(self, program):
            super().__init__("model")
            self.weight, self.program = truth.weight, program

        def forward(self, x):
            assert self.weight is truth.weight  # read, without which Pyro takes no gradient
            with poutine.scale(scale=scale), pyro.plate("data", 400, subsample_size=len(x)):
                return self.program(x)

    def joint(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z @ truth.weight.T + truth.loc, truth.scale).to_event(1), obs=x)

    model, guide = Subsampled(joint), Subsampled(lambda x: pyro.sample("z", truth.posterior(x)))
    x, y = data(), data(6, seed=4)
    (record,) = fit(
        model, guide, objective, [(x[:13],), (x[13:],)], valid=[(y[:4],), (y[4:],)], epochs=1, optimizer=SGD
    )
    assert record.train == pytest.approx(truth.log_px(x).mean().item(), abs=1e-10)
    assert record.valid == pytest.approx(truth.log_px(y).mean().item(), abs=1e-10)


@pytest.mark.parametrize("seed", [None, 5])
def test_validation_does_not_alter_training(seed):
    outcomes = []
    for valid in (None, [(data(6, seed=4),)]):
        pyro.set_rng_seed(1)
        model, guide = pair()
        records = list(fit(model, guide, IWAE(3), [(data(),)], valid=valid, epochs=3, seed=seed))
        outcomes.append(([r.train for r in records], values(model, guide)))
    assert outcomes[0][0] == outcomes[1][0] and same(outcomes[0][1], outcomes[1][1])


def test_validation_draws_the_same_particles_in_every_epoch():
    model, guide = pair()
    batches = [(data(),)]
    records = list(fit(model, guide, Trace_ELBO(), batches, valid=batches, epochs=4, optimizer=SGD))
    assert len({r.valid for r in records}) == 1 and len({r.train for r in records}) == 4
    assert [r.best for r in records] == [True, False, False, False]


def test_validation_runs_in_evaluation_mode_and_training_in_training_mode():
    seen = []

    class Watched(PPCA):
        def forward(self, x=None, n=1):
            seen.append(self.training)
            return super().forward(x, n)

    model = Watched(torch.randn(3, 2), torch.zeros(3), 0.8)
    for _ in fit(model, exact(model), Trace_ELBO(), [(data(),)], valid=[(data(),)], epochs=1):
        assert seen[-1] is False and model.training and True in seen


def drifting(**settings):
    """A model whose mean is pulled through the validation data's mean and on to the training data's."""
    model = PPCA(torch.full((3, 1), 0.1), torch.zeros(3), 1.0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "loc")
    train, valid = data() + 4, data(12, seed=4) + 2
    settings = dict(epochs=60, optimizer=partial(torch.optim.SGD, lr=0.01), patience=3) | settings
    return model, fit(model, exact(model), IWAE(1), [(train,)], valid=[(valid,)], **settings), valid


def test_early_stopping_waits_for_patience_and_restores_the_best(float64):
    model, run, valid = drifting()
    records = list(run)
    best = max(records, key=lambda r: r.valid)
    assert 1 < best.epoch == len(records) - 3 < 57
    assert [r.best for r in records] == [True] * best.epoch + [False] * 3
    assert model.log_px(valid).mean().item() == pytest.approx(best.valid, abs=1e-12)
    assert records[-1].valid < best.valid - 1e-3


class Interruption(Exception):
    pass


@pytest.mark.parametrize("end", ["close", "throw", "break", "dropped"])
def test_the_best_is_restored_however_the_run_ends(end, float64):
    model, run, valid = drifting()
    best = -math.inf
    for record in run:
        best = max(best, record.valid)
        if not record.best:
            assert model.log_px(valid).mean().item() == pytest.approx(record.valid, abs=1e-12)
            break
    if end == "throw":
        with pytest.raises(Interruption):
            run.throw(Interruption())
    elif end == "close":
        run.close()
    else:
        del run
        gc.collect()
    assert model.log_px(valid).mean().item() == pytest.approx(best, abs=1e-12)


def test_without_patience_the_last_parameters_stay(float64):
    model, run, valid = drifting(patience=None, epochs=30)
    records = list(run)
    assert len(records) == 30 and records[-1].valid < max(r.valid for r in records) - 0.1
    assert model.log_px(valid).mean().item() == pytest.approx(records[-1].valid, abs=1e-12)


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.Adam, lr=0.02),
        partial(torch.optim.Adamax, lr=0.02),
        partial(torch.optim.SGD, lr=0.002, momentum=0.9),
        partial(torch.optim.RMSprop, lr=0.01, centered=True),
        partial(torch.optim.AdamW, lr=0.02),
    ],
    ids=lambda o: o.func.__name__,
)
def test_torch_optimizers_raise_the_bound(optimizer):
    model, guide = pair()
    x = data() + 2
    records = list(fit(model, guide, IWAE(5), [(x,)], valid=[(x,)], epochs=40, optimizer=optimizer, seed=0))
    assert records[-1].valid > records[0].valid + 1
    assert records[-1].valid <= PPCA.maximum_likelihood(x, 2).log_px(x).mean().item()


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        (partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5), [0.1, 0.05, 0.025]),
        (partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1), [0.1, 0.1, 0.01]),
        (None, [0.1, 0.1, 0.1]),
    ],
)
def test_the_rate_of_each_epoch_is_recorded_and_used_without_a_warning(scheduler, rates):
    """Under SGD a step's length is the rate times the gradient's norm."""
    model, guide = pair()
    moved, before = [], torch.cat([v.flatten() for v in values(model, guide)])
    optimizer = partial(torch.optim.SGD, lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = fit(model, guide, IWAE(2), [(data(),)], epochs=3, optimizer=optimizer, scheduler=scheduler, clip_norm=1.0)
        for record in run:
            now = torch.cat([v.flatten() for v in values(model, guide)])
            moved.append((record.lr, (now - before).norm().item() / min(1.0, record.grad_norm)))
            before = now
    assert [lr for lr, _ in moved] == pytest.approx(rates)
    assert [length for _, length in moved] == pytest.approx(rates, rel=1e-4)


def test_a_seed_decides_everything():
    a, b, c = run(seed=5), run(seed=5), run(seed=6)
    assert [r.train for r in a[0]] == [r.train for r in b[0]] != [r.train for r in c[0]]
    assert same(a[1], b[1]) and not same(a[1], c[1])


def test_a_seed_decides_shuffling_and_binarisation_too():
    train, valid, _ = from_tensor(torch.rand(60, 4), batch_size=10, binarize="dynamic")
    outcomes = []
    for seed in (5, 5, 6):
        pyro.set_rng_seed(0)
        model = VAE(2, Bernoulli(MLP(2, 6, 4)))
        guide = Diagonal(latents(model, train.example), MLP(4, 6))
        records = list(fit(model, guide, Trace_ELBO(), train, valid=valid, epochs=2, seed=seed))
        outcomes.append(([r.train for r in records], [r.valid for r in records], values(model, guide)))
        list(train)
        list(valid)
    assert outcomes[0][:2] == outcomes[1][:2] != outcomes[2][:2]
    assert same(outcomes[0][2], outcomes[1][2]) and not same(outcomes[0][2], outcomes[2][2])


@pytest.mark.parametrize("shuffled", [False, True], ids=["list", "torch DataLoader"])
def test_a_seeded_run_leaves_the_generators_of_the_process_alone(shuffled):
    model, guide = pair()
    batches = DataLoader(TensorDataset(data()), batch_size=8, shuffle=True) if shuffled else [(data(),)]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for _ in fit(model, guide, Trace_ELBO(), batches, valid=[(data(),)], epochs=2, seed=5):
        assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_what_the_process_draws_between_epochs_does_not_enter_a_seeded_run():
    outcomes = []
    for draws in (0, 3):
        model, guide = pair()
        for _ in fit(model, guide, Trace_ELBO(), [(data(),)], epochs=3, seed=5):
            torch.rand(draws)
        outcomes.append(values(model, guide))
    assert same(*outcomes)


def test_device_and_kinds_of_batches():
    """A tuple, a list and a bare tensor stand for the same batch."""
    x, outcomes = data(), []
    for batches in ([(x,)], [[x]], [x]):
        model, guide = pair()
        list(fit(model, guide, IWAE(2), batches, epochs=2, seed=5, device="cpu"))
        outcomes.append(values(model, guide))
    assert all(same(outcomes[0], other) for other in outcomes[1:])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (dict(train=data()), TypeError, r"train is a tensor; wrap it as \[\(x,\)\] for one batch.*from_tensor"),
        (dict(valid=data()), TypeError, "valid is a tensor"),
        (
            dict(train=iter([(data(),)])),
            TypeError,
            "train is an iterator and would be empty after one epoch; pass a list",
        ),
        (dict(train=((x,) for x in [data()])), TypeError, "train is an iterator"),
        (dict(train=[]), ValueError, "holds no batch; pass at least one"),
        (dict(valid=[]), ValueError, "holds no batch; pass at least one"),
        (dict(patience=2), ValueError, "patience needs valid"),
        (
            dict(patience=0, valid=[(data(),)]),
            ValueError,
            "epochs and patience must be integers of at least 1, got 1 and 0",
        ),
        (dict(epochs=0), ValueError, "epochs and patience must be integers of at least 1, got 0 and None"),
        (dict(optimizer=pyro.optim.Adam({"lr": 1e-3})), TypeError, "optimizer must make a torch optimizer"),
        (dict(objective=IWAE), TypeError, "objective must be an instance"),
        (dict(clip_norm=-1.0), ValueError, "clip_norm must be positive or None, got -1.0"),
    ],
)
def test_bad_settings_are_refused_at_the_call(settings, error, words):
    model, guide = pair()
    settings = {"objective": Trace_ELBO(), "train": [(data(),)], "epochs": 1} | settings
    with pytest.raises(error, match=words):
        fit(model, guide, **settings)


BINARY = torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(6, 1)
GREY = torch.full((6, 4), 0.5)
HOLE = BINARY.index_fill(1, torch.tensor([2]), math.nan)


@pytest.mark.parametrize(
    ("train", "valid", "words"),
    [
        ([GREY], None, "'x' holds values outside .*such as .*0.5.*binarise grey levels for a Bernoulli"),
        ([BINARY, GREY], None, r"binarise grey levels for a Bernoulli \(binarize='dynamic'\)"),
        ([BINARY], [BINARY, GREY], "binarise grey levels for a Bernoulli"),
        ([HOLE], None, "such as .*nan.*remove NaN"),
        ([BINARY, HOLE], None, "remove NaN"),
        ([BINARY[:, :3]], None, r"events of shape \(4,\).*have shape \(6, 3\); make the likelihood's width that of"),
        ([BINARY, BINARY[:, :3]], None, r"events of shape \(4,\).*have shape \(6, 3\)"),
    ],
)
def test_data_the_likelihood_cannot_have_made_are_refused_before_any_step(train, valid, words):
    model = VAE(2, Bernoulli(MLP(2, 6, 4)))
    guide = Diagonal(latents(model, BINARY), MLP(4, 6))
    before = values(model, guide)
    with pytest.raises(ValueError, match=words):
        fit(model, guide, Trace_ELBO(), [(x,) for x in train], valid=valid and [(x,) for x in valid])
    assert same(values(model, guide), before)


def test_an_encoder_of_another_width_is_refused_with_the_remedy():
    model = VAE(2, Bernoulli(MLP(2, 6, 4)))
    guide = Diagonal(latents(model, BINARY), MLP(3, 6))
    with pytest.raises(
        ValueError, match="in_features=3; flatten each datum to one dimension, or make the net for this"
    ):
        fit(model, guide, Trace_ELBO(), [(BINARY,)])


def test_a_run_reads_as_one_line_per_epoch():
    records, _ = run(epochs=1, valid=[(data(),)])
    line = str(records[0])
    assert line.startswith("epoch    1   train -") and "nats per datum" in line and "*" in line and "\n" not in line


def test_the_functions_of_a_run_may_declare_their_parameters():
    """Early stopping puts back what lives in Pyro's store as well."""
    net = nn.Linear(2, 3)

    def model(x):
        pyro.module("net", net)
        loc = pyro.param("loc", lambda: torch.zeros(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z) + loc, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("q_loc", lambda: torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    best, kept = -math.inf, None
    optimizer = partial(torch.optim.SGD, lr=0.005)
    valid = [(data(12, seed=4),)]
    for record in fit(model, guide, IWAE(2), [(data() + 3,)], valid, 40, optimizer, patience=2, seed=0):
        if record.valid > best:
            best, kept = record.valid, {k: v.detach().clone() for k, v in pyro.get_param_store().items()}
    assert record.valid < best and set(kept) == {"net$$$weight", "net$$$bias", "loc", "q_loc"}
    assert all(torch.equal(pyro.param(name), value) for name, value in kept.items())


def test_data_with_a_graph_are_refused_in_words():
    model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
    x = model(n=20)
    guide = Diagonal(latents(model, x), MLP(3, 4))
    assert x.requires_grad
    for call in (lambda: list(fit(model, guide, ELBO(), [(x,)], epochs=2)), lambda: evaluate(model, guide, x)):
        with pytest.raises(ValueError, match="requires a gradient.*detach"):
            call()


@pytest.mark.parametrize("insomnia, instead", [(1.0, "RWS(3, sleep=0)"), (0.25, "RWS(3, sleep=0.75)")])
def test_the_objective_to_train_by_in_place_of_pyros_wake_sleep_is_named_and_trains(insomnia, instead):
    model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
    guide = Diagonal(latents(model, x), MLP(3, 8))
    with pytest.raises(ValueError, match=re.escape(f"train by {instead}")):
        next(fit(model, guide, ReweightedWakeSleep(3, insomnia), [(x,)], epochs=1))
    (epoch,) = fit(model, guide, RWS(3, sleep=1 - insomnia), [(x,)], epochs=1, engine="eager")
    assert math.isfinite(epoch.train)


def test_an_epochs_record_counts_the_steps_that_were_skipped():
    batches = [(data(),), (1e4 * data(),), (data(seed=4),)]
    model, guide = pair()
    records = list(fit(model, guide, Trace_ELBO(), batches, epochs=2, seed=0, skip_norm=1e4))
    assert [(record.skipped, record.steps) for record in records] == [(1, 3), (1, 3)]
    assert "skipped 1 of 3 steps" in str(records[0])


def test_a_run_that_skips_every_step_is_stopped_with_the_norms_it_met():
    with pytest.raises(ValueError, match=r"skip_norm is 1e-06, below every gradient of epoch 1: all 2 steps were skip"):
        run(seed=0, skip_norm=1e-6)
