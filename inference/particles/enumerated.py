"""Latent sites that the guide leaves to be summed out, ``infer={"enumerate": "parallel"}``: exactly, per particle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from dlvm.distributions.observation_noise import FollowedNormal
from dlvm.distributions.supports import inner
from dlvm.inference.programs.notes import note
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import same
from dlvm.inference.programs.randomness import untouched

Nodes = Mapping[str, Any]


def model_trace(
    model: Callable, drawn: poutine.Trace, args: tuple, kwargs: dict, dims: Callable[[], int]
) -> poutine.Trace:
    """The model's trace at what a guide drew; sites that it leaves to be summed out are no more in it.

        log sum_c p(c | z) p(x | z, c)   in place of   log p(x | z, c)

    A latent site of the guide that depends on such sites has its density with them summed out, given those before it.

    Args:
        model: run at the values in ``drawn``.
        drawn: the guide's trace.
        args, kwargs: what it is called with.
        dims: how many dimensions plates take, that of particles included.

    Raises:
        ValueError: sites that are summed out together have scales of their own, or plates that forbid it.
    """
    found = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args, **kwargs)
    if not any(_is_left(site) for name, site in found.nodes.items() if name not in drawn.nodes):
        return found
    own = drawn.copy()  # the handlers write into what they replay
    for name, site in drawn.nodes.items():
        own.nodes[name] = {**site, "infer": dict(site.get("infer") or {})}  # type: ignore[typeddict-item]  # a copy
    enumerated = poutine.enum(model, first_available_dim=-1 - dims())
    return _summed(poutine.trace(poutine.replay(enumerated, trace=own)).get_trace(*args, **kwargs), set(drawn.nodes))


def to_be_summed(model: Callable, args: tuple) -> set[str]:
    """Names of the latent sites that a model marks to be summed out, where no guide draws them."""
    with untouched(), torch.no_grad(), poutine.block():
        found = poutine.trace(own(model)).get_trace(*args)
    return {name for name, site in found.nodes.items() if _is_left(site)}


def _is_left(site: Nodes) -> bool:
    latent = site["type"] == "sample" and not site["is_observed"]
    return latent and (site["infer"] or {}).get("enumerate") == "parallel"


def _summed(traced: poutine.Trace, drawn: set[str]) -> poutine.Trace:
    trace = prune_subsample_sites(traced)
    plates = {name: dict(site) for name, site in traced.nodes.items() if name not in trace.nodes}
    trace.compute_log_prob()
    trace.pack_tensors()
    nodes: Nodes = trace.nodes
    samples = [site for site in nodes.values() if site["type"] == "sample"]
    summed = [site for site in samples if site["infer"].get("_enumerate_dim") is not None and site["name"] not in drawn]
    symbols = {site["infer"]["_enumerate_symbol"] for site in summed}
    apart = {site["name"] for site in summed}
    for group in _groups([site for site in samples if symbols & _dims(site)], symbols):
        _replace(trace, group, apart, symbols)
    for name in apart:
        trace.remove_node(name)
    for name, plate in plates.items():  # those of a guide are to have their like here
        trace.add_node(name, **plate)
    return trace


def _dims(site: Nodes) -> set[str]:
    return set(site["packed"]["unscaled_log_prob"]._pyro_dims)


def _groups(sites: Iterable[Any], symbols: set[str]) -> list[list[Any]]:
    """Sites that are to be summed together, since they depend on the same enumerated ones, as the trace has them."""
    groups: list[tuple[set[str], list[Any]]] = []
    for site in sites:
        dims, members = _dims(site) & symbols, [site]
        for group in [group for group in groups if group[0] & dims]:
            groups.remove(group)
            dims, members = dims | group[0], group[1] + members
        groups.append((dims, members))
    return [members for _, members in groups]


def _replace(trace: poutine.Trace, group: list[Any], apart: set[str], symbols: set[str]) -> None:
    """Gives what a group comes to, its enumerated sites summed out, to its other sites."""
    names = [site["name"] for site in group if site["name"] in apart]
    if not all(same(site["scale"], group[0]["scale"]) for site in group):
        raise ValueError(
            f"latent sites {names} are to be summed out with sites of another scale: put them into the same "
            "subsampled plates and poutine.scale as all that depends on them, or draw them in the guide"
        )
    _refuse_followed(group, names)
    stacks = [{(f.name, f.counter): f for f in site["cond_indep_stack"]} for site in group]
    shared = [frame for key, frame in stacks[0].items() if all(key in stack for stack in stacks)]
    latent = [site for site in group if not site["is_observed"] and site["name"] not in apart]
    observed = [site for site in group if site["is_observed"]]
    done = [site for site in group if site["name"] in apart]
    before: Tensor | float = 0.0
    for site in latent:
        done = [*done, site]
        total = _contracted(trace, done, shared, symbols, apart, names)
        _become(site, total - before, shared)
        before = total
    if observed:
        total = _contracted(trace, done + observed, shared, symbols, apart, names)
        _become(observed[0], total - before, shared)
        observed[0]["mask"] = None
        for site in observed[1:]:
            _become(site, torch.zeros_like(total), shared)
            site["mask"] = None


def _refuse_followed(group: list[Any], names: list[str]) -> None:
    """A scale that follows errors would count those of each summed value alike, however unlikely it is."""
    normals = [(site["name"], inner(site["fn"])) for site in group]
    for name, normal in normals:
        if isinstance(normal, FollowedNormal) and normal.follower.training and torch.is_grad_enabled():
            raise ValueError(
                f"site {name!r} has an OptimalScale, which cannot learn while {names} are summed out: errors count "
                "alike there, however unlikely the value; take LearnedScale(), or draw them in the guide"
            )


def _contracted(
    trace: poutine.Trace, sites: list[Any], shared: list, symbols: set[str], apart: set[str], names: list[str]
) -> Tensor:
    """log of the sum over enumerated values of the product of densities, in the plates that all share."""
    places: Any = trace.plate_to_symbol
    target = frozenset(places[frame.name] for frame in shared if frame.vectorized)
    tree: OrderedDict = OrderedDict()
    sizes: dict[str, int] = {}
    for site in sites:
        term = site["packed"]["unscaled_log_prob"]
        if site["name"] not in apart:  # a mask of an enumerated site leaves what is summed to one
            term = packed.scale_and_mask(term, mask=site["packed"]["mask"])
        sizes.update(zip(term._pyro_dims, term.shape, strict=True))
        ordinal = frozenset(places[frame.name] for frame in site["cond_indep_stack"] if frame.vectorized)
        tree.setdefault(ordinal, []).append(term)
    sizes |= {places[f.name]: f.size for s in sites for f in s["cond_indep_stack"] if f.vectorized and f.size > 0}
    inside = {dim for terms in tree.values() for term in terms for dim in term._pyro_dims} & symbols
    try:
        total = contract_to_tensor(tree, inside, target_ordinal=target, ring=LogRing(dim_to_size=sizes))
    except (ValueError, NotImplementedError) as error:
        note(error, f"latent sites {names} cannot be summed out in their plates: draw one of them in the guide")
        raise
    return packed.unpack(total, trace.symbol_to_dim)


def _become(site: Any, log_prob: Tensor, shared: list) -> None:
    """Lets a site have this density, in these plates alone."""
    fn = Marginal(log_prob.shape, site["fn"])
    site.update(fn=fn, log_prob=log_prob, unscaled_log_prob=log_prob, log_prob_sum=log_prob.sum())
    site["cond_indep_stack"] = tuple(shared)


class Marginal(dist.TorchDistribution):
    """Stands where a site's distribution was made of what has been summed out: its density is known at its value alone.

    Args:
        batch_shape: of the density.
        fn: that of the site, of which the shape of an event and the support are kept.
    """

    arg_constraints: dict = {}

    def __init__(self, batch_shape: torch.Size, fn: dist.TorchDistribution):
        self.fn = fn
        super().__init__(batch_shape, fn.event_shape, validate_args=False)

    @property
    def support(self) -> torch.distributions.constraints.Constraint | None:
        return self.fn.support

    def expand(self, batch_shape: Iterable[int], _instance: object = None) -> Marginal:
        return Marginal(torch.Size(batch_shape), self.fn)
