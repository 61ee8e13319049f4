"""The words that scripts accept for guides, objectives, estimators, likelihoods and optimizers, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
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
