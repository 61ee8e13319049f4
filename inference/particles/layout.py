"""Where each datum's numbers stand in the log-densities of sites."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.nn.functional import pad

from dlvm.inference.programs.data_sites import turn
from dlvm.inference.programs.plates import common_loops, common_plates, depth, outer_scale, same


class Layout(NamedTuple):
    """How densities of sites are brought to one number per particle and datum.

    Data lie in ``plates``; or each is a turn of ``loops``, plates that are run through one by one, with sites of its
    own.
    """

    num_particles: int
    plates: tuple
    scale: Tensor | float
    nesting: int
    loops: frozenset[str] = frozenset()
    turns: tuple[tuple[int, ...], ...] = ()

    @property
    def batch(self) -> int:
        return len(self.turns) if self.loops else math.prod(frame.size for frame in self.plates)

    def reduce(self, log_prob: Tensor, site: dict, scaled: bool = True) -> Tensor:
        """A site's log-density, shape (num_particles, batch): masked, summed, with its scale beyond the common one."""
        scale = _share(site["scale"], self._outer(site)) if scaled else 1.0
        log_prob = scale_and_mask(log_prob, scale, site["mask"])
        kept = {frame.dim for frame in self.plates}
        inner = [dim for dim in range(-depth([site]), 0) if dim not in kept and log_prob.dim() >= -dim]
        if inner:
            log_prob = log_prob.sum(inner, keepdim=True)
        if self.loops:
            at = self.turns.index(turn(site, self.loops))
            return pad(log_prob.reshape(self.num_particles, 1), (at, self.batch - at - 1))
        if log_prob.numel() not in (self.num_particles, self.num_particles * self.batch):  # a plate without a size
            wanted = self.spread(log_prob.new_empty(self.num_particles, self.batch), 0).shape
            if log_prob.dim() > len(wanted):
                raise ValueError(
                    f"site {site['name']!r} has densities of shape {tuple(log_prob.shape)} in no plate; write with "
                    "pyro.plate('data', len(x)) around the sites, or .to_event for what is one datum's"
                )
            log_prob = log_prob.expand(wanted)
        return log_prob.reshape(self.num_particles, -1).expand(self.num_particles, self.batch)

    def rows(self, values: Tensor, event_dim: int) -> Tensor:
        """A site's values, each datum's side by side: (num_particles, batch, numbers); data lie in plates."""
        depth, event = self.nesting + (self.num_particles > 1), values.shape[values.dim() - event_dim :]
        values = values.reshape([1] * (depth + event_dim - values.dim()) + [*values.shape])
        wanted, kept = [*values.shape[:depth]], sorted(depth + frame.dim for frame in self.plates)
        for frame in self.plates:
            wanted[frame.dim] = frame.size
        if self.num_particles > 1:
            wanted[0], kept = self.num_particles, [0, *kept]
        others = (dim for dim in range(depth + event_dim) if dim not in kept)
        values = values.expand(*wanted, *event).permute(*kept, *others)
        return values.reshape(self.num_particles, self.batch, -1)

    def _outer(self, site: dict) -> Tensor | float:
        """The scale that a site shares with all others of its datum."""
        if not self.loops or not isinstance(self.scale, Tensor) or not self.scale.dim():
            return self.scale
        return self.scale[self.turns.index(turn(site, self.loops))]

    def spread(self, numbers: Tensor, event_dim: int, site: dict | None = None) -> Tensor:
        """(num_particles, batch) -> the shape that broadcasts against a site's values; in loops, those of ``site``."""
        shape = [1] * (self.nesting + (self.num_particles > 1))
        if self.loops and site is not None:
            at = self.turns.index(turn(site, self.loops))
            numbers = numbers.expand(self.num_particles, self.batch)[:, at]
        if self.num_particles > 1:
            shape[0] = self.num_particles
        for frame in self.plates:
            shape[frame.dim] = frame.size
        return numbers.reshape(shape + [1] * event_dim)


def layout_of(sites: list[dict], num_particles: int, nesting: int) -> Layout:
    """That of sites of both programs, each datum's in the plates or the turn of a loop that all of them share."""
    plates = tuple(common_plates(sites))
    loops = frozenset() if plates else common_loops(sites)
    if not loops:
        return Layout(num_particles, plates, outer_scale(sites, plates), nesting)
    by_turn: dict[tuple[int, ...], list[dict]] = {}
    for site in sites:
        by_turn.setdefault(turn(site, loops), []).append(site)
    scales = [outer_scale(found, [], loops) for found in by_turn.values()]
    one = scales[0] if all(same(scale, scales[0]) for scale in scales) else torch.stack([*map(_number, scales)])
    return Layout(num_particles, (), one, nesting, loops, tuple(by_turn))


def _number(scale: Tensor | float) -> Tensor:
    return torch.as_tensor(scale, dtype=torch.get_default_dtype()).reshape(())


def _share(scale: Tensor | float, outer: Tensor | float) -> Tensor | float:
    """scale / outer, and 1 where both are equal, 0 included."""
    if same(scale, outer):
        return 1.0
    if isinstance(scale, Tensor) or isinstance(outer, Tensor):
        return torch.where(torch.as_tensor(scale == outer), 1.0, scale / outer)
    return scale / outer
