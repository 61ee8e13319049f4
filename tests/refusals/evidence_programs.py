"""Models and guides that each lack something, and arguments with which the estimators of evidence work."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal

import dlvm.evidence as room
from dlvm.distributions import Bernoulli, Categorical
from dlvm.guides import Diagonal, WithGlobals, latents, local_sites
from dlvm.models import VAE, Bayesian, Conditional
from dlvm.nets import MLP
from refusals.pairs import LINEAR, X

PAIR = dict(model=LINEAR, guide=Diagonal(latents(LINEAR, X), MLP(4, 6)))

BAYESIAN = Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 6)
OF_WEIGHTS = WithGlobals(Diagonal(local_sites(latents(BAYESIAN, X)), MLP(4, 6)), BAYESIAN, AutoNormal, X)
LABELS = torch.tensor([0, 1, 0, 1, 1])
ROWS = Bayesian(Conditional(Categorical(MLP(4, 2))), 5)
OF_ROWS = WithGlobals(None, ROWS, AutoDelta, X[:5], LABELS)


def coins(x=None, n=1):
    with pyro.plate("data", n if x is None else len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        p = (0.2 + 0.6 * z).unsqueeze(-1).expand(*z.shape, 4)
        return pyro.sample("x", dist.Bernoulli(p).to_event(1), obs=x)


def shared(x=None, n=1):
    """All data have one latent."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", n if x is None else len(x)):
        return pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(4), 1.0).to_event(1), obs=x)


def nothing_latent(x=None, n=1):
    with pyro.plate("data", n if x is None else len(x)):
        return pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)


def another_site(x):
    with pyro.plate("data", len(x)):
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def too_wide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def nothing(x):
    return None


class Knows(torch.nn.Module):
    """A model whose ``log_px`` gives what it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.log_px = answer

    def forward(self, x=None, n=1):
        return nothing_latent(x, n)


SMALL = dict(data=X, num_particles=2)
CHAINS = dict(num_chains=2, temperatures=2, leaps=1)
VALID = {
    "annealed": dict(model=LINEAR, data=X, **CHAINS),
    "PosteriorChains": dict(model=LINEAR, data=X, leaps=1),
    "reverse_annealed": dict(model=LINEAR, simulated=room.simulate(LINEAR, 4), **CHAINS),
    "calibrate_scale": PAIR | SMALL,
    "calibration": PAIR | dict(num_data=20, num_particles=2),
    "decoder_report": PAIR | SMALL,
    "defensive": PAIR | SMALL,
    "enumerated": dict(model=coins, data=X),
    "exact": dict(model=LINEAR, data=X),
    "exact_gaps": PAIR | dict(data=X, points=20),
    "fit_mcmc_em": dict(chains=room.PosteriorChains(LINEAR, X), epochs=1),
    "gaps": PAIR | SMALL | dict(steps=2),
    "importance": PAIR | SMALL,
    "predictive": dict(model=BAYESIAN, guide=OF_WEIGHTS, data=X.gt(0).float(), num_weights=2, num_particles=2),
    "prior_sampling": dict(model=LINEAR) | SMALL,
    "quadrature": dict(model=LINEAR, data=X[:1]),
    "sandwich": PAIR | SMALL | CHAINS,
    "simulate": dict(model=LINEAR, n=4),
    "views": PAIR | SMALL | dict(draws=2),
}
