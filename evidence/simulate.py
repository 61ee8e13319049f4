"""Data simulated from a model, with the latents that they came from: an exact draw from every datum's posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.programs.data_checks import check_observed
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import MOST_SEEDS, check_seed, untouched
from dlvm.nets.arguments import count

STREAM = 1_618_033_989  # apart from the draws of an estimator with the same seed


class Simulated(NamedTuple):
    """Data with the latents that made them.

    Attributes:
        args: what the model is called with to observe these data, tensors of one row per datum.
        values: {site: value} of the latent sites, shapes (num_data, *event); given the data, one exact draw from
            p(z | x).
    """

    args: tuple
    values: dict[str, Tensor]

    @property
    def num_data(self) -> int:
        return len(self.args[0])


@torch.no_grad()
def simulate(model: Callable, n: int, seed: int = 0, example: tuple | None = None) -> Simulated:
    """Draws (z, x) ~ p(z, x).

    Where data come from the model, the z that made x is an exact draw from p(z | x): what reverse annealing and
    simulation-based calibration start from. The process's random state stays as it was.

    Returns:
        a ``Simulated``.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``.
        n: how many data.
        seed: of the draws.
        example: arguments as for a batch of data, where x is not the only one. Those named after a site are drawn
            anew; others are inputs, and passed on: they must then have n rows.

    Raises:
        ValueError: n is below 1, no argument is named after a site, inputs do not have n rows, or the model does not
            draw n data.
        TypeError: the model takes no ``n``.

    Example:
        >>> from dlvm.models import PPCA
        >>> found = simulate(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), 5)
        >>> found.args[0].shape, found.values["z"].shape
        (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    count(n=n)
    check_seed(seed)
    pair = Pair(model)
    names = _names(pair)
    _check_example(example, names)
    given = example or (None,)
    with untouched((seed + STREAM) % MOST_SEEDS), pair.evaluating():
        drawn = _observed(pair, names, example) if example else set(names[:1])
        passed = [None if name in drawn else value for name, value in zip(names, given, strict=False)]
        if short := [tuple(a.shape) for a in passed if isinstance(a, Tensor) and a.dim() and len(a) != n]:
            raise ValueError(f"example has inputs of shape {short[0]}, expected n={n} rows: one for each datum")
        sites = {s["name"]: s["value"] for s in sample_sites(poutine.trace(pair.model).get_trace(*passed, n=n))}
    if not drawn or not drawn <= sites.keys():
        raise ValueError(
            f"model draws the sites {sorted(sites)}, none of which is its argument {names[0]!r}: arguments must be "
            "named after the sites that they observe; where data need inputs, pass example=(x, inputs)"
        )
    args: tuple = tuple(sites[name] if name in drawn else value for name, value in zip(names, passed, strict=False))
    if len(args[0]) != n:
        raise ValueError(f"model(n={n}) drew {len(args[0])} data; let n be the size of its plate over data")
    return Simulated(args, {name: value for name, value in sites.items() if name not in drawn})


def _names(pair: Pair) -> list[str]:
    """The arguments of the model, ``n`` left out."""
    parameters = signature_of(pair.model).parameters
    if "n" not in parameters or len(parameters) < 2:
        raise TypeError(
            f"model takes the arguments {list(parameters)}, and cannot be asked for n data; write it as "
            "forward(self, x=None, n=1), which draws n data where x is None"
        )
    return [name for name in parameters if name != "n"]


def _check_example(example: object, names: list[str]) -> None:
    if example is None:
        return
    if not isinstance(example, (tuple, list)):
        raise TypeError(
            f"example must be a tuple of the model's arguments, got {type(example).__name__}; pass (x,) or (x, inputs)"
        )
    if not 0 < len(example) <= len(names) or not isinstance(example[0], Tensor) or not example[0].dim():
        raise ValueError(
            f"example must hold 1 to {len(names)} arguments for {', '.join(names)}, data first, got "
            f"{len(example)}: {', '.join(type(value).__name__ for value in example)}; pass (x,) or (x, inputs)"
        )


def _observed(pair: Pair, names: list[str], example: tuple) -> set[str]:
    """The arguments of a call that observe a site."""
    with untouched():  # what is simulated does not depend on the example's data
        trace = poutine.trace(pair.model).get_trace(*example)
    try:
        check_observed(trace)
    except ValueError as error:
        raise ValueError(f"example does not fit the model: {error}") from error
    sites = sample_sites(trace)
    seen = {site["name"] for site in sites if site["is_observed"]}
    return seen & set(names[: len(example)])
