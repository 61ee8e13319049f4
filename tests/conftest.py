"""For every test: one thread (the tensors are small), a clean parameter store and a fixed seed.

And linear-Gaussian pairs of programs whose every number is known, and training without noise.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from dlvm.models import PPCA

for folder in (Path(__file__).parent, Path(__file__).parent.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from oracles import Gaussian, LinearGaussian, gauss_hermite  # noqa: E402

torch.set_num_threads(1)
if torch.accelerator.current_accelerator() is None:  # or each seed would keep its traceback for all that may turn up
    for device in (torch.cuda, torch.xpu, torch.mtia):
        device.manual_seed_all = lambda seed: None
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background, which programs that tests start inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # what is imported and collected stays: no search for garbage among it, neither now nor later


SLOW = frozenset((Path(__file__).parent / "slow_tests.txt").read_text("utf-8").splitlines())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that took half a second of a processor where they were measured stand in slow_tests.txt, and are slow."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def fresh_start():
    """No test sees another's parameters, random state or default dtype."""
    dtype = torch.get_default_dtype()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(dtype)
    pyro.clear_param_store()


@pytest.fixture
def float64():
    """Double precision as the default dtype, where exactness is claimed."""
    torch.set_default_dtype(torch.float64)


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


class _Quadrature(Messenger):
    """The sites z, z1, ..., or those all at once, are drawn at the next columns of eps (n, columns) as their noise."""

    def __init__(self, eps: Tensor):
        super().__init__()
        self.eps = eps

    def __enter__(self):
        self.column = 0
        return super().__enter__()

    def _pyro_sample(self, msg):
        if msg["name"].startswith(("z", "joint")) and not isinstance(msg["fn"], dist.Delta):
            eps = self.eps[:, self.column : self.column + msg["fn"].event_shape[0]]
            self.column += eps.shape[1]
            msg["value"], msg["done"] = _push(msg["fn"], eps), True


def _push(fn: dist.Distribution, eps: Tensor) -> Tensor:
    """Where a reparametrised Gaussian, or a flow on top of one, takes its noise."""
    if isinstance(fn, dist.TransformedDistribution):
        z = _push(fn.base_dist, eps)
        for step in fn.transforms:
            z = step(z)
        return z
    if hasattr(fn, "scale_tril"):
        return fn.mean + (fn.scale_tril @ eps.unsqueeze(-1)).squeeze(-1)
    return fn.mean + fn.stddev * eps


def _minimised(
    objective: ELBO, model: Callable, guide: nn.Module, xs: Tensor, dims: int, nodes: int = 2, train_model: bool = False
) -> float:
    eps, log_weight = gauss_hermite(nodes, dims)
    rows, eps = xs.repeat_interleave(len(eps), 0), eps.repeat(len(xs), 1)
    weight = log_weight.exp().repeat(len(xs)) / len(xs)
    programs = [poutine.scale(program, scale=weight) for program in (model, _Quadrature(eps)(guide))]
    parameters = [*guide.parameters(), *(model.parameters() if train_model else ())]
    settings = dict(max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-11, history_size=30)
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **settings)

    def closure():
        optimizer.zero_grad()
        loss = objective.differentiable_loss(*programs, rows)
        loss.backward(inputs=parameters)
        return loss

    optimizer.step(closure)
    return objective.loss(*programs, rows)


@pytest.fixture
def minimised(float64) -> Callable[..., float]:
    """Trains by L-BFGS and returns the loss, a mean over xs (n, x_dim), each x once per quadrature node in the plate.

    Its expectation over `dims` latent dimensions is by Gauss-Hermite: exact where log w is quadratic in the noise.
    """
    return _minimised
