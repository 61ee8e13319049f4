"""Plates over data: those whose rows a program picks by itself, and those whose batch stands for a whole data set."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample


class PickedRows(Messenger):
    """Gathers, in ``names``, the plates that are given their rows inside, by ``subsample=``, so that nobody else may.

    Example:
        >>> import pyro
        >>> with PickedRows() as picked:
        ...     _ = pyro.plate("data", 9, subsample_size=3), pyro.plate("words", 9, subsample=torch.arange(3))
        >>> picked.names
        {'words'}
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) and msg["value"] is not None:
            self.names.add(msg["name"])


class StandingFor(Messenger):
    """Makes a plate over a batch of M data a subsample of N: what lies in it counts N / M times.

        sum_m f(x_m)  ->  N / M sum_m f(x_m)

    As ``pyro.plate(name, N, subsample_size=M)`` does, for a program in which it is written ``pyro.plate(name, M)``. A
    plate that says so itself is left as it is.

    Args:
        plate: name of the plate over data.
        num_data: N.
        shown: whether handlers outside see the plate, as of a model they do; of a guide, which picks no rows, not.

    Raises:
        ValueError: there are more than N data, or the plate stands for another number already.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        >>> trace = pyro.poutine.trace(StandingFor("data", 10)(model)).get_trace(torch.zeros(5))
        >>> trace.nodes["x"]["scale"]
        2.0
    """

    def __init__(self, plate: str, num_data: int, shown: bool = True):
        super().__init__()
        self.plate, self.num_data, self.shown = plate, num_data, shown

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["name"] == self.plate and type(fn) is _Subsample and fn.subsample_size in (None, fn.size):
            if msg["value"] is None:
                msg["value"], msg["is_observed"] = torch.arange(fn.size), True  # not the rows that a guide picks
                msg["stop"] = not self.shown
        stack = msg["cond_indep_stack"]
        for frame in (frame for frame in stack if frame.name == self.plate and frame.full_size != self.num_data):
            if frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"plate {self.plate!r} is subsampled by itself ({frame.size} of {frame.full_size}), and is to "
                    f"stand for num_data={self.num_data}; write it without subsample_size"
                )
            if frame.size > self.num_data:
                raise ValueError(
                    f"num_data={self.num_data} is how many data there are in all, got a batch of {frame.size}; pass "
                    "fewer at a time, or make the model with the size of the data set"
                )
            msg["cond_indep_stack"] = tuple(f._replace(full_size=self.num_data) if f is frame else f for f in stack)
            msg["scale"] = msg["scale"] * (self.num_data / frame.size)
