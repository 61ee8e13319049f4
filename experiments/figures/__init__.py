"""Figures of an experiment: plain tensors in, a ``Figure`` out, each readable without its caption."""

from experiments.figures.bounds import bounds
from experiments.figures.latent_space import latent_space
from experiments.figures.learning_curves import learning_curves
from experiments.figures.posteriors import posteriors
from experiments.figures.reconstructions import reconstructions
from experiments.figures.samples import samples

__all__ = ["bounds", "latent_space", "learning_curves", "posteriors", "reconstructions", "samples"]
