"""Figures of an experiment: plain tensors in, a ``Figure`` out, each readable without its caption."""

from experiments.figures.bound_costs import own_bounds, reached
from experiments.figures.bounds import bounds
from experiments.figures.latent_space import latent_space
from experiments.figures.learning_curves import learning_curves
from experiments.figures.posteriors import posteriors
from experiments.figures.reconstructions import reconstructions
from experiments.figures.samples import samples
from experiments.figures.signal_to_noise import bias_and_noise, signal_to_noise
from experiments.figures.timed_curves import timed_curves

__all__ = [
    "bias_and_noise",
    "bounds",
    "latent_space",
    "learning_curves",
    "own_bounds",
    "posteriors",
    "reached",
    "reconstructions",
    "samples",
    "signal_to_noise",
    "timed_curves",
]
