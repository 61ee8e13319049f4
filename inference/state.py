"""What a step reads beside its arguments: the tensors and the Python values that lie on modules and objectives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from pyro.infer import ELBO
from pyro.ops.provenance import detach_provenance
from torch import Tensor, nn

_SCALARS = (bool, int, float, str, type(None))


class Slot(NamedTuple):
    """A place that holds something: ``home[name] is value``."""

    home: dict
    name: str
    value: object


class State:
    """Everything that modules, objectives and stores hold at this moment.

    Args:
        parts: modules and objectives, with what they contain.
        stores: further dictionaries of tensors.
    """

    def __init__(self, parts: Iterable[object], stores: Iterable[dict] = ()):
        self.slots: list[Slot] = []
        self.objects: list[Slot] = []
        self.scalars: list[Slot] = []
        for home in (*_homes(parts), *stores):
            self._read(home)
        self.tensors: list[Tensor] = list({id(slot.value): slot.value for slot in self.slots}.values())
        self.trained = [tensor.requires_grad for tensor in self.tensors]

    def _read(self, home: dict) -> None:
        for name, value in home.items():
            if isinstance(value, Tensor):
                home[name] = value = detach_provenance(value)
                self.slots.append(Slot(home, name, value))
            elif isinstance(value, _SCALARS):
                self.scalars.append(Slot(home, name, value))
            elif isinstance(value, nn.Module):
                self.objects.append(Slot(home, name, value))

    def intact(self) -> bool:
        """Whether every place still holds the very tensor or module that it held, trained or frozen as it was."""
        held = [home.get(name) is value for home, name, value in self.slots + self.objects]
        return all(held) and [tensor.requires_grad for tensor in self.tensors] == self.trained

    def values(self) -> list:
        """The Python numbers, flags and words, as they are now."""
        return [home.get(name) for home, name, _ in self.scalars]

    def changed(self, values: list) -> str:
        """The first name whose value was another in ``values``."""
        return next(slot.name for slot, old, new in zip(self.scalars, values, self.values(), strict=True) if old != new)

    def rebound(self) -> list[Slot]:
        """The places that hold another tensor than before."""
        return [slot for slot in self.slots if slot.home.get(slot.name) is not slot.value]

    @contextmanager
    def restored(self) -> Iterator[list[Tensor]]:
        """Whatever happens inside, afterwards every place holds its tensor, and every tensor its numbers.

        Yields a list that afterwards holds the tensors that had been changed in place.
        """
        saved, values = [tensor.detach().clone() for tensor in self.tensors], self.values()
        changed: list[Tensor] = []
        try:
            yield changed
        finally:
            self.put_back()
            with torch.no_grad():  # by value: some operations change a tensor without counting it as a change
                for tensor, copy in zip(self.tensors, saved, strict=True):
                    if not torch.equal(tensor, copy):
                        tensor.copy_(copy)
                        changed.append(tensor)
            for slot, value in zip(self.scalars, values, strict=True):
                if slot.home.get(slot.name) != value:
                    slot.home[slot.name] = value

    def put_back(self) -> None:
        """Every place holds its own tensor again."""
        for home, name, value in self.slots:
            home[name] = value

    @torch.no_grad()
    def settle(self) -> bool:
        """Moves what a program put in a tensor's place into the tensor itself; False where the shape has changed."""
        for slot in self.rebound():
            new = slot.home.get(slot.name)
            if not isinstance(new, Tensor) or new.shape != slot.value.shape or new.dtype != slot.value.dtype:
                return False
            slot.value.copy_(detach_provenance(new))
            slot.home[slot.name] = slot.value
        return True


def _homes(parts: Iterable[object]) -> Iterator[dict]:
    """The dictionaries of parts and of what these contain, once each."""
    waiting, seen = list(parts), set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield vars(part)
        if isinstance(part, nn.Module):
            yield part._parameters
            yield part._buffers
            yield part._modules
            waiting.extend(module for module in part._modules.values() if module is not None)
        waiting.extend(value for value in vars(part).values() if isinstance(value, (ELBO, nn.Module)))
