"""A model asked for data: called without them, with some of its sites and inputs given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.inference.particles.layout import Layout
from dlvm.inference.programs.batches import rows_in
from dlvm.inference.programs.data_checks import support_of
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.observing import parts_of, placed
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import rows_of
from dlvm.inference.use.arrays import Kind, as_tensor, dtype_of, taken_in
from dlvm.inference.use.by_datum import has_data, in_place, names_of, standing

RUNS = 4  # so many draws of what lies above a site show whether it depends on them


class Asked:
    """A model that is called for n data, with what is given in their place; to be run in one random stream.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``; or any other, with ``example``.
        n: how many data.
        given: {site or argument: values, one row per datum}; sites are conditioned on.
        word: for what is given, in errors.
        example: arguments as for a batch of data, of which those that the model observes are drawn anew.

    Attributes:
        x: name of the site that is the data: the model's first argument, or else its last site.
        names: of the sites that are given, or that the model observes by itself, as a factor.
        layout: where data stand in the values of sites.
        local: names of the sites that have a value for each datum.

    Raises:
        TypeError: the model takes no ``n``, and there is no example.
        ValueError: it has no site or argument of that name, or values of another shape or outside the support; or the
            data of an example go into the distributions of others.
    """

    def __init__(
        self, model: Callable, n: int, given: Mapping[str, Tensor], word: str = "given", example: tuple | None = None
    ):
        self.free, self.n = Pair(model), n
        arguments = [name for name in signature_of(self.free.model).parameters if name != "n"]
        device = self.free.device
        values = {name: value if device is None else value.to(device) for name, value in given.items()}
        inputs = {name: values[name] for name in arguments if name in values}
        self.args: tuple = ()
        if self._takes_n():
            self.call = {**dict.fromkeys(self._needed()), **inputs, "n": n}
        elif example is None:
            raise TypeError(
                f"model takes the arguments {arguments}, and cannot be asked for n data; pass example=(x,), a batch of "
                "data from which shapes are taken, or write it as forward(self, x=None, n=1), which draws n data where "
                "x is None"
            )
        else:
            self.call = {}
            self.args = _repeated(self.free, example, n)
            self.args = tuple(inputs.get(name, value) for name, value in zip(arguments, self.args, strict=False))
            self.free = _drawing_anew(self.free, self.args)
        first = self._run(self.free)
        sites = {site["name"]: site for site in sample_sites(first)}
        self.x = next((name for name in arguments if name in sites), list(sites)[-1])
        self.conditions = {name: value for name, value in values.items() if name not in inputs}
        self.layout = self._layout(first)
        self.local = {name for name, site in sites.items() if has_data(site, self.layout, n)}
        self._place_given(sites, word)
        self.names = [name for name, site in sites.items() if name in values or site["is_observed"]]
        self.pair = Pair(poutine.condition(self.free.model, data=self.conditions))

    def run(self) -> poutine.Trace:
        """One draw of all that is not given."""
        return self._run(self.pair)

    def sites(self, trace: poutine.Trace) -> dict[str, dict]:
        return {site["name"]: site for site in sample_sites(trace)}

    def below(self) -> list[str]:
        """Names of the given sites whose distribution depends on what is drawn: above them lies something not given."""
        if not self.names:
            return []
        runs = [self._densities() for _ in range(RUNS)]
        return [name for name in self.names if any(not torch.equal(run[name], runs[0][name]) for run in runs)]

    def _densities(self) -> dict[str, Tensor]:
        sites = self.sites(self.run())
        return {name: sites[name]["fn"].log_prob(sites[name]["value"]) for name in self.names}

    def _run(self, pair: Pair) -> poutine.Trace:
        with in_words("the model", self.args, self.call):
            return poutine.trace(pair.model).get_trace(*self.args, **self.call)

    def _needed(self) -> list[str]:
        parameters = signature_of(self.free.model).parameters.values()
        return [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]

    def _takes_n(self) -> bool:
        names = signature_of(self.free.model).parameters
        return "n" in names and len(names) > 1

    def _place_given(self, sites: Mapping[str, dict], word: str) -> None:
        """Brings what is given, a row per datum, to where the model has its data."""
        for name, value in self.conditions.items():
            if name not in sites:
                raise ValueError(
                    f"{word} names {name!r}, which is no site of the model; there are {names_of(list(sites.values()))}"
                )
            if name in self.local:
                value = self.conditions[name] = in_place(value, sites[name], self.layout)
            check_fits(name, value, sites[name])

    def _layout(self, trace: poutine.Trace) -> Layout:
        as_data = [{**site, "is_observed": site["name"] == self.x} for site in sample_sites(trace)]
        layout = standing(as_data, self.n)
        rows = [frame.size for frame in layout.plates]
        if rows and torch.Size(rows).numel() != self.n:
            raise ValueError(
                f"model(n={self.n}) drew {torch.Size(rows).numel()} data; let n be the size of its plate over data"
            )
        return layout


class _Anew(Messenger):
    """Some observed sites are drawn."""

    def __init__(self, names: Iterable[str]):
        super().__init__()
        self.names = set(names)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.names and msg["is_observed"]:
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def _repeated(pair: Pair, example: tuple, n: int) -> tuple:
    """The arguments of an example with n rows: its own over and over."""
    having = rowed(pair, example)
    if having is None:
        raise ValueError(
            "example cannot be cut into rows, since a datum weighs otherwise alone than among others; write the model "
            "as forward(self, x=None, n=1), which draws n data where x is None"
        )
    return rows_of(example, torch.arange(n) % rows_in(example), having)


def _drawing_anew(pair: Pair, args: tuple) -> Pair:
    """The model with what it observes of its arguments drawn, once it is known that these go nowhere else."""
    with untouched(0), torch.no_grad(), pair.evaluating():
        parts = parts_of(pair, args)
        if not parts:
            raise ValueError("model observes none of the arguments of example; pass a batch of data as an argument")
        anew = Pair(_Anew(parts)(pair.model))
        trace = poutine.trace(anew.model).get_trace(*args)
        sites = {site["name"]: site for site in sample_sites(trace)}
        latent = {name: site["value"] for name, site in sites.items() if name not in parts and not site["is_observed"]}
        done = placed(args, parts, {name: sites[name]["value"] for name in parts})
        again = poutine.trace(poutine.condition(pair.model, data=latent)).get_trace(*done)
        for name in parts:
            fn, other = sites[name]["fn"], cast(Any, again.nodes[name]["fn"])
            if not torch.allclose(fn.log_prob(sites[name]["value"]), other.log_prob(sites[name]["value"]), 1e-4, 1e-4):
                raise ValueError(
                    f"site {name!r} has a distribution that is made of data, so that it cannot be drawn by an example; "
                    "write the model as forward(self, x=None, n=1), which draws n data where x is None"
                )
    return anew


def data_site(model: Callable, n: int = 1, given: Mapping[str, Tensor] | None = None) -> str:
    """The site that is a model's data: its first argument, or else its last site; asked with what it needs given."""
    with untouched(0), torch.no_grad():
        return Asked(model, n, given or {}).x


def as_example(model: Callable, example: Any) -> tuple | None:
    """What a model is called with for an example; None where there is none, or none is needed."""
    pair = Pair(model)
    if example is None or "n" in signature_of(pair.model).parameters:
        return None
    return taken_in(pair, example, "example").args


def check_fits(name: str, value: Tensor, site: Mapping[str, Any]) -> None:
    """Raises ValueError unless these can be a site's values: of the shape and from the support of those it draws."""
    wanted = tuple(cast(Tensor, site["value"]).shape)
    if tuple(value.shape) != wanted:
        raise ValueError(
            f"site {name!r} has values of shape {wanted} for so many data, got {tuple(value.shape)}; pass one row per "
            "datum, as wide as the model draws them"
        )
    support = support_of(cast(Any, site["fn"]))
    if support is not None and not bool(support.check(value).all()):
        raise ValueError(f"site {name!r} takes values in {support}, got others; pass values that the model can draw")


def by_name(model: Callable, values: Any, word: str) -> tuple[dict[str, Tensor], Kind]:
    """{name: tensor} of arrays that were given by name, and what kind of array the first of them is.

    Raises:
        TypeError: they are no dictionary of arrays.
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        got = type(values).__name__
        raise TypeError(f"{word} must be a dictionary {{site: values}}, got {got}; pass {word}={{'z': z}}")
    dtype = dtype_of(Pair(model))
    found = {name: as_tensor(value, dtype, f"{word}[{name!r}]") for name, value in values.items()}
    if wrong := next((name for name, value in found.items() if not value.dim() or not len(value)), None):
        raise ValueError(f"{word}[{wrong!r}] must have one row per datum, got shape {tuple(found[wrong].shape)}")
    return found, Kind(next(iter(values.values()), torch.empty(0)))
