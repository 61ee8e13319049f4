"""Terms and slopes of a path, batch by batch, recorded once and replayed without Pyro where that is quicker."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from evidence.hmc import Point, at
from evidence.path import Path
from inference.engine import Engine
from inference.outcomes import Outcome
from inference.ownership import reached


class Replayed:
    """A field over the batches of one data set, which share what was recorded of the first.

    Called with u, shape (num_chains, num_data, dim), it returns the ``Point`` there.

    Args:
        model, guide: what paths are made of; guide may be None.
        engine: as in ``SVI``.
    """

    def __init__(self, model: Callable, guide: Callable | None, engine: str = "auto"):
        programs = (model,) if guide is None else (model, guide)
        self.engine = Engine(self._evaluated, reached(*programs), engine, finite=False, name="annealed")
        self.path: Path | None = None

    def follow(self, path: Path) -> None:
        """From now on the field is that of this path."""
        self.path = path

    def __call__(self, u: Tensor) -> Point:
        found = self.engine(u, *self.path.target.args)[1]
        # A CUDA graph writes its next results over these.
        return Point(u, *(tensor.clone() if tensor.is_cuda else tensor for tensor in found))

    def _evaluated(self, u: Tensor, *args) -> Outcome:
        kept, self.path.target.args = self.path.target.args, args
        try:
            found = at(self.path, u)
        finally:
            self.path.target.args = kept
        return [], [found.terms, found.slopes]
