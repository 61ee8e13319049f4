"""What a step reads and writes beside its arguments: tensors and Python values that lie on modules and objectives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from dlvm.inference.programs.modules import closure

SCALARS = (bool, int, float, str, type(None))


class Place(NamedTuple):
    """``home[name]``, and what lay there."""

    home: dict[str, Any]
    name: str
    value: Any

    @property
    def now(self) -> Any:
        return self.home.get(self.name)

    @property
    def key(self) -> tuple[int, str]:
        return id(self.home), self.name


class State:
    """Everything that modules, objectives and stores hold at this moment.

    Tensors that stay in their place, modules and Python values are ``fixed``: the program may change numbers inside
    them, and only its user puts others there. Places that the program itself fills with a new tensor at every step are
    ``flowing``.

    Args:
        parts: modules and objectives, with what they contain.
        stores: further dictionaries of tensors.
        flowing: keys of places that the program is known to fill.
    """

    def __init__(
        self,
        parts: Iterable[object],
        stores: Iterable[dict[str, Any]] = (),
        flowing: Collection[tuple[int, str]] = (),
    ):
        self.homes = [*_homes(parts), *stores]
        self.sizes = [len(home) for home in self.homes]
        places = [Place(home, name, value) for home in self.homes for name, value in home.items()]
        self.flowing = [place for place in places if place.key in flowing]
        fixed = [place for place in places if place.key not in flowing]
        self.bound = [place for place in fixed if isinstance(place.value, (Tensor, nn.Module))]
        self.scalars = [place for place in fixed if isinstance(place.value, SCALARS)]
        held = [place.value for place in self.bound if isinstance(place.value, Tensor)]
        self.tensors: list[Tensor] = list({id(tensor): tensor for tensor in held}.values())
        self.trained = [tensor.requires_grad for tensor in self.tensors]
        self.moving: list[Tensor] | None = None

    def intact(self) -> bool:
        """Whether every fixed place still holds the very tensor or module that it held, trained or frozen as it was."""
        held = [home.get(name) is value for home, name, value in self.bound]
        return all(held) and [tensor.requires_grad for tensor in self.tensors] == self.trained

    def values(self) -> list[Any]:
        """The Python numbers, flags and words, as they are now."""
        return [home.get(name) for home, name, _ in self.scalars]

    @contextmanager
    def watched(self) -> Iterator[list[Place]]:
        """Yields a list that afterwards has the places that the program filled; if it raised, no tensor has changed."""
        places = [*self.bound, *self.flowing, *self.scalars]
        before = [place.now for place in places]
        tensors = [t for t in self.tensors if not t.requires_grad] if self.moving is None else self.moving
        numbers = [tensor.detach().clone() for tensor in tensors]
        filled: list[Place] = []
        try:
            yield filled
        except BaseException:
            held = len(places) - len(self.scalars)
            _put_back(places[:held], before[:held])
            _copy_back(tensors, numbers)
            raise
        filled += [place for place, value in zip(places, before, strict=True) if _differ(place.now, value)]
        if [len(home) for home in self.homes] != self.sizes:
            known = {place.key for place in places}
            new = (Place(home, name, value) for home in self.homes for name, value in home.items())
            filled += [place for place in new if place.key not in known and isinstance(place.value, Tensor)]
            self.sizes = [len(home) for home in self.homes]
        if self.moving is None:
            self.moving = [t for t, copy in zip(tensors, numbers, strict=True) if not torch.equal(t, copy)]

    @contextmanager
    def restored(self) -> Iterator[list[Tensor]]:
        """Whatever happens inside, afterwards every place and every tensor is as before.

        Yields a list that afterwards has the tensors that were changed in place.
        """
        places = [*self.bound, *self.scalars, *self.flowing]
        before = [place.now for place in places]
        flowing = before[len(before) - len(self.flowing) :]
        tensors = [*self.tensors, *(value for value in flowing if isinstance(value, Tensor))]
        numbers = [tensor.detach().clone() for tensor in tensors]
        changed: list[Tensor] = []
        try:
            yield changed
        finally:
            _put_back(places, before)
            changed += _copy_back(tensors, numbers)


def _differ(a: object, b: object) -> bool:
    if isinstance(a, SCALARS) and isinstance(b, SCALARS):
        return a != b
    return a is not b


def _put_back(places: list[Place], values: list[Any]) -> None:
    for place, value in zip(places, values, strict=True):
        if place.now is not value:
            place.home[place.name] = value


@torch.no_grad()
def _copy_back(tensors: list[Tensor], numbers: list[Tensor]) -> list[Tensor]:
    """By value, since some operations change a tensor without counting it as a change; returns those that differed."""
    changed = [(t, copy) for t, copy in zip(tensors, numbers, strict=True) if not torch.equal(t, copy)]
    for tensor, copy in changed:
        tensor.copy_(copy)
    return [tensor for tensor, _ in changed]


def _homes(parts: Iterable[object]) -> Iterator[dict[str, Any]]:
    """The dictionaries of parts and of what these contain, once each."""
    for part in closure(parts, _inside):
        yield vars(part)
        if isinstance(part, nn.Module):
            yield from (part._parameters, part._buffers, part._modules)


def _inside(part: object) -> list[object]:
    held = [*vars(part).values(), *(part._modules.values() if isinstance(part, nn.Module) else ())]
    return [value for value in held if isinstance(value, (ELBO, nn.Module))]
