"""Conditional distributions: modules from a context to a Pyro distribution, used by models and guides alike.

Importing the package registers divergences with torch: see ``distributions.kl``.
"""

from distributions.bernoulli import Bernoulli
from distributions.categorical import Binary, Categorical, Logits, OneHotCategorical
from distributions.coupling import Affine, Coupling
from distributions.flow import Flow
from distributions.flow_normal import FlowNormal
from distributions.householder import HouseholderNormal
from distributions.inverse_autoregressive import InverseAutoregressiveNormal
from distributions.kl import (
    binary_to_binary,
    diagonal_to_low_rank,
    full_rank_to_diagonal,
    low_rank_to_diagonal,
    low_rank_to_full_rank,
)
from distributions.low_rank import LowRankNormal
from distributions.mixture import MixtureNormal, ReparametrisedMixture
from distributions.normal import DiagonalNormal, FullRankNormal, StandardNormal
from distributions.observation_noise import ConstantScaleNormal, FixedScale, LearnedScale
from distributions.planar import PlanarNormal
from distributions.radial import RadialNormal
from distributions.scale import positive
from distributions.spline import Autoregressive, RationalQuadratic
from distributions.student_t import DiagonalStudentT
from distributions.sylvester import HouseholderBasis, OrthogonalBasis, PermutedBasis, SylvesterNormal
from distributions.von_mises_fisher import VonMisesFisher, VonMisesFisherDirection

__all__ = [
    "Affine",
    "Autoregressive",
    "Bernoulli",
    "Binary",
    "Categorical",
    "ConstantScaleNormal",
    "Coupling",
    "DiagonalNormal",
    "DiagonalStudentT",
    "FixedScale",
    "Flow",
    "FlowNormal",
    "FullRankNormal",
    "HouseholderBasis",
    "HouseholderNormal",
    "InverseAutoregressiveNormal",
    "LearnedScale",
    "Logits",
    "LowRankNormal",
    "MixtureNormal",
    "OneHotCategorical",
    "OrthogonalBasis",
    "PermutedBasis",
    "PlanarNormal",
    "RadialNormal",
    "RationalQuadratic",
    "ReparametrisedMixture",
    "StandardNormal",
    "SylvesterNormal",
    "VonMisesFisher",
    "VonMisesFisherDirection",
    "binary_to_binary",
    "diagonal_to_low_rank",
    "full_rank_to_diagonal",
    "low_rank_to_diagonal",
    "low_rank_to_full_rank",
    "positive",
]
