"""Latent sites: what a guide knows of them, and how a distribution is made for each."""
