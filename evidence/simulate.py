"""Data simulated from a model, with the latents that they came from: an exact draw from every datum's posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.programs.batches import data_in, rows_in
from dlvm.inference.programs.beside import depending
from dlvm.inference.programs.data_checks import check_observed
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.observing import Part, drawn, parts_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import data_plates, sample_sites
from dlvm.inference.programs.randomness import MOST_SEEDS, check_seed, untouched
from dlvm.inference.programs.rows import Axes, batch_size, by_length, has_rows, rows_along, rows_of
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
        return rows_in(self.args)


class _Along(Simulated):
    """Data that lie along the axes that are said of the model, see ``described``."""

    axes: Axes

    @property
    def num_data(self) -> int:
        return rows_along(self.args, self.axes)


def _simulated(pair: Pair, args: tuple, values: dict[str, Tensor]) -> Simulated:
    if not pair.axes:
        return Simulated(args, values)
    found = _Along(args, values)
    found.axes = by_length(args, pair)
    return found


@torch.no_grad()
def simulate(model: Callable, n: int, seed: int = 0, example: tuple | None = None) -> Simulated:
    """Draws (z, x) ~ p(z, x).

    Where data come from the model, the z that made x is an exact draw from p(z | x): what reverse annealing and
    simulation-based calibration start from. The process's random state stays as it was.

    Which sites observe which arguments is found by a run of the model, whatever their names, views of an argument as
    x[:, t] included. Where a site's distribution is made of data, as of the step before, it is made of those drawn.

    Returns:
        a ``Simulated``.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``; or any other, with ``example``.
        n: how many data.
        seed: of the draws.
        example: arguments as for a batch of data, for a model without ``n``, or where x is not the only one. What sites
            observe is drawn anew, and gives shapes alone: its rows are repeated or left out to make n. Others are
            inputs, and passed on: they must then have n rows.

    Raises:
        ValueError: n is below 1, no site observes an argument, inputs do not have n rows, the model does not
            draw n data, weighs what it draws (by ``pyro.factor`` or constants that it observes), or draws a subsample;
            or the example's type rounds what is drawn, as half precision does.
        TypeError: the model takes no ``n``, and there is no example.

    Example:
        >>> from dlvm.models import PPCA
        >>> found = simulate(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), 5)
        >>> found.args[0].shape, found.values["z"].shape
        (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    count(n=n)
    check_seed(seed)
    pair = Pair(model)
    names = list(signature_of(pair.model).parameters)
    counted = "n" in names and len(names) > 1
    if not counted and example is None:
        raise TypeError(
            f"model takes the arguments {names}, and cannot be asked for n data; pass example=(x,), a batch of data "
            "from which shapes are taken, or write it as forward(self, x=None, n=1), which draws n data where x is None"
        )
    names = [name for name in names if name != "n"]
    _check_example(example, names)
    with untouched((seed + STREAM) % MOST_SEEDS), pair.evaluating():
        if counted:
            return _asked(pair, names, example, n)
        return _from_example(pair, tuple(example or ()), n)


def _asked(pair: Pair, names: list[str], example: tuple | None, n: int) -> Simulated:
    """Of a model that draws where it is called with None."""
    observed = _observed(pair, names, example) if example else {names[0]: names[0]}
    given = example or (None,)
    passed = [None if name in observed else value for name, value in zip(names, given, strict=False)]
    _check_inputs(pair, passed, n)
    sites = {s["name"]: s["value"] for s in sample_sites(poutine.trace(pair.model).get_trace(*passed, n=n))}
    if not example and names[0] not in sites:
        observed = _observing(pair, names[0], sites)
    if not observed or not set(observed.values()) <= sites.keys():
        raise ValueError(
            f"model draws the sites {sorted(sites)}, none of which observes its argument {names[0]!r}; where data need "
            "inputs, pass example=(x, inputs)"
        )
    pairs = zip(names, passed, strict=False)
    args: tuple = tuple(sites[observed[name]] if name in observed else value for name, value in pairs)
    if (drew := batch_size(pair, args)) != n:
        raise ValueError(f"model(n={n}) drew {drew} data; let n be the size of its plate over data")
    return _simulated(pair, args, {name: value for name, value in sites.items() if name not in observed.values()})


def _observing(pair: Pair, argument: str, sites: dict[str, Tensor]) -> dict[str, str]:
    """{argument: site} of the model's first argument: found by showing it what each site has drawn."""
    for name, value in reversed(sites.items()):
        try:
            with untouched():
                found = parts_of(pair, (value,))
        except Exception:  # a model that cannot take this site's values for data
            continue
        if found.get(name) == Part(0):
            return {argument: name}
    return {}


def _from_example(pair: Pair, example: tuple, n: int) -> Simulated:
    """Of a model that is called with data: those that it observes are drawn in their place."""
    with untouched():  # what is simulated does not depend on the example's data
        parts = _parts(pair, example)
    seen, rows, axes = {part.position for part in parts.values()}, batch_size(pair, example), by_length(example, pair)
    _check_inputs(pair, [None if i in seen else a for i, a in enumerate(example)], n)
    if rows != n:
        turns = torch.arange(n) % rows
        turns = turns.to(data_in(example).device)
        example = rows_of(example, turns, [axis if i in seen else None for i, axis in enumerate(axes)])
        with untouched():
            parts = parts_of(pair, example)
    args, values = drawn(pair, example, parts)
    return _simulated(pair, args, {name: value for name, value in values.items() if name not in parts})


def _parts(pair: Pair, example: tuple) -> dict[str, Part]:
    """Which arguments of the example the model observes, and where.

    Raises:
        ValueError: no data are an argument, rows are no data, not all are drawn, or a draw has a weight or is rounded.
    """
    sites, rows = sample_sites(poutine.trace(pair.model).get_trace(*example)), batch_size(pair, example)
    plates = data_plates(sites)
    if plates and (number := math.prod(frame.size for frame in plates)) != rows:
        raise ValueError(
            f"example has {rows} rows and the model's plate over data {number}; data must lie along the first axis of "
            "the first argument, or along the one that described(model, per_datum={name: axis}) says, and the plate be "
            "of the size of the batch"
        )
    parts = parts_of(pair, example)
    if not parts:
        raise ValueError("model observes none of the arguments of example; pass a batch of data as an argument")
    loose = {site["name"] for site in sites if site["is_observed"]} - parts.keys()
    if weighing := sorted(loose & depending(pair, example, {})):
        raise ValueError(
            f"model weighs its draws by site {weighing[0]!r}, which observes no argument, as pyro.factor or a "
            "constant: (z, x) cannot be drawn site by site; make its data an argument, or leave the site out"
        )
    for site in (site for site in sites if site["name"] in parts):
        _check_type(site, example, parts[site["name"]].position)
    return parts


def _check_type(site: dict, example: tuple, position: int) -> None:
    """Raises ValueError where an argument's type rounds what a site draws, so that z is no draw given these data."""
    value, wanted = site["fn"].sample(), example[position].dtype
    if (value.to(wanted).to(value.dtype) != value)[~value.isnan()].any():
        cast = {torch.float32: "float()", torch.float64: "double()"}.get(value.dtype, f"to({value.dtype})")
        raise ValueError(
            f"argument {position} of example holds {wanted}, which rounds the {value.dtype} that site "
            f"{site['name']!r} draws, so that latents would be drawn for other data than those given; pass it in the "
            f"type of the draws, as x.{cast}"
        )


def _check_inputs(pair: Pair, inputs: list, n: int) -> None:
    axes = ((a, pair.axes.get(i, 0)) for i, a in enumerate(inputs) if isinstance(a, Tensor) and a.dim())
    if short := [tuple(a.shape) for a, axis in axes if axis is not None and not has_rows(a, n, axis)]:
        raise ValueError(f"example has inputs of shape {short[0]}, expected n={n} rows: one for each datum")


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


def _observed(pair: Pair, names: list[str], example: tuple) -> dict[str, str]:
    """{argument: site} of the arguments of a call that observe a site as they are."""
    with untouched():  # what is simulated does not depend on the example's data
        trace = poutine.trace(pair.model).get_trace(*example)
        _check_fits(trace)
    seen = {site["name"]: site["value"] for site in sample_sites(trace) if site["is_observed"]}
    called = dict(zip(names, example, strict=False))
    found = {name: name for name in called if name in seen}
    for name, value in called.items():
        others = [site for site, got in seen.items() if got is value and site not in found.values()]
        if name not in found and isinstance(value, Tensor) and others:
            found[name] = others[0]
    return found


def _check_fits(trace: poutine.Trace) -> None:
    try:
        check_observed(trace)
    except ValueError as error:
        raise ValueError(f"example does not fit the model: {error}") from error
