"""Small models, guides and data that the refusals are about."""

from __future__ import annotations

import torch

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, latents
from dlvm.inference import IWAE, fit
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

X = (torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
MODEL = VAE(2, Bernoulli(MLP(2, 6, 4)))
GUIDE = Diagonal(latents(MODEL, X), MLP(4, 6))
LINEAR = PPCA(torch.ones(4, 2), torch.zeros(4), 1.0)


def fitted(**changed):
    settings = dict(train=[(X,)], epochs=1, seed=0, progress=False, engine="eager") | changed
    return next(fit(MODEL, GUIDE, IWAE(2), **settings))
