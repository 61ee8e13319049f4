"""Values of sites as one row per datum, in whatever plates the data lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlvm.distributions.supports import inner
from dlvm.inference.particles.layout import Layout
from dlvm.inference.programs.data_sites import batch_shape, names_around
from dlvm.inference.programs.plates import common_plates, data_plates, depth
from dlvm.inference.use.arrays import Kind


def standing(sites: list[dict], rows: int) -> Layout:
    """Where the data stand in the values of the sites of one run of both programs.

    In their plates; where all sites lie in none, along the first dimension of those that are as long as the batch.

    Args:
        sites: of the guide and of the model.
        rows: of the batch.

    Raises:
        ValueError: data are run through one by one.
    """
    plates = tuple(data_plates(sites))
    if not plates and (latent := [site for site in sites if not site["is_observed"]]):
        plates = tuple(frame for frame in common_plates(latent) if frame.size == rows)
    if not plates and any(not f.vectorized for site in sites for f in site["cond_indep_stack"]):
        name = next(f.name for site in sites for f in site["cond_indep_stack"] if not f.vectorized)
        raise ValueError(
            f"model runs through plate {name!r} one datum at a time, with sites of its own for each, so that no site "
            "holds a batch; write with pyro.plate(...) around the sites"
        )
    return Layout(1, plates, 1.0, depth(sites))


def has_data(site: dict, layout: Layout, rows: int) -> bool:
    """Whether a site has a value for each datum: it is none that all data share."""
    if layout.plates:
        return {frame.name for frame in layout.plates} <= names_around(site)
    shape = batch_shape(site)
    return bool(shape) and shape[0] == rows


def by_datum(value: Tensor, site: dict, layout: Layout, event_dim: int | None = None) -> Tensor:
    """A value, or a moment of a site's distribution, as (num_particles, rows, *rest).

    Args:
        value: shape (*batch, *event), the batch dimensions as in the site's run.
        site: whose it is.
        layout: where data stand, and how many particles were run at once.
        event_dim: how many dimensions of the value are a datum's own; those of the site's events unless told.
    """
    event = len(site["fn"].event_shape) if event_dim is None else event_dim
    batch = torch.broadcast_shapes(value.shape[: value.dim() - event], batch_shape(site))
    value = value.expand(*batch, *value.shape[value.dim() - event :])
    if not layout.plates:
        return value[None]
    value = value[(None,) * (1 + layout.nesting - len(batch))]
    value = value.expand(layout.num_particles, *value.shape[1:])
    dims = [frame.dim - event for frame in layout.plates]
    sizes = list(value.shape)
    for dim, frame in zip(dims, layout.plates, strict=True):
        sizes[dim] = frame.size
    value = value.expand(sizes).movedim(dims, list(range(1, 1 + len(dims)))).flatten(1, len(dims))
    around = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    others = sorted(set(range(-layout.nesting, 0)) - {frame.dim for frame in layout.plates})  # of other plates
    for place, dim in reversed(list(enumerate(others, start=2))):
        if dim not in around and value.shape[place] == 1:
            value = value.squeeze(place)
    return value


def in_place(rows: Tensor, site: dict, layout: Layout) -> Tensor:
    """Values of a site, a row per datum, where its plates have them: what ``by_datum`` gives back as these rows.

    Values of another shape than such rows are left as they are.
    """
    value = site["value"]
    cells = by_datum(torch.arange(value.numel(), device=rows.device).reshape(value.shape), site, layout)[0]
    if rows.shape != cells.shape or rows.numel() != value.numel():
        return rows
    return rows.new_empty(value.numel()).index_copy(0, cells.flatten(), rows.flatten()).reshape(value.shape)


def names_of(sites: Sequence[dict]) -> str:
    """The names of sites for a sentence."""
    return ", ".join(repr(site["name"]) for site in sites) or "none"


def classes_of(site: dict, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Of a discrete distribution of finitely many values their probabilities, and these.

    Returns:
        shapes (num_particles, rows, ..., values) and (values, *shape of one); None and None for any other.
    """
    base = inner(site["fn"])
    if not getattr(base, "has_enumerate_support", False):
        return None, None
    try:
        values = base.enumerate_support(expand=False)
        found = base.log_prob(values).exp()
    except NotImplementedError:
        return None, None
    event_dim = len(site["fn"].event_shape) - len(base.event_shape)
    each = [by_datum(part, site, layout, event_dim) for part in found]
    return torch.stack(each, -1), values.reshape(len(values), *base.event_shape)


def joined(parts: Sequence[Any], kind: Kind, word: str, site: str | None = None, dim: int = 0) -> Any:
    """One field of records that are of some data each, for all data in their order; None where it is None.

    Args:
        parts: the records.
        kind: of array that it is handed back as.
        word: name of the field.
        site: after which a table's columns are named; as those that came in unless told.
        dim: that of data, behind that of draws where there is one.
    """
    values = [getattr(part, word) for part in parts]
    if values[0] is None:
        return None
    value = torch.cat(values, dim)
    names = None if site is None or dim else columns(site, value[0].numel())
    return kind.back(value, names, by_row=dim == 0)


def columns(name: str, number: int) -> list[str]:
    """Names for a site's columns in a table.

    Example:
        >>> columns("z", 2), columns("y", 1)
        (['z_0', 'z_1'], ['y'])
    """
    return [name] if number == 1 else [f"{name}_{i}" for i in range(number)]
