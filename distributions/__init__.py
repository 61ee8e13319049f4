"""Conditional distributions: modules from a context to a Pyro distribution, used by models and guides alike.

Importing the package registers one divergence with torch, KL(full-rank Gaussian || diagonal Gaussian).
"""

from distributions.bernoulli import Bernoulli
from distributions.inverse_autoregressive import InverseAutoregressiveNormal
from distributions.kl import full_rank_to_diagonal
from distributions.normal import DiagonalNormal, FullRankNormal, StandardNormal
from distributions.scale import positive

__all__ = [
    "Bernoulli",
    "DiagonalNormal",
    "FullRankNormal",
    "InverseAutoregressiveNormal",
    "StandardNormal",
    "full_rank_to_diagonal",
    "positive",
]
