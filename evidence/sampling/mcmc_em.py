"""Monte Carlo EM: a model learns from draws of its own posterior by Hamiltonian Monte Carlo, without a guide."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlvm.evidence.annealing.path import Path
from dlvm.evidence.sampling.posterior_chains import PosteriorChains
from dlvm.inference.engine.engine import Engine
from dlvm.inference.engine.optimizer import QuickStep, made
from dlvm.inference.engine.recording import Outcome
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.programs.randomness import Stream
from dlvm.nets.arguments import count

Adam = partial(torch.optim.Adam, lr=1e-3, fused=True)
STUCK = 0.01


@dataclass(frozen=True)
class MCMCEMEpoch:
    """What one epoch of ``fit_mcmc_em`` came to.

    Attributes:
        epoch: from 1.
        log_joint: log p(x, u) at the chains, u being the latents without constraints; nats per datum, mean over the
            epoch's steps. It is no bound on log p(x), and may fall while that rises: ``evidence`` has estimates.
        acceptance: of the chains' proposals, mean over the epoch.
        stuck: the share of steps whose proposals were accepted with a mean probability below 0.01: chains that do not
            move are no draws of the posterior.
        size: the chains' step size at its end.
        seconds: of the epoch.
    """

    epoch: int
    log_joint: float
    acceptance: float
    stuck: float
    size: float
    seconds: float

    def __str__(self) -> str:
        found = f"log p(x, u) {self.log_joint:.3f} nats per datum   acceptance {self.acceptance:.2f}"
        stuck = f"   stuck in {self.stuck:.0%} of steps" if self.stuck else ""
        return f"epoch {self.epoch:4d}   {found}   step size {self.size:.2g}   {self.seconds:.2f} s{stuck}"


def fit_mcmc_em(
    chains: PosteriorChains,
    epochs: int = 100,
    batch_size: int = 100,
    moves: int = 1,
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer] = Adam,
    seed: int | None = None,
) -> Iterator[MCMCEMEpoch]:
    """Trains the model of some chains by stochastic EM with an E-step of Markov chains; yields a record for each epoch.

        u_n <- HMC(u_n; p(u | x_n, theta)),   theta <- theta + rate * d/dtheta sum_n mean_chains log p(x_n, u_n; theta)

    By Fisher's identity the gradient of log p(x) is the posterior mean of that of log p(x, z). The step's is unbiased
    for it once chains have reached p(z | x, theta); as long as they lag behind theta, which changes under them, it is
    not, by an error that is not known: more ``moves``, smaller steps or ``chains.move(...)`` beforehand lessen it. No
    guide is trained, and none is left to encode new data. Each epoch goes through the chains' data once, shuffled;
    chains go on from one epoch, and one call, to the next. With ``seed`` the run has a random stream of its own.

    Modules are in evaluation mode: without dropout, and batch normalisation keeps the statistics that it has.

    Returns:
        a generator of ``MCMCEMEpoch``.

    Args:
        chains: of the model and the data.
        epochs: how many.
        batch_size: data per step.
        moves: proposals for each chain before a step.
        optimizer: parameters -> torch optimizer.
        seed: of shuffling and chains.

    Raises:
        ValueError: a number is below 1, no parameter of the model gets a gradient.
        TypeError: ``chains`` is something else, the model is no module, or ``optimizer`` makes no torch optimizer.
        NonFinite: log p(x, z) or a gradient is not finite.

    References:
        A Monte Carlo Implementation of the EM Algorithm and the Poor Man's Data Augmentation Algorithms, Wei, Tanner,
            1990.
        Learning Deep Latent Gaussian Models with Markov Chain Monte Carlo, Hoffman, 2017.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, appendix A.2.3, arXiv:1906.02691.

    Example:
        >>> from dlvm.models import PPCA
        >>> _ = torch.manual_seed(0)
        >>> model, x = PPCA(torch.ones(3, 1), torch.zeros(3), 1.0), torch.randn(50, 3) + 4
        >>> before = model.log_px(x).mean()
        >>> chains = PosteriorChains(model, x)
        >>> records = [*fit_mcmc_em(chains, epochs=30, optimizer=partial(torch.optim.Adam, lr=0.1))]
        >>> bool(model.log_px(x).mean() > before + 1)
        True
    """
    if not isinstance(chains, PosteriorChains):
        raise TypeError(
            f"chains must be PosteriorChains, got {type(chains).__name__}; write PosteriorChains(model, x), which "
            "belong to these data"
        )
    count(epochs=epochs, batch_size=batch_size, moves=moves)
    return _epochs(chains, _MStep(chains, optimizer), epochs, batch_size, moves, Stream(seed))


class _MStep:
    """A gradient step of the model at where the chains of some data are."""

    path: Path  # of the latest data

    def __init__(self, chains: PosteriorChains, optimizer: Callable):
        root = chains.pair.roots.get("model")
        if root is None:
            raise TypeError(
                "model must be a module that owns its parameters, got a function; write it as a PyroModule with a "
                "method forward"
            )
        self.chains = chains
        self.parameters: list[Tensor] = [p for p in root.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"model {type(root).__name__} has no parameter that requires a gradient to be trained")
        self.advance = QuickStep(made(optimizer, self.parameters))
        self.engine = Engine(self._slopes, chains.pair.modules, chains.engine, finite=False, name="fit_mcmc_em")

    def __call__(self, index: Tensor) -> float:
        """Steps; returns log p(x, u) before it, nats per datum."""
        with self.chains.at(index) as self.path:
            (value, square), gradients = self.engine(self.chains.u[:, index], *self.path.target.args)
        if not math.isfinite(value) or not math.isfinite(square):
            raise NonFinite(
                f"log p(x, u) is {value} nats per datum and its gradient's squared norm {square}: a smaller learning "
                "rate, more moves, or a likelihood of bounded scale"
            )
        if all(gradient is None for gradient in gradients):
            raise ValueError("no parameter of the model gets a gradient of log p(x, z); look for what it detaches")
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else -gradient
        self.advance()
        for parameter in self.parameters:
            parameter.grad = None
        return value

    def _slopes(self, u: Tensor, *args: Any) -> Outcome:
        self.path.target.args = args
        with torch.enable_grad():
            value = self.path.target.joint(u).mean(0).sum()
            gradients = torch.autograd.grad(value, self.parameters, allow_unused=True)
        squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
        total = torch.stack(squares).sum() if squares else torch.zeros_like(value)
        return [(value / u.shape[1]).item(), total.item()], [*gradients]


def _epochs(
    chains: PosteriorChains, m_step: _MStep, epochs: int, batch_size: int, moves: int, stream: Stream
) -> Iterator[MCMCEMEpoch]:
    for epoch in range(1, epochs + 1):
        began, joint, accepted, stuck, steps = time.perf_counter(), 0.0, 0.0, 0, 0
        with stream:
            for index in torch.randperm(chains.num_data).to(chains.u.device).split(batch_size):
                acceptance = chains.move(moves, index)
                joint += m_step(index) * len(index) / chains.num_data
                accepted += acceptance * len(index) / chains.num_data
                stuck, steps = stuck + (acceptance < STUCK), steps + 1
        seconds = time.perf_counter() - began
        yield MCMCEMEpoch(epoch, joint, accepted, stuck / steps, chains.size, seconds)
