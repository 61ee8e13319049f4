"""Pyro programs p(x, z): one file per model."""

from models.hvae import HVAE, burda
from models.ppca import PPCA
from models.vae import VAE

__all__ = ["HVAE", "PPCA", "VAE", "burda"]
