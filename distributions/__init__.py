"""Conditional distributions: modules from a context to a Pyro distribution, used by models and guides alike.

Importing the package registers divergences with torch: see ``dlvm.distributions.kl``.
"""

from dlvm.distributions.autoregressive.chain_rule import ChainRule
from dlvm.distributions.autoregressive.elements import Bits, Greys, MixedGreys, Tokens
from dlvm.distributions.bernoulli import Bernoulli
from dlvm.distributions.categorical import Binary, Categorical, Logits, OneHotCategorical
from dlvm.distributions.diffusion.denoiser import BitDenoiser, Denoiser, UNet
from dlvm.distributions.diffusion.noising import Noising
from dlvm.distributions.diffusion.schedule import LinearSchedule, MonotoneSchedule
from dlvm.distributions.flows.base import Flow
from dlvm.distributions.flows.coupling import Additive, Affine, Coupling
from dlvm.distributions.flows.density import Composition, FlowDensity
from dlvm.distributions.flows.flow_normal import FlowNormal
from dlvm.distributions.flows.householder import HouseholderNormal
from dlvm.distributions.flows.image_coupling import ChannelCoupling, CheckerboardCoupling
from dlvm.distributions.flows.images import InvertibleConv, MultiScale, Squeeze
from dlvm.distributions.flows.inverse_autoregressive import InverseAutoregressiveNormal
from dlvm.distributions.flows.planar import PlanarNormal
from dlvm.distributions.flows.radial import RadialNormal
from dlvm.distributions.flows.real_nvp import image_flow, vector_flow
from dlvm.distributions.flows.scaling import ActNorm, Logit, Reorder, Standardise
from dlvm.distributions.flows.spline import Autoregressive, RationalQuadratic
from dlvm.distributions.flows.sylvester import HouseholderBasis, OrthogonalBasis, PermutedBasis, SylvesterNormal
from dlvm.distributions.kl import (
    binary_to_binary,
    diagonal_to_low_rank,
    full_rank_to_diagonal,
    low_rank_to_diagonal,
    low_rank_to_full_rank,
)
from dlvm.distributions.likelihoods.classes import CategoricalColumns, OrdinalColumns
from dlvm.distributions.likelihoods.dequantised import LogisticNoise
from dlvm.distributions.likelihoods.greys import DiscretisedLogistic, GreyLevels
from dlvm.distributions.likelihoods.library_size import LibrarySize
from dlvm.distributions.likelihoods.location_scale import Laplace, Normal, StudentT, Units
from dlvm.distributions.likelihoods.logistic_mixture import LogisticMixture
from dlvm.distributions.likelihoods.missing import Missing, SelfMasking
from dlvm.distributions.likelihoods.negative_binomial import NegativeBinomial
from dlvm.distributions.likelihoods.poisson import Poisson
from dlvm.distributions.likelihoods.product import Product, Shared
from dlvm.distributions.likelihoods.shares import Beta, ContinuousBernoulli
from dlvm.distributions.likelihoods.zero_inflated import ZeroInflatedNegativeBinomial
from dlvm.distributions.mixture import MixtureNormal, ReparametrisedMixture
from dlvm.distributions.normal import DiagonalNormal, FullRankNormal, LowRankNormal, PointMass, StandardNormal
from dlvm.distributions.observation_noise import ConstantScaleNormal, FixedScale, LearnedScale, OptimalScale
from dlvm.distributions.priors.codebook import Codebook, CodePrior
from dlvm.distributions.priors.discrete import BernoulliPrior, CategoricalPrior
from dlvm.distributions.priors.flow import FlowPrior
from dlvm.distributions.priors.gaussians import ARDNormal, MixturePrior
from dlvm.distributions.priors.pseudo_inputs import FixedInputs, LearnedInputs
from dlvm.distributions.priors.reshaped import ReshapedPrior
from dlvm.distributions.priors.vamp import VampPrior
from dlvm.distributions.scale import positive
from dlvm.distributions.sequences.conditional_chain import ConditionalChain
from dlvm.distributions.sequences.each_step import EachStep
from dlvm.distributions.sequences.factorial_chain import FactorialChain
from dlvm.distributions.sequences.gated_transition import GatedTransition
from dlvm.distributions.sequences.gaussian_chain import GaussianChain
from dlvm.distributions.sequences.markov_chain import MarkovChain
from dlvm.distributions.sequences.sentences import Sentences
from dlvm.distributions.spherical_uniform import SphericalPrior, SphericalUniform, direction_to_uniform
from dlvm.distributions.student_t import DiagonalStudentT
from dlvm.distributions.von_mises_fisher import VonMisesFisher, VonMisesFisherDirection

__all__ = [
    "BitDenoiser",
    "Denoiser",
    "LibrarySize",
    "LinearSchedule",
    "MonotoneSchedule",
    "Noising",
    "UNet",
    "ARDNormal",
    "vector_flow",
    "image_flow",
    "Standardise",
    "Squeeze",
    "Reorder",
    "MultiScale",
    "Logit",
    "InvertibleConv",
    "FlowDensity",
    "Composition",
    "CheckerboardCoupling",
    "ChannelCoupling",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Bernoulli",
    "BernoulliPrior",
    "Beta",
    "Binary",
    "Bits",
    "Categorical",
    "CategoricalColumns",
    "CategoricalPrior",
    "CodePrior",
    "Codebook",
    "ChainRule",
    "ConditionalChain",
    "ConstantScaleNormal",
    "ContinuousBernoulli",
    "Coupling",
    "DiagonalNormal",
    "DiagonalStudentT",
    "DiscretisedLogistic",
    "EachStep",
    "FactorialChain",
    "FixedInputs",
    "FixedScale",
    "Flow",
    "FlowNormal",
    "FlowPrior",
    "FullRankNormal",
    "GatedTransition",
    "GaussianChain",
    "GreyLevels",
    "Greys",
    "HouseholderBasis",
    "HouseholderNormal",
    "InverseAutoregressiveNormal",
    "Laplace",
    "LearnedInputs",
    "LearnedScale",
    "LogisticMixture",
    "LogisticNoise",
    "Logits",
    "LowRankNormal",
    "MarkovChain",
    "Missing",
    "MixedGreys",
    "MixtureNormal",
    "MixturePrior",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OptimalScale",
    "OrdinalColumns",
    "OrthogonalBasis",
    "PermutedBasis",
    "PlanarNormal",
    "PointMass",
    "Poisson",
    "Product",
    "RadialNormal",
    "RationalQuadratic",
    "ReparametrisedMixture",
    "ReshapedPrior",
    "SelfMasking",
    "Sentences",
    "Shared",
    "SphericalPrior",
    "SphericalUniform",
    "StandardNormal",
    "StudentT",
    "SylvesterNormal",
    "Tokens",
    "Units",
    "VampPrior",
    "VonMisesFisher",
    "VonMisesFisherDirection",
    "ZeroInflatedNegativeBinomial",
    "binary_to_binary",
    "diagonal_to_low_rank",
    "direction_to_uniform",
    "full_rank_to_diagonal",
    "low_rank_to_diagonal",
    "low_rank_to_full_rank",
    "positive",
]
