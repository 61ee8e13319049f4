"""Pyro programs q(z | x), amortised over data and built from what the model's latent sites look like."""

from dlvm.guides.amortized import Amortized
from dlvm.guides.attend import Attend
from dlvm.guides.auxiliary import Augmented
from dlvm.guides.chain import Chain
from dlvm.guides.dequantiser import Dequantiser
from dlvm.guides.diffusion import ForwardDiffusion, RandomTime
from dlvm.guides.exact_posterior import ExactPosterior
from dlvm.guides.families import Diagonal, FullRank, LowRank, Mixture, Point, StudentT
from dlvm.guides.feedback import Feedback
from dlvm.guides.flows import IAF, Householder, NeuralSpline, Planar, Radial, RealNVP, Sylvester
from dlvm.guides.from_model import FromModel
from dlvm.guides.fully_observed import FullyObserved
from dlvm.guides.hamiltonian import Hamiltonian, HamiltonianModel
from dlvm.guides.joint import Joint
from dlvm.guides.labelled import Labelled
from dlvm.guides.ladder import Ladder
from dlvm.guides.local import Local
from dlvm.guides.posterior_of import posterior_of
from dlvm.guides.quantiser import Quantiser
from dlvm.guides.refined import Refined
from dlvm.guides.sequential import MeanFieldOverTime, Sequential
from dlvm.guides.sites.latents import Latent, NoLatents, Plate, latents
from dlvm.guides.structured_gaussian import StructuredGaussian
from dlvm.guides.top_down_posterior import TopDownPosterior
from dlvm.guides.with_globals import WithGlobals, local_sites

__all__ = [
    "ForwardDiffusion",
    "RandomTime",
    "IAF",
    "Amortized",
    "Attend",
    "Augmented",
    "Chain",
    "Dequantiser",
    "Diagonal",
    "ExactPosterior",
    "Feedback",
    "FromModel",
    "FullRank",
    "FullyObserved",
    "Hamiltonian",
    "HamiltonianModel",
    "Householder",
    "Joint",
    "Labelled",
    "Ladder",
    "Latent",
    "Local",
    "LowRank",
    "MeanFieldOverTime",
    "Mixture",
    "NeuralSpline",
    "NoLatents",
    "Planar",
    "Plate",
    "Quantiser",
    "Point",
    "Radial",
    "RealNVP",
    "Refined",
    "Sequential",
    "StructuredGaussian",
    "StudentT",
    "Sylvester",
    "TopDownPosterior",
    "WithGlobals",
    "latents",
    "local_sites",
    "posterior_of",
]
