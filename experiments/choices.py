"""The words that scripts accept for guides, objectives, likelihoods and optimizers, and what each stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from distributions import Bernoulli, DiagonalNormal
from guides import IAF, Diagonal, FullRank
from inference import IWAE, Renyi
from nets import MLP

GUIDES = {"diagonal": Diagonal, "full_rank": FullRank, "iaf": IAF}

OBJECTIVES = {
    "elbo": lambda num_particles, alpha: Trace_ELBO(num_particles, vectorize_particles=num_particles > 1),
    "analytic_kl": lambda num_particles, alpha: TraceMeanField_ELBO(
        num_particles, vectorize_particles=num_particles > 1
    ),
    "iwae": lambda num_particles, alpha: IWAE(num_particles),
    "renyi": lambda num_particles, alpha: Renyi(alpha, num_particles),
}

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "rmsprop": partial(torch.optim.RMSprop, centered=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "softplus": nn.Softplus}


def bernoulli(z_dim: int, hidden: Sequence[int], x_dim: int, activation: Callable, mean: Tensor | None) -> Bernoulli:
    """p(x | z) for binary data; ``mean`` starts the output bias."""
    return Bernoulli(MLP(z_dim, *hidden, x_dim, activation=activation), mean)


def normal(z_dim: int, hidden: Sequence[int], x_dim: int, activation: Callable, mean: Tensor | None) -> DiagonalNormal:
    """p(x | z) for real numbers, with a variance of its own for every z; ``mean`` is not used."""
    return DiagonalNormal(
        MLP(z_dim, *hidden, activation=activation, output=activation if hidden else nn.Identity), x_dim
    )


LIKELIHOODS = {"bernoulli": bernoulli, "normal": normal}


def count(*modules: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(p.shape) for module in modules for p in module.parameters() if p.requires_grad)
