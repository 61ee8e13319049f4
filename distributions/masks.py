"""Which parts of a site's density count: its masks, by ``.mask(...)`` and by ``poutine.mask``, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent


def masks_of(site: Mapping[str, Any]) -> list[Tensor]:
    """The masks of a traced site, each a view of shape (*batch, *event), True where its density counts.

    A mask that is a plain bool is left out where it is True.
    """
    fn: Distribution = site["fn"]
    whole = fn.batch_shape + fn.event_shape
    found = [_spread(site["mask"], fn, whole)]
    while isinstance(fn, Independent | dist.MaskedDistribution):
        if isinstance(fn, dist.MaskedDistribution):
            found.append(_spread(fn._mask, fn, whole))
        fn = fn.base_dist
    found.append(getattr(fn, "event_mask", None))  # of one whose density is no product over its numbers
    return [mask if mask.shape == whole else mask.expand(whole) for mask in found if mask is not None]


def _spread(mask: Tensor | bool | None, fn: Distribution, whole: torch.Size) -> Tensor | None:
    if mask is None or mask is True:
        return None
    mask = torch.as_tensor(mask)
    return mask.reshape(mask.shape + (1,) * len(fn.event_shape)).expand(whole)


def counting(site: Mapping[str, Any]) -> Tensor | None:
    """What counts of a traced site, shape (*batch, *event); None where it is masked nowhere."""
    found = masks_of(site)
    return torch.stack(found).all(0) if found else None


def place_in(view: Tensor, whole: Tensor) -> tuple[int, ...] | None:
    """i with view[n, ...] = whole[n, *i] for every row n, told by where both lie in memory; None where it is not so.

    Example:
        >>> x = torch.zeros(4, 3)
        >>> place_in(x[:, 2:].expand(4, 5), x), place_in(x[:, 2:] + 0, x)
        ((2,), None)
    """
    rows = len(whole) if whole.dim() else 0
    if not rows or not view.dim() or len(view) != rows or not view.numel() or view.dtype != whole.dtype:
        return None
    if view.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        return None
    count = whole.untyped_storage().nbytes() // whole.element_size()
    cells = torch.arange(count)
    seen, all_cells = (cells.as_strided(t.size(), t.stride(), t.storage_offset()) for t in (view, whole))
    seen = seen.reshape(rows, -1)
    if not (seen == seen[:, :1]).all():
        return None
    place = (all_cells[0] == seen[0, 0]).nonzero()
    if len(place) != 1:
        return None
    index = tuple(place[0].tolist())
    return index if torch.equal(all_cells[(slice(None), *index)], seen[:, 0]) else None
