"""Programs, batches and settings that no pair can be stepped with."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from pyro.infer import Trace_ELBO
from torch import optim

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, latents
from dlvm.inference import IWAE, linear
from dlvm.models import VAE
from dlvm.nets import MLP
from refusals.case import NOT_CALLABLE, NOT_DATA, NOT_NUMBERS
from refusals.pairs import GUIDE, MODEL, X

WIDE = Diagonal(latents(VAE(3, Bernoulli(MLP(3, 4))), X), MLP(4, 6))
ELSEWHERE = Diagonal({"w": GUIDE.latents["z"]}, MLP(4, 6))
SAID = "; "  # words and a remedy, about whichever of both programs is at fault
ADAM = partial(optim.Adam, lr=1e-3)


def fails_in_the_middle(x=None, n=1):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return {}[z.dim()]


def observes_nothing(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def takes_two(x, y):
    return MODEL(x)


def draws_nothing(x):
    return None


NOT_OBJECTIVES = st.sampled_from([None, 3, "elbo", IWAE, Trace_ELBO, GUIDE, X, linear(0, 1, 5)])
NOT_ENGINES = st.sampled_from([None, 3, "fast", "AUTO", "", True, ["auto"], X])
NOT_FIT = st.sampled_from(
    [
        X[:, :3],
        torch.rand(6, 5),
        X[0],
        torch.tensor(1.0),
        X * 0.5,
        X + 2,
        -X - 1,
        X[:0],
        X[:, :0],
        X.expand(2, 6, 4) * 0.3,
    ]
)
ODD_BATCHES = st.one_of(
    NOT_DATA,
    st.sampled_from([(), [], {}, "batch", ("x", X), (None,), X.numpy(), {"x": X}]),
)
NOT_ARGUMENTS = st.one_of(NOT_FIT, ODD_BATCHES)
NOT_BATCHES = st.one_of(NOT_ARGUMENTS, st.sampled_from([None, X.clone().requires_grad_(), torch.full_like(X, 1e30)]))
NOT_OPTIMIZERS = st.sampled_from(
    [
        None,
        3,
        "adam",
        pyro.optim.Adam({"lr": 1e-3}),
        optim.Adam([torch.ones(2, requires_grad=True)]),
        lambda p: None,
        lambda p: 3,
        lambda: None,
        list,
        optim.LBFGS,
        partial(optim.Adam, lr=-1.0),
        partial(optim.Adam, rate=1),
        optim.Optimizer,
        optim.SparseAdam([torch.ones(1, requires_grad=True)]),
    ]
)
STRANGERS = st.just(lambda p: optim.Adam([torch.ones(2, requires_grad=True)]))
NOT_NORMS = st.one_of(NOT_NUMBERS, st.floats(-9, 0), st.sampled_from([float("nan"), torch.ones(2), 0]))
NOT_MODELS = st.one_of(
    NOT_CALLABLE,
    st.sampled_from([VAE, Diagonal, IWAE(2), MLP(4, 6), observes_nothing, fails_in_the_middle, takes_two, GUIDE]),
)
NOT_GUIDES = st.one_of(
    NOT_CALLABLE,
    st.sampled_from([VAE, Diagonal, MLP(4, 6), WIDE, ELSEWHERE, fails_in_the_middle, takes_two, draws_nothing]),
)
