"""Which sites of a program are drawn from which: parents and descendants, found by running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.distributions.supports import inner
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched


def parents(program: Callable, args: tuple, kwargs: dict) -> dict[str, set[str]]:
    """{site: the sites that its distribution is made from}, in the order in which they are drawn."""
    found: Any
    try:
        found = get_dependencies(_Unconstrained()(program), args, kwargs)["prior_dependencies"]
    except (NotImplementedError, KeyError):  # a flow without an inverse; at worst, a site depends on all before it
        names = [site["name"] for site in sample_sites(poutine.trace(program).get_trace(*args, **kwargs))]
        found = {name: names[: j + 1] for j, name in enumerate(names)}
    return {site: set(upstream) - {site} for site, upstream in found.items()}


def descendants(upstream: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """{site: all that is drawn from it, directly or not}, of what ``parents`` found."""
    below: dict[str, set[str]] = {site: set() for site in upstream}
    for site in upstream:  # generation order, so ancestors are complete before their children
        stack = list(upstream[site])
        while stack:
            ancestor = stack.pop()
            if site not in below.setdefault(ancestor, set()):
                below[ancestor].add(site)
                stack.extend(upstream.get(ancestor, ()))
    return below


@remembered
def drawn_from(pair: Pair, args: tuple, kwargs: dict) -> dict[str, set[str]]:
    """{site of the guide: all that the guide draws from it}; remembered for a pair.

    A program may turn a draw into a number, which hides what is made of it: a site whose density is another where a
    discrete one has other values is a descendant too.
    """
    with untouched(), torch.no_grad(), poutine.block(), pair.silent():
        found = descendants(parents(pair.guide, args, kwargs))
        trace = poutine.trace(pair.guide).get_trace(*args, **kwargs)
        same = poutine.trace(poutine.replay(pair.guide, trace=trace)).get_trace(*args, **kwargs)
        for site in (site for site in sample_sites(trace) if not site["fn"].has_rsample and not site["is_observed"]):
            changed = trace.copy()
            changed.nodes[site["name"]] = {**site, "value": _another(site)}
            run = poutine.trace(poutine.replay(pair.guide, trace=changed)).get_trace(*args, **kwargs)
            others = (other for other in sample_sites(run) if other["name"] != site["name"])
            found.setdefault(site["name"], set()).update(other["name"] for other in others if not _alike(other, same))
    return found


def _another(site: dict) -> Tensor:
    """A value that differs from a discrete site's own everywhere, where its kind is known; another draw elsewhere."""
    fn, value = inner(site["fn"]), site["value"]
    if isinstance(fn, torch.distributions.Bernoulli):
        return 1 - value
    if isinstance(fn, torch.distributions.OneHotCategorical):
        return value.roll(1, -1)
    return (value + 1) % fn.probs.shape[-1] if isinstance(fn, torch.distributions.Categorical) else site["fn"].sample()


def _alike(site: dict, among: poutine.Trace) -> bool:
    """Whether a site has the density that it has in a trace, at one value."""
    others: Mapping[str, Any] = among.nodes
    if site["name"] not in others:
        return False
    try:
        one, other = (fn.log_prob(site["value"]) for fn in (site["fn"], others[site["name"]]["fn"]))
    except (KeyError, NotImplementedError):  # a flow without an inverse
        return False
    return one.shape == other.shape and torch.allclose(one, other, 1e-4, 1e-5, equal_nan=True)


class _Unconstrained(Messenger):
    """Leaves a parameter what a plate asks of it that takes rows of it, also where its dependencies are followed."""

    def _pyro_param(self, msg: dict) -> None:
        declare = msg["fn"]

        def found(*args: Any, **kwargs: Any) -> Tensor:
            self.value = declare(*args, **kwargs)
            return self.value

        self.value, msg["fn"] = None, found

    def _pyro_post_param(self, msg: dict) -> None:
        value, unconstrained = msg["value"], getattr(self.value, "unconstrained", None)
        if unconstrained is not None and not hasattr(value, "unconstrained"):
            value.unconstrained = unconstrained
