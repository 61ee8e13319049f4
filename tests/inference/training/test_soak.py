"""Long runs: nothing grows with the number of steps or of runs, and the same seed gives the same numbers anywhere."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, IWAE, SVI, evaluate, fit
from dlvm.models import VAE
from dlvm.nets import MLP

ROOT = Path(__file__).parents[3]
X = (torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
ENGINES = ["eager", "captured"]

PROGRAM = """
import sys
import torch
torch.set_num_threads(1)
torch.set_default_dtype(getattr(torch, sys.argv[1]))
from dlvm.evidence import annealed
from dlvm.experiments.data import from_tensor
from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, latents
from dlvm.inference import IWAE, evaluate, fit
from dlvm.models import VAE
from dlvm.nets import MLP

torch.manual_seed(3)
train, valid, test = from_tensor(torch.rand(60, 9), 16, "dynamic", seed=5)
model = VAE(2, Bernoulli(MLP(2, 8, 9)))
guide = Diagonal(latents(model, train.example), MLP(9, 8))
run = fit(model, guide, IWAE(3), train, valid=valid, epochs=4, seed=7, engine=sys.argv[2], progress=False)
numbers = [number for record in run for number in (record.train, record.valid, record.grad_norm)]
numbers += evaluate(model, guide, test, num_particles=30).log_px.hex(),
numbers += annealed(model, test, temperatures=20, num_chains=4, leaps=3).log_px.tolist()
numbers += [value.double().sum().item() for value in (*model.parameters(), *guide.parameters())]
print(numbers)
"""


def pair() -> tuple[VAE, Diagonal]:
    model = VAE(2, Bernoulli(MLP(2, 6, 4)))
    return model, Diagonal(latents(model, X), MLP(4, 6))


def objects() -> int:
    """How many objects the garbage collector knows of, those that it was told to leave alone included."""
    gc.collect()
    return len(gc.get_objects()) + gc.get_freeze_count()


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a system that tells what memory is in use")
@pytest.mark.parametrize("engine", ENGINES)
def test_memory_and_objects_are_the_same_after_500_and_5000_steps(engine):
    seen = {}
    for record in fit(*pair(), IWAE(2), [(X,)] * 250, valid=[(X,)], epochs=20, engine=engine, progress=False, seed=1):
        seen[record.epoch] = objects(), resident()
    (few, small), (many, large) = seen[2], seen[20]
    assert abs(many - few) < 75  # a record an epoch
    assert large - small < 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_batches_of_changing_size_leave_nothing_behind(engine):
    svi = SVI(*pair(), torch.optim.Adam, ELBO(), engine=engine)
    sizes = [1 + step % 8 for step in range(240)]
    for size in sizes:
        svi.step(X[:size])
    for size in sizes:  # eight graphs of the loss, and then no more
        svi.step(X[:size])
        svi.evaluate_loss(X[:size])
    before = objects()
    for size in sizes:
        svi.step(X[:size])
        svi.evaluate_loss(X[:size])
    assert abs(objects() - before) < 75


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_is_over_is_forgotten(engine):
    """Neither the store of parameters, nor a cache of graphs, nor the collector's exempt objects keep it alive."""
    model, guide = pair()
    for _ in fit(model, guide, IWAE(2), [(X,)] * 5, valid=[(X,)], epochs=2, engine=engine, progress=False, seed=1):
        pass
    evaluate(model, guide, X, num_particles=4)
    seen = weakref.ref(model), weakref.ref(guide)
    del model, guide, _
    gc.collect()
    assert [reference() for reference in seen] == [None, None]


def numbers_of(dtype: str, engine: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, dtype, engine]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "engine"), [("float32", "captured"), ("float64", "eager")])
def test_two_processes_with_the_same_seed_print_the_same_numbers(dtype, engine):
    first, second = (numbers_of(dtype, engine) for _ in range(2))
    assert first == second and first.count(",") > 20 and "nan" not in first
