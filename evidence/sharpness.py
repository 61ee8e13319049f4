"""How much of the data's power a decoder's means have."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from evidence.measured import Measured


class Sharpness(NamedTuple):
    """The power of E[x | z], z ~ q(z | x), against that of the data.

    Attributes:
        power: variance of the means over data and draws, over that of the data; both summed over dimensions.
        power_per_dim: the same for each dimension, shape (x_dim,); NaN where the data are constant.
        fine: power of the means at frequencies above half of Nyquist's over that of the data; None without
            ``image_shape``. What a likelihood calls noise is missing from it, as from ``power``.
    """

    power: Measured
    power_per_dim: Tensor
    fine: Measured | None

    def __str__(self) -> str:
        fine = "" if self.fine is None else f", {percent(self.fine)} of its finest detail"
        return f"means hold {percent(self.power)} of the variance of the data{fine}"


def percent(share: Measured) -> str:
    """A share and its error, in percent."""
    return f"{100 * share.value:.1f} ± {100 * share.se:.1f} %"


def interrupted(complete: bool) -> str:
    """What to add to a record that Ctrl-C cut short."""
    return "" if complete else ", interrupted: the first ones only"
