"""Curves as numbers, for a page that draws them itself: values under the pointer, axes that can be logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Args:
        x: what the axis along says.
        y: what the axis up says.
        below: what it says where distances to the highest value are drawn instead.
        lines: label -> {place: value}; places and values that are not finite are left out.
        looks: label -> colour and dashes, as ``style`` has them.
        note: how to read it.
        title: what sets this chart apart from its neighbours; empty if it has none.

    Raises:
        ValueError: there is no finite value.
    """

    x: str
    y: str
    below: str
    lines: Mapping[str, Mapping[float, float]]
    looks: Mapping[str, tuple[str, Any]]
    note: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("lines: expected at least one finite value, got none; leave the chart out")

    @property
    def steps(self) -> Sequence[float]:
        """Every place at which some line has a value, in order."""
        lines = self.lines.values()
        return sorted({float(place) for line in lines for place, value in line.items() if math.isfinite(value)})

    def data(self) -> dict[str, Any]:
        """All of it in the types of JSON: a value, or None, of each line at each step."""
        steps = self.steps
        told = []
        for label, line in self.lines.items():
            colour, dash = self.looks[label]
            values = [line.get(place, math.nan) for place in steps]
            told.append({
                "label": label,
                "colour": colour,
                "dash": [] if isinstance(dash, str) else [4 * part for part in dash[1]],
                "values": [value if math.isfinite(value) else None for value in values],
            })  # fmt: skip
        return {"x": self.x, "y": self.y, "below": self.below, "steps": [*steps], "lines": told}
