"""Ways to learn one model, each a generator that has made another pass over the data whenever it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.evidence import PosteriorChains, fit_mcmc_em
from dlvm.experiments.data import Loader
from dlvm.guides import Diagonal, Local, latents
from dlvm.inference import ELBO, IWAE, STL, SVI, VIMCO, MovingAverage, Objective, ScoreFunction, WakeSleep, fit, fit_em
from dlvm.nets import MLP

Rule = Literal[
    "em", "exact_gradient", "aevb", "score", "svi", "variational_em", "mcmc_em", "wake_sleep", "naive"
]  # fmt: skip
LABELS: dict[str, str] = {
    "em": "EM",
    "exact_gradient": "gradient of log p(x)",
    "aevb": "AEVB, reparametrised",
    "score": "AEVB, score function",
    "svi": "SVI, local phi",
    "variational_em": "variational EM",
    "mcmc_em": "MCMC-EM",
    "wake_sleep": "wake-sleep",
    "naive": "naive Monte Carlo",
}
CLIMBS: dict[str, str] = {
    "em": "log p(x), by the exact posterior and the best parameters given it: no bias, no noise, all data a step",
    "exact_gradient": "log p(x): the exact posterior and a gradient M-step, by Fisher's identity one and the same",
    "aevb": "the ELBO, short of log p(x) by the family and by the encoder; unbiased gradient with little noise",
    "score": "the same ELBO; unbiased gradient with much noise, where nothing can be reparametrised",
    "svi": "the ELBO, short of it by the family alone; phi of each datum moves once a pass, and lags behind theta",
    "variational_em": "the same, phi of a batch moved several times before theta moves once",
    "mcmc_em": "log p(x), unbiased as chains come to p(z | x), whose lag behind theta nobody sees; no family, no guide",
    "wake_sleep": "theta the ELBO, the guide its dreams' likelihood: not one objective, the guide's bias unknown",
    "naive": "log of a mean over K draws of the prior: a bound that is worth nothing where the posterior is narrow",
}
ENDLESS = 10**9


@dataclass(frozen=True)
class Effort:
    """How each rule learns."""

    lr: float = 5e-3
    """Learning rate of Adam, for all that learns by gradients; that of each datum's own phi is phi_lr."""
    phi_lr: float = 0.03
    """Learning rate of what belongs to one datum."""
    e_steps: int = 5
    """Of variational EM: steps of a batch's phi before a step of theta."""
    num_chains: int = 2
    """Of MCMC-EM, per datum."""
    leaps: int = 5
    """Of MCMC-EM: leapfrog steps per proposal, one proposal before each step of theta."""
    num_particles: int = 50
    """Of naive Monte Carlo: draws of the prior per datum and step."""
    hidden: tuple[int, ...] = (64,)
    """Hidden layers of encoders; tanh."""


class Task(NamedTuple):
    """A model to be learned from data, which are the same at every pass."""

    model: Any
    train: Loader
    effort: Effort
    seed: int

    @property
    def discrete(self) -> bool:
        return any(site.support.is_discrete for site in latents(self.model, self.train.example).values())

    @property
    def estimator(self) -> VIMCO | None:
        """Of a bound over several draws, where these cannot be reparametrised."""
        return VIMCO() if self.discrete else None

    @property
    def numbered(self) -> Loader:
        """The data with the number of each."""
        index = torch.arange(self.train.num_data, device=self.train.device)
        loader = Loader(self.train.x, self.train.batch_size, more={"index": index})
        return loader.giving("x", "index").seeded(self.seed)


class Numbered(PyroModule):
    """A model whose data come with their numbers, which it makes nothing of: a guide of each datum's own does.

    Args:
        model: called with x.
    """

    def __init__(self, model: nn.Module):
        super().__init__("model")
        self.model = model

    def forward(self, x: Tensor | None = None, index: Tensor | None = None) -> Any:
        return self.model(x)


class FromPrior(PyroModule):
    """A guide that draws from the prior, whatever x is: q(z | x) = p(z), so that log w = log p(x | z).

    The model is read, and no part of it.

    Args:
        model: called with x.
    """

    def __init__(self, model: nn.Module):
        super().__init__("guide")
        self._model = (model,)

    def forward(self, x: Tensor) -> None:
        with poutine.block(hide_fn=lambda site: site["type"] == "sample" and site["is_observed"]):
            self._model[0](x)


def applies(rule: str, model: Any, train: Loader) -> bool:
    """Whether a rule can learn a model: closed forms need one, gradients along z and HMC a continuous z."""
    discrete = Task(model, train, Effort(), 0).discrete
    closed = {"em": hasattr(model, "maximise"), "exact_gradient": hasattr(model, "log_px")}
    return closed.get(rule, not discrete or rule not in ("aevb", "mcmc_em"))


def passes(rule: str, task: Task) -> Iterator[None]:
    """Learns by a rule, without end, or until it rises no more; yields after each pass over the data."""
    return RULES[rule](task)


def _em(task: Task) -> Iterator[None]:
    for record in fit_em(task.model, task.train.x, iterations=ENDLESS, tolerance=0):
        if record.iteration:
            yield


def _exact_gradient(task: Task) -> Iterator[None]:
    optimizer = torch.optim.Adam(task.model.parameters(), lr=task.effort.lr, fused=True)
    train = task.train.seeded(task.seed)
    while True:
        for (x,) in train:
            optimizer.zero_grad()
            (-task.model.log_px(x).sum()).backward()
            optimizer.step()
        yield


def _amortised(task: Task, objective: Objective) -> Iterator[None]:
    encoder = MLP(task.train.x_dim, *task.effort.hidden, activation=nn.Tanh)
    return _fitted(task, Diagonal(latents(task.model, task.train.example), encoder), objective)


def _fitted(task: Task, guide: nn.Module, objective: Objective) -> Iterator[None]:
    optimizer = partial(torch.optim.Adam, lr=task.effort.lr, fused=True)
    settings: dict[str, Any] = dict(optimizer=optimizer, seed=task.seed, progress=False, engine="captured")
    for _ in fit(task.model, guide, objective, task.train, epochs=ENDLESS, **settings):
        yield


def _local(task: Task) -> tuple[Numbered, Local, ELBO]:
    """A model that is called with numbers, a guide with phi for each of them, and their bound."""
    sites = latents(task.model, task.train.example)
    guide = Local(sites, task.train.num_data, index=lambda x, index: index)
    return Numbered(task.model), guide, ELBO(1, ScoreFunction(MovingAverage()) if task.discrete else STL())


def _svi(task: Task) -> Iterator[None]:
    model, guide, objective = _local(task)
    svi = SVI(model, guide, partial(_rates, guide, task.effort, model), objective, engine="captured")
    numbered = task.numbered
    while True:
        for batch in numbered:
            svi.step(*batch)
        yield


def _rates(guide: Local, effort: Effort, owner: nn.Module, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam for phi and for what this module owns; without momentum for phi, which would move data not in a batch."""
    rows = guide.encoder.rows
    own = {id(p) for p in (*owner.parameters(), *guide.parameters())} - {id(rows)}
    groups: list[dict[str, Any]] = [
        dict(params=[p for p in parameters if id(p) in own], lr=effort.lr),
        dict(params=[p for p in parameters if p is rows], lr=effort.phi_lr, betas=(0.0, 0.999)),
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], fused=True)


def _theta(guide: nn.Module, effort: Effort, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam for all that is no guide's."""
    phi = {id(p) for p in guide.parameters()}
    return torch.optim.Adam([p for p in parameters if id(p) not in phi], lr=effort.lr, fused=True)


def _variational_em(task: Task) -> Iterator[None]:
    model, guide, objective = _local(task)
    e_step = SVI(model, guide, partial(_rates, guide, task.effort, guide), objective, engine="captured")
    m_step = SVI(model, guide, partial(_theta, guide, task.effort), objective, engine="captured")
    numbered = task.numbered
    while True:
        for batch in numbered:
            for _ in range(task.effort.e_steps):
                e_step.step(*batch)
            m_step.step(*batch)
        yield


def _mcmc_em(task: Task) -> Iterator[None]:
    effort = task.effort
    pyro.set_rng_seed(task.seed)
    chains = PosteriorChains(task.model, task.train.x, effort.num_chains, effort.leaps, engine="captured")
    optimizer = partial(torch.optim.Adam, lr=effort.lr, fused=True)
    for _ in fit_mcmc_em(chains, ENDLESS, task.train.batch_size, optimizer=optimizer, seed=task.seed):
        yield


RULES: dict[str, Callable[[Task], Iterator[None]]] = {
    "em": _em,
    "exact_gradient": _exact_gradient,
    "aevb": lambda task: _amortised(task, ELBO()),
    "score": lambda task: _amortised(task, ELBO(1, ScoreFunction(MovingAverage(), everywhere=True))),
    "svi": _svi,
    "variational_em": _variational_em,
    "mcmc_em": _mcmc_em,
    "wake_sleep": lambda task: _amortised(task, WakeSleep()),
    "naive": lambda task: _fitted(task, FromPrior(task.model), IWAE(task.effort.num_particles, task.estimator)),
}
