"""Pyro programs p(x, z): one file per model."""

from models.hvae import HVAE, burda
from models.ppca import PPCA
from models.top_down import TopDown
from models.vae import VAE

__all__ = ["HVAE", "PPCA", "TopDown", "VAE", "burda"]
