"""Training runs of every kind, to be broken off and gone on with, here or in a process that is killed."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, TensorDataset

from dlvm.distributions import Bernoulli
from dlvm.experiments.data.loader import Loader
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, IWAE, NVIL, MovingAverage, ScoreFunction, fit, linear, tempered
from dlvm.models import VAE
from dlvm.nets import MLP

EPOCHS, X_DIM, BATCH = 4, 6, 8
torch.set_num_threads(1)


def greys(n: int = 44) -> Tensor:
    return torch.rand(n, X_DIM, generator=torch.Generator().manual_seed(2), dtype=torch.get_default_dtype())


def bits(n: int = 44) -> Tensor:
    return greys(n).round()


def loaders(**settings) -> dict:
    """A shuffled training loader that draws anew, and one to validate on."""
    train = Loader(greys(), BATCH, shuffle=True, dynamic=True)
    return {"train": train, "valid": Loader(greys(16), BATCH, dynamic=True), "seed": 3, **settings}


def pair(encoder: Callable[[], nn.Module] = lambda: MLP(X_DIM, 8)) -> tuple[VAE, nn.Module]:
    pyro.set_rng_seed(1)
    model = VAE(2, Bernoulli(MLP(2, 8, X_DIM)))
    return model, Diagonal(latents(model, bits()), encoder())


class Noisy(nn.Module):
    """An encoder with batch statistics and dropout."""

    in_features, out_features = X_DIM, 8

    def __init__(self):
        super().__init__()
        parts = nn.Linear(X_DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU()
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Permuted:
    """Batches in an order that NumPy draws, with noise from Python's and torch's generators."""

    def __init__(self, x: Tensor):
        self.x = x

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        for rows in np.array_split(np.random.permutation(len(self.x)), 5):
            yield ((self.x[rows] + (torch.rand(len(rows), X_DIM) < 0.1)) % 2,)


class Rare(PyroModule):
    """A model with one discrete latent, whose learning signal needs a baseline."""

    def __init__(self):
        super().__init__("model")
        self.logits = nn.Parameter(torch.randn(2, X_DIM))

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))
            logits = self.logits[z.long()]
            return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class RareGuide(PyroModule):
    def __init__(self):
        super().__init__("guide")
        self.net = nn.Linear(X_DIM, 1)

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            infer = {"baseline": {"use_decaying_avg_baseline": True}}
            pyro.sample("z", dist.Bernoulli(logits=self.net(x).squeeze(-1)), infer=infer)


def model_function(x):
    loc = pyro.param("loc", torch.zeros(X_DIM))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Bernoulli(logits=loc + z.unsqueeze(-1)).to_event(1), obs=x)


def guide_function(x):
    scale = pyro.param("scale", torch.ones(()), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("shift", torch.zeros(())) * x.sum(-1), scale))


def case_warm_up() -> dict:
    objective = tempered(IWAE(2), linear(0.0, 1.0, steps=14))
    how = dict(engine="captured", patience=2, scheduler=partial(schedules.ExponentialLR, gamma=0.8), clip_norm=5.0)
    return loaders(programs=pair(), objective=objective, **how)


def case_eager() -> dict:
    slower = partial(schedules.CosineAnnealingLR, T_max=6)
    how = dict(engine="eager", optimizer=partial(optim.SGD, lr=1e-3, momentum=0.9), scheduler=slower, rollbacks=1)
    return loaders(programs=pair(), objective=Trace_ELBO(), **how)


def case_moving_average() -> dict:
    how = dict(
        optimizer=partial(optim.RMSprop, lr=1e-3, centered=True), scheduler=partial(schedules.StepLR, step_size=2)
    )
    return loaders(programs=pair(), objective=ELBO(estimator=ScoreFunction(MovingAverage(), everywhere=True)), **how)


def case_nvil() -> dict:
    programs = pair()  # first, since it sets the seed
    objective = ELBO(estimator=ScoreFunction(NVIL(MLP(X_DIM, 4, 1)), everywhere=True))
    return loaders(programs=programs, objective=objective, optimizer=partial(optim.Adamax, lr=1e-3), engine="captured")


def case_batch_statistics() -> dict:
    torch.manual_seed(4)
    shuffled = DataLoader(TensorDataset(bits()), BATCH, shuffle=True, drop_last=True)
    return dict(programs=pair(Noisy), objective=IWAE(2), train=shuffled, valid=[(bits(9),)], patience=2)


def case_torch_generator() -> dict:
    generator = torch.Generator().manual_seed(6)
    shuffled = DataLoader(TensorDataset(bits()), BATCH, shuffle=True, generator=generator)
    halve = partial(schedules.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch)
    return dict(programs=pair(), objective=ELBO(), train=shuffled, seed=7, scheduler=halve)


def case_numpy() -> dict:
    def in_turn(optimizer):
        parts = schedules.LinearLR(optimizer, total_iters=2), schedules.ExponentialLR(optimizer, 0.5)
        return schedules.SequentialLR(optimizer, [*parts], milestones=[2])

    return dict(programs=pair(), objective=ELBO(), train=Permuted(bits()), seed=8, scheduler=in_turn, engine="eager")


def case_functions() -> dict:
    how = dict(valid=[(bits(9),)], patience=2, seed=9, optimizer=partial(optim.Adam, lr=0.3))
    return dict(programs=(model_function, guide_function), objective=Trace_ELBO(), train=[(bits(),)] * 5, **how)


def case_pyro_baseline() -> dict:
    pyro.set_rng_seed(1)
    whole = Loader(bits(40), BATCH, shuffle=True)
    return dict(programs=(Rare(), RareGuide()), objective=TraceGraph_ELBO(), train=whole, seed=2)


def case_one_loader_for_both() -> dict:
    both = Loader(greys(), BATCH, shuffle=True, dynamic=True)
    return dict(programs=pair(), objective=ELBO(), train=both, valid=both, patience=3)


CASES: dict[str, Callable[[], dict]] = {
    name.removeprefix("case_"): make for name, make in list(globals().items()) if name.startswith("case_")
}


def result_of(model: Callable, guide: Callable, history: list) -> dict:
    """Everything that two runs must have in common to be the same, as bytes and text."""
    tensors = dict(pyro.get_param_store()._params)
    for word, program in (("model", model), ("guide", guide)):
        if isinstance(program, nn.Module):
            tensors |= {f"{word}.{name}": value for name, value in program.state_dict().items()}
    epochs = [str(dataclasses.asdict(epoch) | {"seconds": 0.0, "engine": ""}) for epoch in history]
    found = {name: value.detach().numpy().tobytes() for name, value in tensors.items() if not name.startswith("__")}
    return found | {"epochs": epochs}


def train(case: str, folder: Path | None = None, **settings) -> dict:
    """Trains a case from the beginning, or from what lies in the folder; what it came to."""
    pyro.clear_param_store()
    parts = CASES[case]()
    model, guide = parts.pop("programs")
    every = {} if folder is None else {"checkpoint": folder, "every": 3}
    arguments = {"epochs": EPOCHS, "progress": False, **every, **parts, **settings}
    return result_of(model, guide, list(fit(model, guide, **arguments)))


def train_to_be_killed(case: str, folder: Path, dtype: torch.dtype, pause: float, started, outbox) -> None:
    """``train`` in a process of its own, whose writes take a while."""
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)
    replace, flush = os.replace, os.fsync

    def slowed(act: Callable) -> Callable:
        def later(*args):
            time.sleep(pause)
            act(*args)

        return later

    os.replace, os.fsync = slowed(replace), slowed(flush)
    started.set()
    outbox.send(train(case, folder))
