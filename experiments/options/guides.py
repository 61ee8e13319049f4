"""The words that scripts accept for guides, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dlvm.guides import (
    IAF,
    Diagonal,
    FullRank,
    Householder,
    LowRank,
    Mixture,
    NeuralSpline,
    Planar,
    Radial,
    RealNVP,
    StudentT,
    Sylvester,
)

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


@dataclass(frozen=True)
class GuideOptions:
    """Which family q(z | x) is of."""

    guide: GuideWord = "diagonal"
    """Family of q(z | x)."""
    iaf_depth: int = 2
    """Steps of the flow."""
    iaf_width: tuple[int, ...] = (128,)
    """Hidden layers of each step of the flow."""

    def family(self, activation: Callable) -> Callable:
        """(latents, encoder) -> guide; ``activation`` is for the nets of the flow."""
        flow = {"depth": self.iaf_depth, "width": self.iaf_width, "activation": activation}
        return partial(GUIDES[self.guide], **flow) if self.guide == "iaf" else GUIDES[self.guide]
