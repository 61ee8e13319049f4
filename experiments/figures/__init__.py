"""Figures of an experiment: plain tensors in, a ``Figure`` out, each readable without its caption."""

from dlvm.experiments.figures.bound_costs import own_bounds, reached
from dlvm.experiments.figures.bounds import bounds
from dlvm.experiments.figures.columns import columns, ellipses, plane
from dlvm.experiments.figures.completions import completions
from dlvm.experiments.figures.few_labels import errors_by_labels
from dlvm.experiments.figures.film import film
from dlvm.experiments.figures.images import reconstructions, samples, writings
from dlvm.experiments.figures.imputation import imputation_errors
from dlvm.experiments.figures.latent_space import latent_space
from dlvm.experiments.figures.layers import by_depth, layer_kl
from dlvm.experiments.figures.learning_curves import distance_curves, learning_curves
from dlvm.experiments.figures.objects import objects
from dlvm.experiments.figures.over_time import bands_over_time, gaps_by_length
from dlvm.experiments.figures.posteriors import posteriors
from dlvm.experiments.figures.predictions import decoders, predictions, reliability
from dlvm.experiments.figures.priors import gains, pseudo_inputs
from dlvm.experiments.figures.sequences import sequences
from dlvm.experiments.figures.signal_to_noise import bias_and_noise, signal_to_noise
from dlvm.experiments.figures.timed_curves import timed_curves
from dlvm.experiments.figures.toy_posteriors import energy_fits, four_posteriors

__all__ = [
    "bands_over_time",
    "bias_and_noise",
    "bounds",
    "by_depth",
    "columns",
    "completions",
    "decoders",
    "distance_curves",
    "ellipses",
    "energy_fits",
    "errors_by_labels",
    "film",
    "four_posteriors",
    "gains",
    "gaps_by_length",
    "imputation_errors",
    "latent_space",
    "layer_kl",
    "learning_curves",
    "objects",
    "own_bounds",
    "plane",
    "posteriors",
    "predictions",
    "pseudo_inputs",
    "reached",
    "reconstructions",
    "reliability",
    "samples",
    "sequences",
    "signal_to_noise",
    "timed_curves",
    "writings",
]
