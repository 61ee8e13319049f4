"""A density of codes, fitted after the training, from which an autoencoder generates."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import FlowPrior
from dlvm.guides import Diagonal, FullyObserved, latents
from dlvm.inference import ELBO, MaximumLikelihood, fit, fit_em
from dlvm.inference.programs.randomness import untouched
from dlvm.models import VAE, GaussianMixture

ITERATIONS = 50
CODES = 100  # at a step
SPREAD = 1e-3  # added to variances of codes, per variance of all


class Vectors(dist.MixtureSameFamily):
    """A mixture over all real vectors, which says so."""

    support = constraints.real_vector


class ExPostPrior(nn.Module):
    """A mixture of Gaussians with any covariances, as it was fitted to codes; nothing of it is trained.

        p(z) = sum_k weight_k N(z; loc_k, covariance_k)

    Args:
        mixture: of z.
    """

    weights: Tensor
    loc: Tensor
    scale_tril: Tensor

    def __init__(self, mixture: GaussianMixture):
        super().__init__()
        with torch.no_grad():
            self.register_buffer("weights", mixture.weights.clone())
            self.register_buffer("loc", mixture.loc.clone())
            self.register_buffer("scale_tril", torch.linalg.cholesky(mixture.covariances()))

    def forward(self) -> dist.Distribution:
        components = dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)
        return Vectors(dist.Categorical(self.weights), components)


def with_density(model: VAE, codes: Tensor, components: int = 10, seed: int = 0) -> VAE:
    """The model with a mixture of Gaussians, fitted to codes by EM, for its prior; p(x | z) is the same module.

    Its p(z) p(x | z) is a model like any other: it generates, and has a log p(x), of which a guide with a density
    gives estimates, see ``fitted_guide``.

    Args:
        model: whose prior it takes the place of.
        codes: of training data, shape (n, z_dim).
        components: Gaussians of the mixture.
        seed: of where EM starts.

    Returns:
        another model, which shares the likelihood.
    """
    with untouched(seed):
        reg = SPREAD * float(codes.var(0).mean().clamp_min(1e-12))
        mixture = GaussianMixture(components, codes.shape[1], reg_covar=reg)
        mixture.start_at(codes)
        for _ in fit_em(mixture, codes, iterations=ITERATIONS, tolerance=1e-4):
            pass
    return VAE(codes.shape[1], model.likelihood, ExPostPrior(mixture))


class Codes(PyroModule):
    """Codes as data, by a density that is learned.

    Args:
        prior: without inputs, over codes.
    """

    def __init__(self, prior: nn.Module):
        super().__init__("model")
        self.prior = prior

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        with pyro.plate("data", n if x is None else len(x)):
            return pyro.sample("x", self.prior(), obs=x)


def with_flow(model: VAE, codes: Tensor, epochs: int = 100, seed: int = 0) -> VAE:
    """The model with a flow, fitted to codes by maximum likelihood, for its prior; p(x | z) is the same module.

    As ``with_density``; every tenth code is held out, and tells when to stop.

    Args:
        model: whose prior it takes the place of.
        codes: of training data, shape (n, z_dim), z_dim at least 2.
        epochs: passes over these, at most.
        seed: of parameters.

    Returns:
        another model, which shares the likelihood.
    """
    with untouched(seed):
        pyro.set_rng_seed(seed)
        prior = FlowPrior(codes.shape[1]).to(codes)
        with torch.no_grad():
            prior.loc.copy_(codes.mean(0))
            prior.raw.copy_(codes.std(0).clamp_min(1e-4).log())
        held = torch.arange(len(codes), device=codes.device) % 10 == 0
        batches, valid = [(part,) for part in codes[~held].split(CODES)], [(codes[held],)]
        settings: dict[str, Any] = {"epochs": epochs, "patience": 10, "progress": False, "seed": seed}
        adam, pair = partial(torch.optim.Adam, lr=3e-3), (Codes(prior), FullyObserved())
        for _ in fit(*pair, MaximumLikelihood(), batches, valid, optimizer=adam, engine="captured", **settings):
            pass
    return VAE(codes.shape[1], model.likelihood, prior.requires_grad_(False))


def fitted_guide(model: VAE, encoder: nn.Module, train: object, epochs: int, seed: int = 0) -> nn.Module:
    """A guide with a density, fitted to a model that is held: what an autoencoder lacks for log p(x).

    Args:
        model: of x alone; its parameters are left as they are.
        encoder: a fresh net of x.
        train: loader of the training data.
        epochs: passes over these.
        seed: of parameters and noise.

    Returns:
        a ``Diagonal`` guide.
    """
    with untouched(seed):
        pyro.set_rng_seed(seed)
        guide = Diagonal(latents(model, *train.examples), encoder)  # type: ignore[attr-defined]  # a Loader
    held = [p for p in model.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        settings: dict[str, Any] = {"epochs": epochs, "seed": seed, "progress": False, "engine": "captured"}
        for _ in fit(model, guide, ELBO(), train, **settings):  # type: ignore[arg-type]  # a Loader
            pass
    finally:
        for p in held:
            p.requires_grad_(True)
    return guide
