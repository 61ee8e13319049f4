"""Pyro programs p(x, z): one file per model."""

from models.ppca import PPCA
from models.vae import VAE

__all__ = ["PPCA", "VAE"]
