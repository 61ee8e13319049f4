"""Pyro programs p(x, z): one file per model."""

from dlvm.models.air import AIR
from dlvm.models.autoregressive_hmm import AutoregressiveHMM
from dlvm.models.bayesian import Bayesian
from dlvm.models.bernoulli_mixture import BernoulliMixture
from dlvm.models.categorical_mixture import CategoricalMixture
from dlvm.models.categorical_vae import CategoricalVAE
from dlvm.models.conditional import Conditional
from dlvm.models.cvae import CVAE
from dlvm.models.deep_markov import DeepMarkov
from dlvm.models.dequantised import Dequantised
from dlvm.models.diffusion import Diffusion, RandomLayer
from dlvm.models.draw import DRAW
from dlvm.models.factor_analysers import FactorAnalysers
from dlvm.models.factorial_hmm import FactorialHMM
from dlvm.models.fully_visible import FullyVisible
from dlvm.models.gaussian_mixture import GaussianMixture
from dlvm.models.gmvae import GMVAE
from dlvm.models.hidden_markov import HiddenMarkov
from dlvm.models.hvae import HVAE, burda
from dlvm.models.language_model import LanguageModel
from dlvm.models.linear_gaussian_ssm import LinearGaussianSSM
from dlvm.models.m2 import M2
from dlvm.models.mixed_vae import MixedVAE
from dlvm.models.nice import NICE
from dlvm.models.not_at_random import NotAtRandom
from dlvm.models.ornstein_uhlenbeck import OrnsteinUhlenbeck
from dlvm.models.poisson_mixture import PoissonMixture
from dlvm.models.ppca import PPCA
from dlvm.models.realnvp import RealNVP
from dlvm.models.scanvi import SCANVI
from dlvm.models.sentence_vae import SentenceVAE
from dlvm.models.sigmoid_belief_network import SigmoidBeliefNetwork
from dlvm.models.srnn import SRNN
from dlvm.models.storn import STORN
from dlvm.models.switching_ssm import SwitchingSSM
from dlvm.models.top_down import TopDown
from dlvm.models.vae import VAE
from dlvm.models.vdvae import VDVAE
from dlvm.models.vq_vae import VQVAE
from dlvm.models.vrnn import VRNN
from dlvm.models.weight_priors import ARD, FanIn

__all__ = [
    "AIR",
    "Diffusion",
    "RandomLayer",
    "ARD",
    "AutoregressiveHMM",
    "Bayesian",
    "BernoulliMixture",
    "CategoricalMixture",
    "CategoricalVAE",
    "CVAE",
    "DRAW",
    "Conditional",
    "DeepMarkov",
    "Dequantised",
    "FactorAnalysers",
    "FactorialHMM",
    "FanIn",
    "FullyVisible",
    "GMVAE",
    "GaussianMixture",
    "HVAE",
    "HiddenMarkov",
    "LanguageModel",
    "LinearGaussianSSM",
    "MixedVAE",
    "M2",
    "NICE",
    "NotAtRandom",
    "OrnsteinUhlenbeck",
    "PPCA",
    "PoissonMixture",
    "RealNVP",
    "SCANVI",
    "SentenceVAE",
    "SRNN",
    "STORN",
    "SigmoidBeliefNetwork",
    "SwitchingSSM",
    "TopDown",
    "VAE",
    "VDVAE",
    "VQVAE",
    "VRNN",
    "burda",
]
