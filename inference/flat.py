"""Gradients as one vector for each kind of parameter, so that few messages carry them."""

from __future__ import annotations

import torch
from torch import Tensor


class Flat:
    """Packs gradients into one vector per type and device, zeros where there is none, and unpacks them.

    Args:
        parameters: in the order of the gradients.
    """

    def __init__(self, parameters: list[Tensor]):
        self.parameters = parameters
        kinds = dict.fromkeys((p.dtype, p.device) for p in parameters)
        self.groups = [[i for i, p in enumerate(parameters) if (p.dtype, p.device) == kind] for kind in kinds]

    def pack(self, gradients: list[Tensor | None], weight: float) -> list[Tensor]:
        """The vectors, multiplied by a number; not views."""
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
        return [torch.cat([filled[i].detach().reshape(-1) for i in group]).mul_(weight) for group in self.groups]

    def unpack(self, vectors: list[Tensor], given: list[bool]) -> list[Tensor | None]:
        """Gradients as views of the vectors; None where no one has given any."""
        found: list[Tensor | None] = [None] * len(self.parameters)
        for group, vector in zip(self.groups, vectors, strict=True):
            sizes = [self.parameters[i].numel() for i in group]
            for i, part in zip(group, vector.split(sizes), strict=True):
                found[i] = part.view_as(self.parameters[i]) if given[i] else None
        return found
