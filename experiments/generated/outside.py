"""The words that scripts accept for objectives outside the bound, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from torch import nn

from dlvm.inference import (
    ELBO,
    MMD,
    DecoderGradient,
    Discriminator,
    EncoderGradient,
    InverseMultiquadric,
    Objective,
    Reconstruction,
    ali,
    matched,
    penalised,
    vae_gan,
)
from dlvm.nets import MLP

OutsideWord = Literal["mmd_vae", "info_vae", "aae", "vae_gan", "ali", "ae", "cae", "rae", "wae"]
OF_POINTS = ("ae", "cae", "rae", "wae")  # those that take a guide without a density
WIDTH = 128  # of discriminators
SAID = (
    "Trained outside the bound, by {}: log p(x) and the ELBO are those of p(x, z) and q(z | x) as they came out, and "
    "neither was raised alone."
)
SAID_OF_POINTS = (
    "Trained outside the bound, by {}: the guide gives points, which have no density, so that there is neither an ELBO "
    "nor a log p(x). What is reported says how test data are rebuilt from their own codes, and nothing of what the "
    "model generates."
)


class Sizes(NamedTuple):
    """How many numbers a datum has, and all its latents together."""

    x_dim: int
    z_dim: int


def judge(width: int) -> Discriminator:
    """A discriminator of rows of so many numbers."""
    return Discriminator(MLP(width, WIDTH, WIDTH, activation=partial(nn.LeakyReLU, 0.2)))


WEIGHTS: dict[OutsideWord, float] = {
    "mmd_vae": 100.0, "info_vae": 100.0, "aae": 5.0, "vae_gan": 5.0,
    "cae": 0.1, "rae": 0.1, "wae": 100.0,
}  # fmt: skip
OUTSIDE: dict[OutsideWord, Callable[[Sizes, float], Objective]] = {
    "mmd_vae": lambda sizes, weight: matched(ELBO(), MMD(), weight),
    "info_vae": lambda sizes, weight: matched(ELBO(), MMD(), weight, alpha=0.5),
    "aae": lambda sizes, weight: matched(ELBO(), judge(sizes.z_dim), weight),
    "vae_gan": lambda sizes, weight: vae_gan(ELBO(), judge(sizes.x_dim), weight=weight, similarity=0.1),
    "ali": lambda sizes, weight: ali(ELBO(), judge(sizes.x_dim + sizes.z_dim)),
    "ae": lambda sizes, weight: Reconstruction(),
    "cae": lambda sizes, weight: penalised(Reconstruction(), EncoderGradient(), weight),
    "rae": lambda sizes, weight: penalised(Reconstruction(code=0.1), DecoderGradient(), weight),
    "wae": lambda sizes, weight: matched(Reconstruction(), MMD(InverseMultiquadric()), weight),
}


def outside_of(word: OutsideWord, sizes: Sizes, weight: float | None = None) -> Objective:
    """The objective that a word stands for: no bound, and what it reports is the ELBO or how data are rebuilt.

    Args:
        word: one of ``OUTSIDE``.
        sizes: of x and z, for a discriminator.
        weight: of the discrepancy, the penalty, or the discriminator's signal; what suits the word unless told.

    Raises:
        ValueError: a weight for ali or ae, which have none, or one out of range.

    Example:
        >>> outside_of("mmd_vae", Sizes(64, 8), weight=10.0)
        matched(ELBO(num_particles=1), MMD(RBF(width=None)), weight=10)
    """
    if weight is not None and word not in WEIGHTS:
        whole = "the game" if word == "ali" else "E log p(x | z)"
        raise ValueError(f"weight must be left out for {word}, where {whole} is all there is, got {weight}")
    return OUTSIDE[word](sizes, WEIGHTS.get(word, 1.0) if weight is None else weight)
