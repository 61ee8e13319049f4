"""The words that scripts accept for guides, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, Literal

import tyro
from torch import nn

from dlvm.experiments.options.words import own_class, told, unknown
from dlvm.guides import (
    IAF,
    Diagonal,
    FullRank,
    Householder,
    Latent,
    LowRank,
    Mixture,
    NeuralSpline,
    Planar,
    Point,
    Radial,
    RealNVP,
    StudentT,
    Sylvester,
)
from dlvm.nets import Corrupted

GuideWord = Literal[
    "diagonal", "low_rank", "full_rank", "mixture", "student_t", "householder", "planar", "radial", "sylvester",
    "real_nvp", "spline", "iaf",
]  # fmt: skip
GUIDES: dict[str, Callable] = {
    "diagonal": Diagonal,
    "low_rank": LowRank,
    "full_rank": FullRank,
    "mixture": Mixture,
    "student_t": StudentT,
    "householder": Householder,
    "planar": Planar,
    "radial": Radial,
    "sylvester": Sylvester,
    "real_nvp": RealNVP,
    "spline": NeuralSpline,
    "iaf": IAF,
}


def denoising(latents: Mapping[str, Latent], encoder: nn.Module) -> Point:
    """Points of data of which a quarter of the numbers is set to 0 while training."""
    return Point(latents, Corrupted(encoder))


POINTS: dict[str, Callable] = {"point": Point, "denoising": denoising}  # without a density: no guides of a bound
GUIDE_HELP = (
    f"Family of q(z | x): {', '.join(GUIDES)}; own for the one that a model may have of its own; point and denoising, "
    "without a density, for autoencoders that train no bound (train --objective ae); or my_module:MyGuide, "
    "a class or function of yours, called with what latents(model, ...) found and the encoder."
)
OWN = "own"
GuideName = Annotated[str, tyro.conf.arg(help=GUIDE_HELP, metavar="WORD")]


@dataclass(frozen=True)
class GuideOptions:
    """Which family q(z | x) is of."""

    guide: GuideName = "diagonal"
    iaf_depth: int = 2
    """Steps of the flow in iaf."""
    iaf_width: tuple[int, ...] = (128,)
    """Hidden layers of each step of the flow in iaf."""

    def family(self, activation: Callable) -> Callable:
        """(latents, encoder) -> guide; ``activation`` is for the nets of the flow."""
        flow: dict[str, Any] = {"depth": self.iaf_depth, "width": self.iaf_width, "activation": activation}
        return partial(IAF, **flow) if self.guide == "iaf" else guide_named(self.guide)


def own(latents: Mapping[str, Latent], encoder: nn.Module) -> nn.Module:
    """What stands for a model's own guide, which its setup makes; see ``Setup.guide``.

    Raises:
        ValueError: it is called, where there is a family alone.
    """
    raise ValueError(f"guide must be a family here, as diagonal, got {OWN}")


def guide_named(word: str, option: str = "guide") -> Callable:
    """(latents, encoder) -> guide, by a word of ``GUIDES``, or by `my_module:MyGuide` for one of your own.

    Args:
        word: of ``GUIDES``, or module and class.
        option: whose value it is, for errors.

    Raises:
        ValueError: there is no such word, module or class; or, once it is called, what it raises.

    Example:
        >>> guide_named("full_rank").__name__
        'FullRank'
    """
    if word in GUIDES or word in POINTS or word == OWN:
        return (GUIDES | POINTS).get(word, own)
    if ":" not in word:
        raise unknown(option, word, [*GUIDES, OWN, *POINTS], "my_module:MyGuide")
    found = own_class(option, word)
    if not callable(found):
        raise ValueError(
            f"{option} must be a class or function, called with (latents, encoder), got {word}, "
            f"a {type(found).__name__}"
        )

    @wraps(found)
    def family(latents: Mapping[str, Latent], encoder: nn.Module) -> nn.Module:
        guide = told(f"guide: {word}(latents, encoder)", found, latents, encoder)
        if not isinstance(guide, nn.Module):
            raise ValueError(f"guide must be made by {word}(latents, encoder) as a module, got {type(guide).__name__}")
        return guide

    return family


def guide_label(word: str) -> str:
    """What a guide is called in tables: the name of its class."""
    return {**GUIDES, **POINTS}[word].__name__ if word in GUIDES | POINTS else word.partition(":")[2] or word
