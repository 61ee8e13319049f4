"""What a guide has to know of a model: its latent sites, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import nn
from torch.distributions import constraints

from dlvm.distributions.data_plates import PickedRows
from dlvm.distributions.pyro_lock import TURN
from dlvm.distributions.supports import collapsed, latent_support
from dlvm.guides.sites.arguments import program
from dlvm.guides.sites.masks import Mask, mask_in

Node = Mapping[str, Any]  # one statement in a trace of Pyro's


class Plate(NamedTuple):
    """A plate around a site: its name, its dimension, and its full size where it is subsampled (else None).

    ``given`` says that the model picks the plate's rows by itself, by ``subsample=``, so that a guide must not.
    """

    name: str = "data"
    dim: int = -1
    size: int | None = None
    given: bool = False

    def over(self, rows: int) -> pyro.plate:
        """The plate in a guide, around so many data."""
        if not self.given:
            return pyro.plate(self.name, self.size or rows, subsample_size=rows if self.size else None, dim=self.dim)
        with poutine.block(hide=[self.name]):  # a model that is replayed against the guide keeps its own rows
            return pyro.plate(self.name, self.size or rows, subsample=torch.arange(rows), dim=self.dim)


class Latent(NamedTuple):
    """A latent site: shape of one event, support, the plates around it, and where it can be given.

    ``position`` is that of the model's argument which observes the site where it is not None: the one of its name, or
    one that was left out of the call and is found to; None where there is no such argument, or it is passed by name
    alone. ``mask`` says where the model's mask of the site
    comes from, where that is an argument of bools or a part of it, as mask[:, t]; it is recognised in memory.
    """

    shape: torch.Size
    support: constraints.Constraint = constraints.real_vector
    plates: tuple[Plate, ...] = (Plate(),)
    position: int | None = None
    mask: Mask | None = None


class NoLatents(ValueError):
    """A model has no latent site: it observes everything, and ``FullyObserved`` is its guide."""


def latents(model: Callable, *args: Any, **kwargs: Any) -> dict[str, Latent]:
    """The latent sites of a model, in the order in which it generates them.

    The model runs once, on ``args``, with its parameters and the random state left as they were; and once more for each
    site and each argument that is None and no site's name, to find out whether the site is observed by it. A model that
    has some sites for some arguments only has them all in ``latents(model, x, deep=True) | latents(model, x)``, in the
    order of the first call; a site that an argument may observe is latent in a call without it, ``latents(model, x)``.

    Returns:
        {site: Latent(shape, support, plates, position, mask)}; a dict written by hand serves guides as well.

    Args:
        model: a Pyro program.
        *args, **kwargs: what it is called with, a small batch of data for example.

    Raises:
        NoLatents: the model has no latent site when called so; a ValueError.
        TypeError: ``model`` is no program.

    Example:
        >>> from dlvm.models import PPCA
        >>> latents(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3))["z"].shape
        torch.Size([2])
    """
    program(model=model)
    with left_alone(model), PickedRows() as picked:
        trace = prune_subsample_sites(_traced(model, args, kwargs))
    parameters = _by_position(model)
    position = {name: i for i, name in enumerate(parameters)}
    elsewhere = _observed_by(model, trace, args, kwargs, parameters)
    nodes: Iterator[tuple[str, Node]] = trace.iter_stochastic_nodes()
    sites = {
        name: Latent(
            shape := site["fn"].event_shape,
            collapsed(latent_support(site["fn"]), len(shape)),
            _plates(site, picked.names),
            position.get(name, elsewhere.get(name)),
            mask_in(trace.nodes, name, args, kwargs, position),
        )
        for name, site in nodes
        if not site["infer"].get("is_auxiliary")
    }
    if not sites:
        raise NoLatents(
            "model has no latent site when called with these arguments; "
            "a guide needs a pyro.sample statement without obs, and FullyObserved() stands where there is none"
        )
    return sites


def _traced(model: Callable, args: tuple, kwargs: dict) -> poutine.Trace:
    try:
        return poutine.trace(model).get_trace(*args, **kwargs)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
    with torch.enable_grad():  # it differentiates by itself
        return poutine.trace(model).get_trace(*args, **kwargs)


@contextmanager
def left_alone(model: Callable) -> Iterator[None]:
    """Inside, what runs leaves no trace in random state, parameter store or what is to be trained."""
    frozen = [p for p in getattr(model, "parameters", list)() if not p.requires_grad]
    try:
        with TURN, torch.random.fork_rng(), torch.no_grad(), pyro.get_param_store().scope():
            yield
    finally:
        for parameter in frozen:  # Pyro's store lets every parameter that it meets require a gradient
            parameter.requires_grad_(False)


def _plates(site: Node, given: set[str]) -> tuple[Plate, ...]:
    return tuple(
        Plate(frame.name, frame.dim, frame.full_size if frame.full_size != frame.size else None, frame.name in given)
        for frame in site["cond_indep_stack"]
    )


def _by_position(model: Callable) -> dict[str, Any]:
    """{argument: default} of those that a program takes by position, in order; none where it does not say."""
    program = inspect.unwrap(model)
    try:
        found = getattr(program, "program_signature", None)  # that of a program inside
        signature = found or inspect.signature(program.forward if isinstance(program, nn.Module) else program)
        parameters = signature.parameters
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: parameter.default for name, parameter in parameters.items() if parameter.kind in kinds}


def _observed_by(
    model: Callable, trace: poutine.Trace, args: tuple, kwargs: Mapping[str, Any], parameters: Mapping[str, Any]
) -> dict[str, int]:
    """{latent site: position} of arguments that are None, and observe a site of another name where they are not."""
    found: dict[str, int] = {}
    given = [*args, *list(parameters.values())[len(args) :]]
    for i, name in enumerate(parameters):
        if given[i] is not None or name in kwargs or name in trace.nodes:
            continue
        for site, value in ((site, node["value"]) for site, node in trace.iter_stochastic_nodes() if site not in found):
            called = (*args[:i], value, *args[i + 1 :]) if i < len(args) else args
            named = dict(kwargs) if i < len(args) else {**kwargs, name: value}
            try:
                with left_alone(model):
                    node: Any = poutine.trace(model).get_trace(*called, **named).nodes.get(site)
            except Exception:  # an argument that is something else, as a mask or lengths
                continue
            if node is not None and node["is_observed"] and node["value"] is value:
                found[site] = i
    return found
