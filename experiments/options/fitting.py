"""Which data can come from which likelihood, and which one fits instead, in words of the command line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlvm.experiments.data import Loader
from dlvm.inference.console import say

LOOKED_AT = 10_000  # rows that tell what kind of numbers data are
MOST_CLASSES = 1000
MOST_LEVELS = 256
COUNTS = ("poisson", "negative_binomial", "zero_inflated")
REAL = (
    "normal", "normal_learned", "normal_fixed", "normal_shared", "normal_optimal", "laplace", "student_t", "flow"
)  # fmt: skip
GREY = ("grey_levels", "discretised_logistic", "logistic_mixture")
CLASSES = ("categorical", "ordinal")


@dataclass(frozen=True)
class Found:
    """What kind of numbers data hold.

    Attributes:
        whole: none has a fraction.
        low, high: the smallest and the largest.
        image: they are images.
    """

    whole: bool
    low: float
    high: float
    image: bool

    @classmethod
    def of(cls, data: Loader) -> Found:
        """From the first rows, as batches hold them.

        Raises:
            ValueError: all of them are missing.
        """
        seen = _seen(data)
        if not seen.numel():
            raise ValueError(f"data hold no number in their first {LOOKED_AT} rows: all are missing; change --missing")
        whole = bool((seen == seen.round()).all())
        return cls(whole, seen.min().item(), seen.max().item(), data.image_shape is not None)

    @property
    def binary(self) -> bool:
        return self.whole and self.low >= 0 and self.high <= 1

    @property
    def shares(self) -> bool:
        """They lie between 0 and 1."""
        return self.low >= 0 and self.high <= 1

    def __str__(self) -> str:
        return f"got {'whole ' if self.whole else ''}numbers from {self.low:g} to {self.high:g}"

    @property
    def remedy(self) -> str:
        """What such numbers look like, and the option for them."""
        if self.binary:
            return "0 and 1 are --likelihood bernoulli's"
        if self.low < 0 or (not self.whole and self.high > 1):
            return "these look like real numbers: --likelihood normal, or student_t where there are outliers"
        if not self.whole:
            return (
                "these look like grey levels: --binarize dynamic with --likelihood bernoulli, or as they are under "
                "--likelihood continuous_bernoulli or discretised_logistic"
            )
        if self.high == 255 or (self.image and self.high < 256):
            return "these look like 8-bit grey levels: --scale 255"
        return "these look like counts: --likelihood negative_binomial, or poisson"


def check_fits(word: str, data: Loader) -> None:
    """Refuses data that cannot have come from a likelihood, and says which one would fit; warns where one may mislead.

    Args:
        word: for a likelihood.
        data: as they would be trained on.

    Raises:
        ValueError: with what the likelihood is of, what came, and the option that helps.
    """
    _ = data.x_dim  # refuses sequences, in words
    if word == "bernoulli" and data.kind == "binary":
        return
    found = Found.of(data)
    if word == "bernoulli" and not found.binary:
        raise ValueError(f"likelihood bernoulli is of 0 and 1 alone, {found}: {found.remedy}")
    if word in COUNTS and not (found.whole and found.low >= 0):
        raise ValueError(f"likelihood {word} is of counts 0, 1, 2, ..., {found}: {found.remedy}")
    if word in CLASSES:
        classes_of(data, word)
    if word in GREY:
        levels_of(data)
    if word in ("continuous_bernoulli", "beta") and not found.shares:
        raise ValueError(f"likelihood {word} is of numbers between 0 and 1, {found}: {found.remedy}")
    if word == "beta" and not 0 < found.low <= found.high < 1:
        raise ValueError(
            f"likelihood beta gives 0 and 1 themselves no density, {found}: --likelihood continuous_bernoulli does"
        )
    if word in REAL + ("continuous_bernoulli",) and found.whole:
        kind, fit = ("0 and 1", "bernoulli") if found.binary else ("whole numbers", "negative_binomial")
        say(
            f"data are {kind} alone: under {word} nats are of a density, which may grow without limit; "
            f"--likelihood {fit} gives probabilities"
        )
    if word in REAL:
        _warn_of_constant_columns(word, data)


def _warn_of_constant_columns(word: str, data: Loader) -> None:
    low, high = (torch.where(data.x.isnan(), end, data.x) for end in (torch.inf, -torch.inf))
    constant = (low.amin(0) >= high.amax(0)).nonzero().flatten().tolist()
    if constant:
        names = [data.columns[d] if data.columns else f"column {d}" for d in constant[:3]]
        say(
            f"{', '.join(names)}{', ...' if len(constant) > 3 else ''} always the same: under {word} its density grows "
            "until the scale's limit, and says nothing; leave it out by --drop-columns"
        )


def classes_of(data: Loader, word: str = "categorical") -> list[int]:
    """How many classes each column has: one more than its largest number, and at least 2 where they are in order.

    Raises:
        ValueError: a number is negative or has a fraction, or there are too many classes.
    """
    found = Found.of(data)
    if not found.whole or found.low < 0:
        raise ValueError(f"likelihood {word} is of classes 0, 1, 2, ... in each column, {found}: {found.remedy}")
    if found.high >= MOST_CLASSES:
        raise ValueError(f"likelihood {word} takes at most {MOST_CLASSES} classes a column, {found}: {found.remedy}")
    least = 2 if word == "ordinal" else 1
    return [max(least, int(most) + 1) for most in data.x.nan_to_num(0).amax(0).tolist()]


def levels_of(data: Loader) -> int:
    """How many grey levels 0, 1 / (levels - 1), ..., 1 the data lie on: the fewest that all of them do, at most 256.

    Raises:
        ValueError: they are not between 0 and 1, or on no such grid.
    """
    found, seen = Found.of(data), _seen(data).unique()
    if not found.shares:
        raise ValueError(f"grey levels lie between 0 and 1, {found}: {found.remedy}")
    for levels in range(2, MOST_LEVELS + 1):
        number = seen * (levels - 1)
        if ((number - number.round()).abs() < 1e-3).all():
            return levels
    raise ValueError(
        f"grey levels are 0, 1 / 255, ..., 1, or fewer, {found} on no such grid: --likelihood continuous_bernoulli "
        "takes any number between 0 and 1"
    )


def _seen(data: Loader) -> Tensor:
    seen = data.first(LOOKED_AT)
    return seen[~seen.isnan()]
