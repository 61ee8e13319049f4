"""From data to objects: classes are found by their paths and filled; no constructor and no function is called."""

from __future__ import annotations

import collections
import types
import weakref
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

import torch
from pyro.poutine.messenger import _bound_partial, _context_wrap
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dlvm.inference.saved.names import Names
from dlvm.inference.saved.objects import refuse_class, slots_of
from dlvm.inference.saved.tensors import Unpacked
from dlvm.inference.saved.writing import Data

Held = Mapping[str, Data]
KINDS = {
    *("list", "deque", "set", "dict", "ordered", "default", "module", "object", "tuple", "size", "frozenset", "named"),
    *("tensor", "array", "scalar", "name", "constant", "member", "method", "partial", "handled", "weak", "float"),
    *("complex", "bytes", "torch", "device", "slice", "range", "path", "ellipsis", "generator", "namespace"),
}


class Reader:
    """What ``Writer`` wrote, as objects.

    Args:
        parts: of the writer.
        files: its tensors.
        names: what paths stand for.
    """

    def __init__(self, parts: list[Data], files: Mapping[str, Mapping[str, Tensor]], names: Names):
        self.parts, self.tensors, self.names = parts, Unpacked(files), names
        self.made: dict[int, Any] = {}
        self.begun: set[int] = set()

    def value(self, data: Data) -> Any:
        """The object that data stand for.

        Raises:
            ValueError, KeyError, TypeError, ...: they were not written by ``Writer``, or name what is not there.
        """
        if not isinstance(data, dict):
            return data
        index = data["part"]
        if index not in self.made:
            if index in self.begun:
                raise ValueError(f"part {index} contains itself")
            self.begun.add(index)
            part = self.parts[index]
            if part["kind"] not in KINDS:
                raise ValueError(f"{part['kind']!r} is no kind of part")
            made = getattr(self, "_" + part["kind"])(index, part)
            self.made.setdefault(index, made)
        return self.made[index]

    def _items(self, part: Held) -> list:
        return [self.value(item) for item in part["items"]]

    def _held(self, held: Held) -> dict[str, Any]:
        return {name: self.value(value) for name, value in held.items()}

    # Containers: first made, so that what they hold may refer to them, then filled

    def _list(self, index: int, part: Held) -> list:
        made: list = self.made.setdefault(index, [])
        made.extend(self._items(part))
        return made

    def _deque(self, index: int, part: Held) -> collections.deque:
        made: collections.deque = self.made.setdefault(index, collections.deque())
        made.extend(self._items(part))
        return made

    def _set(self, index: int, part: Held) -> set:
        made: set = self.made.setdefault(index, set())
        made.update(self._items(part))
        return made

    def _dict(self, index: int, part: Held) -> dict:
        return self._filled(self.made.setdefault(index, {}), part)

    def _ordered(self, index: int, part: Held) -> dict:
        return self._filled(self.made.setdefault(index, collections.OrderedDict()), part)

    def _default(self, index: int, part: Held) -> dict:
        return self._filled(self.made.setdefault(index, collections.defaultdict(self.value(part["factory"]))), part)

    def _filled(self, made: dict, part: Held) -> dict:
        for key, value in part["items"]:
            made[self.value(key)] = self.value(value)
        return made

    def _module(self, index: int, part: Held) -> nn.Module:
        made: nn.Module = object.__new__(self.names.class_of(part["class"], nn.Module))
        self.made[index] = made
        state = vars(made)
        state.update(vars(nn.Module()))  # what this version of torch expects of any module
        if part["parametrized"]:
            parametrize._inject_new_class(made)
        for name in part["parametrized"]:
            parametrize._inject_property(made, name)
        state["training"] = part["training"]
        state["_parameters"].update(self._held(part["parameters"]))
        state["_buffers"].update(self._held(part["buffers"]))
        state["_non_persistent_buffers_set"].update(part["passing"])
        state["_modules"].update(self._held(part["modules"]))
        state.update(self._held(part["held"]))
        return made

    def _object(self, index: int, part: Held) -> object:
        kind = self.names.class_of(part["class"])
        made: object = object.__new__(kind)
        refuse_class(kind, made)
        self.made[index] = made
        if part["held"]:
            vars(made).update(self._held(part["held"]))
        for name, value in part["slots"].items():
            if name not in slots_of(kind):
                raise ValueError(f"{part['class']} has no slot {name!r}")
            object.__setattr__(made, name, self.value(value))
        return made

    # What cannot be changed once it is made

    def _tuple(self, index: int, part: Held) -> tuple:
        return tuple(self._items(part))

    def _size(self, index: int, part: Held) -> torch.Size:
        return torch.Size(self._items(part))

    def _frozenset(self, index: int, part: Held) -> frozenset:
        return frozenset(self._items(part))

    def _named(self, index: int, part: Held) -> tuple:
        return tuple.__new__(self.names.class_of(part["class"], tuple), self._items(part))

    def _tensor(self, index: int, part: Held) -> Tensor:
        made = self.made.setdefault(index, self.tensors.tensor(part["facts"]))
        vars(made).update(self._held(part["held"]))
        return made

    def _array(self, index: int, part: Held) -> Any:
        return self.value(part["numbers"]).numpy()

    def _scalar(self, index: int, part: Held) -> Any:
        return self.value(part["numbers"]).numpy()[()]

    def _name(self, index: int, part: Held) -> Any:
        return self.names.named(part["name"])

    def _constant(self, index: int, part: Held) -> object:
        return self.names.constant(part["name"])

    def _member(self, index: int, part: Held) -> Enum:
        members: Mapping[str, Enum] = vars(self.names.class_of(part["class"], Enum))["_member_map_"]
        return members[part["name"]]

    def _method(self, index: int, part: Held) -> Callable:
        owner, name = self.value(part["of"]), part["name"]
        cls = owner if isinstance(owner, type) else type(owner)
        found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        function = found.__func__ if isinstance(owner, type) and isinstance(found, classmethod) else found
        if not isinstance(function, types.FunctionType):
            raise ValueError(f"{cls.__qualname__} has no method {name!r}")
        return types.MethodType(function, owner)

    def _partial(self, index: int, part: Held) -> partial:
        made = partial(self.value(part["function"]), *self.value(part["arguments"]), **self.value(part["keywords"]))
        return self._noted(made, part)

    def _handled(self, index: int, part: Held) -> Callable:
        messenger, program = self._items(part)
        return self._noted(_bound_partial(partial(_context_wrap, messenger, program)), part)

    def _noted(self, made: partial, part: Held) -> partial:
        held = self._held(part["held"])
        if "__wrapped__" in held:
            update_wrapper(made, held["__wrapped__"], updated=())
        vars(made).update(held)
        return made

    def _weak(self, index: int, part: Held) -> Any:
        return weakref.ref(set() if part["to"] is None else self.value(part["to"]))  # a set that is gone at once

    def _float(self, index: int, part: Held) -> float:
        return float(part["text"])

    def _complex(self, index: int, part: Held) -> complex:
        return complex(part["text"])

    def _bytes(self, index: int, part: Held) -> bytes:
        return bytes.fromhex(part["hex"])

    def _torch(self, index: int, part: Held) -> Any:
        found = getattr(torch, part["name"])
        if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
            raise ValueError(f"{part['name']!r} is no type of tensors")
        return found

    def _device(self, index: int, part: Held) -> torch.device:
        return torch.device(part["name"])

    def _slice(self, index: int, part: Held) -> slice:
        return slice(*self._items(part))

    def _range(self, index: int, part: Held) -> range:
        return range(*part["items"])

    def _path(self, index: int, part: Held) -> Path:
        return Path(part["text"])

    def _ellipsis(self, index: int, part: Held) -> Any:
        return ...

    def _generator(self, index: int, part: Held) -> torch.Generator:
        made = torch.Generator()
        made.set_state(self.value(part["state"]))
        return made

    def _namespace(self, index: int, part: Held) -> types.SimpleNamespace:
        made = self.made.setdefault(index, types.SimpleNamespace())
        vars(made).update(self._held(part["held"]))
        return made
