"""Conditional distributions: modules from a context to a Pyro distribution, used by models and guides alike.

Importing the package registers divergences with torch: see ``distributions.kl``.
"""

from distributions.bernoulli import Bernoulli
from distributions.categorical import Binary, Categorical, Logits, OneHotCategorical
from distributions.inverse_autoregressive import InverseAutoregressiveNormal
from distributions.kl import (
    binary_to_binary,
    diagonal_to_low_rank,
    full_rank_to_diagonal,
    low_rank_to_diagonal,
    low_rank_to_full_rank,
)
from distributions.normal import DiagonalNormal, FullRankNormal, StandardNormal
from distributions.scale import positive

__all__ = [
    "Bernoulli",
    "Binary",
    "Categorical",
    "DiagonalNormal",
    "FullRankNormal",
    "InverseAutoregressiveNormal",
    "Logits",
    "OneHotCategorical",
    "StandardNormal",
    "binary_to_binary",
    "diagonal_to_low_rank",
    "full_rank_to_diagonal",
    "low_rank_to_diagonal",
    "low_rank_to_full_rank",
    "positive",
]
