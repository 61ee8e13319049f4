"""Where a model's masks of its latent sites come from, so that a guide can mask its own sites as the model does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.distributions.masks import masks_of, place_in

MISSING, SEEN = "_unobserved", "_observed"  # how pyro.sample(..., obs_mask=...) names its two sites


class masking(Messenger):
    """Inside, sites count for some data alone.

    Args:
        masks: {site: bools, one per datum}.
    """

    def __init__(self, masks: Mapping[str, Tensor]):
        super().__init__()
        self.masks = masks

    def _pyro_sample(self, msg: Any) -> None:
        if (mask := self.masks.get(msg["name"])) is not None:
            msg["mask"] = mask if msg["mask"] is None else mask & msg["mask"]


class Mask(NamedTuple):
    """A mask with one truth value per datum n: argument[n, *at], or its opposite where ``negated``.

    ``argument`` is the position of the model's argument that holds it, ``name`` its name in a call by name.
    """

    argument: int | None
    name: str | None = None
    at: tuple[int, ...] = ()
    negated: bool = False

    def __call__(self, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
        """Of a call, shape (batch,).

        Raises:
            ValueError: the call lacks the argument.
        """
        place = len(args) if self.argument is None else self.argument
        value = args[place] if place < len(args) else kwargs.get(self.name or "")
        if not isinstance(value, Tensor):
            raise ValueError(
                f"argument {self.name or self.argument!r} masks latent sites of the model and must be a tensor here, "
                f"got {type(value).__name__}; pass it to the guide as to the model"
            )
        found = value
        for position in self.at:
            found = found[:, position]
        found = found.bool()
        return ~found if self.negated else found


def mask_in(
    nodes: Mapping[str, Mapping[str, Any]],
    name: str,
    args: tuple,
    kwargs: Mapping[str, Any],
    positions: Mapping[str, int],
) -> Mask | None:
    """Where the mask of a model's latent site comes from, told by memory; None where it has none, or one made anew.

    Args:
        nodes: the model's trace.
        name: of the site.
        args, kwargs: what the model was called with.
        positions: of its arguments, by name.
    """
    if name.endswith(MISSING) and (seen := name.removesuffix(MISSING) + SEEN) in nodes:
        found = mask_in(nodes, seen, args, kwargs, positions)
        return None if found is None else found._replace(negated=True)
    masks = masks_of(nodes[name])
    if len(masks) != 1:
        return None
    names = {i: word for word, i in positions.items()}
    given: list[tuple[int | None, str | None, Any]] = [(i, names.get(i), value) for i, value in enumerate(args)]
    given += [(positions.get(word), word, value) for word, value in kwargs.items()]
    for position, word, value in given:
        if isinstance(value, Tensor) and value.dtype == torch.bool:
            if (index := place_in(masks[0], value)) is not None:
                return Mask(position, word, index)
    return None
