"""Pyro programs q(z | x), amortised over data and built from what the model's latent sites look like."""

from guides.amortized import Amortized
from guides.auxiliary import Augmented
from guides.bayesian import WithGlobals, local_sites
from guides.chain import Chain
from guides.couplings import NeuralSpline, RealNVP
from guides.families import IAF, Diagonal, FullRank, LowRank, Mixture, StudentT
from guides.flows import Householder, Planar, Radial, Sylvester
from guides.hamiltonian import Hamiltonian, HamiltonianModel
from guides.joint import Joint
from guides.ladder import Ladder
from guides.latents import Latent, Plate, latents
from guides.local import Local
from guides.refined import Refined

__all__ = [
    "IAF",
    "Amortized",
    "Augmented",
    "Chain",
    "Diagonal",
    "FullRank",
    "Hamiltonian",
    "HamiltonianModel",
    "Householder",
    "Joint",
    "Ladder",
    "Latent",
    "Local",
    "LowRank",
    "Mixture",
    "NeuralSpline",
    "Planar",
    "Plate",
    "Radial",
    "RealNVP",
    "Refined",
    "StudentT",
    "Sylvester",
    "WithGlobals",
    "latents",
    "local_sites",
]
