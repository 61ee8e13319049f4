"""Pyro programs q(z | x), amortised over data and built from what the model's latent sites look like."""

from guides.amortized import Amortized
from guides.families import IAF, Diagonal, FullRank
from guides.latents import Latent, Plate, latents

__all__ = ["IAF", "Amortized", "Diagonal", "FullRank", "Latent", "Plate", "latents"]
