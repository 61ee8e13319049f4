"""What a call on a finished run works on, and how rows of data are handed back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.data.ragged import LENGTHS
from dlvm.experiments.runs.of_sequences import each_step, texts_of
from dlvm.experiments.runs.results_file import Results
from dlvm.inference.use.by_datum import columns as numbered

MANY = 64  # images that a picture shows


@dataclass(frozen=True)
class Asked:
    """What a call works on.

    Attributes:
        config: of the command line.
        model, guide: of the run.
        description: of the data that it was trained on.
        data: the new rows, None for calls that need none.
        args: what the programs are called with for these.
    """

    config: Any
    model: nn.Module
    guide: nn.Module
    description: dict[str, Any]
    data: Loader | None
    args: tuple

    @property
    def options(self) -> dict[str, int]:
        """Seed and particles, as all calls take them."""
        particles = self.config.num_particles
        return {"seed": self.config.seed, **({} if particles is None else {"num_particles": particles})}

    @property
    def index(self) -> tuple[str, ...] | None:
        return None if self.data is None else self.data.index

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        shape = self.description["image_shape"]
        return None if shape is None else tuple(shape)

    @property
    def scale(self) -> float:
        """What the file's numbers were divided by; 1 where greys became binary, whose probabilities have no units."""
        reading = self.description["reading"]
        return 1.0 if reading["binarize"] else reading["scale"] or 1.0

    @property
    def lengths(self) -> Tensor | None:
        """Of the new sequences."""
        return self.data[LENGTHS] if self.data is not None and LENGTHS in self.data.rows.names else None

    def like_x(self, x: Tensor, index: tuple[str, ...] | None = None, side: int = 0, **arrays: Any) -> Results:
        """Rows of data: in the file's own units, under the names of its columns, and as images where they are such.

        Sequences are a table with a line for each step, or text.

        Args:
            x: shape (rows, x_dim).
            index: names of the rows.
            side: how many images stand side by side; as many as above one another unless told.
            **arrays: further ones, for an .npz.
        """
        scale = self.scale
        names = self.description["columns"] or numbered("x", x.shape[-1])
        if self.description.get("kind") == "sequence":
            given = self.lengths if index is self.index else None  # of the very rows that the file has
            return self.steps_of(
                x * scale if x.is_floating_point() else x, names, arrays.pop(LENGTHS, given), index, **arrays
            )
        shown = x[: side * MANY if side else MANY]
        images = None if self.image_shape is None else (shown, side or math.ceil(math.sqrt(len(shown))))
        numbers = (x * scale).cpu()
        return Results(numbers, names, index, {"x": numbers, **arrays}, images, self.image_shape)

    def steps_of(
        self,
        x: Tensor,
        names: Sequence[str],
        lengths: Tensor | None,
        index: tuple[str, ...] | None = None,
        **arrays: Any,
    ) -> Results:
        """Sequences in a table with a line for each step, or as text.

        Args:
            x: shape (sequences, steps, numbers), or tokens (sequences, steps).
            names: of the numbers.
            lengths: of the sequences; all steps unless told.
            index: names of the sequences.
            **arrays: further ones, for an .npz.
        """
        words = self.description.get("vocabulary")
        if x.dim() == 2 and words is not None:
            return texts_of(x, words, index)
        known = self.data is not None and "times" in self.data.rows.names and len(self.data["times"]) == len(x)
        times = self.data["times"] if known and self.data is not None else None
        return each_step(x, lengths, names, index, self.description["reading"], times, **arrays)
