"""The words that scripts accept for guides, objectives, likelihoods and optimizers, and what each stands for."""

from __future__ import annotations

from functools import partial

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from distributions import Bernoulli, DiagonalNormal
from guides import IAF, Diagonal, FullRank
from inference import IWAE, Renyi

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

LIKELIHOODS = {
    "bernoulli": lambda net, x_dim, mean: Bernoulli(net, mean),
    "normal": lambda net, x_dim, mean: DiagonalNormal(net, x_dim),
}
