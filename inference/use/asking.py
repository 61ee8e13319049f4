"""A model asked for data: called without them, with some of its sites and inputs given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.particles.layout import Layout
from dlvm.inference.programs.data_checks import support_of
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.use.arrays import Kind, as_tensor, dtype_of
from dlvm.inference.use.by_datum import has_data, names_of, standing

RUNS = 4  # so many draws of what lies above a site show whether it depends on them


class Asked:
    """A model that is called for n data, with what is given in their place; to be run in one random stream.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``.
        n: how many data.
        given: {site or argument: values, one row per datum}; sites are conditioned on.
        word: for what is given, in errors.

    Attributes:
        x: name of the site that is the data: the model's first argument, or else its last site.
        names: of the sites that are given.
        layout: where data stand in the values of sites.
        local: names of the sites that have a value for each datum.

    Raises:
        TypeError: the model takes no ``n``.
        ValueError: it has no site or argument of that name, or values of another shape or outside the support.
    """

    def __init__(self, model: Callable, n: int, given: Mapping[str, Tensor], word: str = "given"):
        self.free, self.n = Pair(model), n
        arguments = list(signature_of(self.free.model).parameters)
        self._check_takes_n(arguments)
        device = self.free.device
        values = {name: value if device is None else value.to(device) for name, value in given.items()}
        inputs = {name: values[name] for name in arguments[:-1] if name in values}
        self.call = {**dict.fromkeys(self._needed()), **inputs, "n": n}
        first = self._run(self.free)
        sites = {site["name"]: site for site in sample_sites(first)}
        self.x = next((name for name in arguments if name in sites), list(sites)[-1])
        self.conditions = {name: value for name, value in values.items() if name not in inputs}
        self._check_given(sites, word)
        self.names = [name for name in sites if name in values]
        self.pair = Pair(poutine.condition(self.free.model, data=self.conditions))
        self.layout = self._layout(first)
        self.local = {name for name, site in sites.items() if has_data(site, self.layout, n)}

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
        with in_words("the model", (), self.call):
            return poutine.trace(pair.model).get_trace(**self.call)

    def _needed(self) -> list[str]:
        parameters = signature_of(self.free.model).parameters.values()
        return [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]

    def _check_takes_n(self, arguments: list[str]) -> None:
        if "n" not in arguments:
            raise TypeError(
                f"model takes the arguments {arguments}, and cannot be asked for n data; write it as forward(self, "
                "x=None, n=1), which draws n data where x is None"
            )

    def _check_given(self, sites: Mapping[str, dict], word: str) -> None:
        for name, value in self.conditions.items():
            if name not in sites:
                raise ValueError(
                    f"{word} names {name!r}, which is no site of the model; there are {names_of(list(sites.values()))}"
                )
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


def data_site(model: Callable) -> str:
    """The site that is a model's data: its first argument, or else its last site."""
    with untouched(0), torch.no_grad():
        return Asked(model, 1, {}).x


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
