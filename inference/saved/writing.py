"""From objects to data: modules and what they hold, as a list of parts in the types of JSON."""

from __future__ import annotations

import collections
import math
import types
import weakref
from collections.abc import Callable, Iterable
from enum import Enum
from functools import WRAPPER_ASSIGNMENTS, partial
from pathlib import PurePath
from typing import Any, cast

import numpy as np
import torch
from pyro.nn.module import _Context
from pyro.poutine.messenger import _bound_partial
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from dlvm.inference.saved.names import Unwritable, path_of
from dlvm.inference.saved.objects import REMEDY, constant_of, decorated_of, refuse_class, slots_of, told
from dlvm.inference.saved.tensors import Tensors

Data = Any  # in the types of JSON
PLAIN = (type(None), bool, int, str)
HOOKS = {name for name in vars(nn.Module()) if name.endswith("_hooks") or "_hooks_" in name}
OWN = {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
OWN |= {"_compiled_call_impl"}  # the same numbers, sooner
WEAK = "unconstrained"  # where Pyro notes on a value which parameter it was made of; noted anew when that is read
SEQUENCES: dict[type, str] = {tuple: "tuple", list: "list", torch.Size: "size", collections.deque: "deque"}
SETS: dict[type, str] = {set: "set", frozenset: "frozenset"}
MAPPINGS: dict[type, str] = {dict: "dict", collections.OrderedDict: "ordered"}
KEYS = (*PLAIN, float, Enum, torch.dtype, torch.device, type, types.FunctionType, types.BuiltinFunctionType)


class Writer:
    """Objects as parts, each written once, so that what is shared comes back shared.

    Numbers, text and None stand for themselves, all else for ``{"part": its place in parts}``.
    """

    def __init__(self) -> None:
        self.parts: list[Data] = []
        self.places: list[str] = []  # how one gets to each of them
        self.tensors = Tensors()
        self.seen: dict[int, tuple[object, int]] = {}  # with the object, so that no other takes its id

    def value(self, value: object, file: str, where: str = "") -> Data:
        """An object as data.

        Args:
            value: the object.
            file: which its tensors go to.
            where: how one gets to it from the program, ``.encoder.activation``.

        Raises:
            TypeError: it cannot be written down; the message says where it lies and what to do.
        """
        if type(value) in PLAIN or (type(value) is float and math.isfinite(value)):
            return value
        if id(value) not in self.seen:
            index = len(self.parts)
            self.seen[id(value)] = value, index
            self.parts.append(None)
            self.places.append(f"{file}{where}")
            try:
                self.parts[index] = self._part(value, file, where)
            except Unwritable as error:
                raise TypeError(
                    f"{file} cannot be written down: {file}{where} is {error}; nothing was written"
                ) from error
        return {"part": self.seen[id(value)][1]}

    def _part(self, value: Any, file: str, where: str) -> Data:
        kind = type(value)
        if kind in SEQUENCES:
            return {"kind": SEQUENCES[kind], "items": self._items(value, file, where)}
        if kind in SETS:
            self._refuse_keys(value)
            return {"kind": SETS[kind], "items": self._items(sorted(value, key=_order), file, where)}
        if kind in MAPPINGS:
            return {"kind": MAPPINGS[kind], "items": self._pairs(value, file, where)}
        if kind is collections.defaultdict:
            factory = self.value(value.default_factory, file, f"{where}.default_factory")
            return {"kind": "default", "factory": factory, "items": self._pairs(value, file, where)}
        if isinstance(value, nn.Module):
            return self._module(value, file, where)
        for types_, write in self._kinds():
            if isinstance(value, types_):
                return write(value, file, where)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"kind": "named", "class": path_of(kind), "items": self._items(value, file, where, kind._fields)}
        if (constant := constant_of(value)) is not None:
            return {"kind": "constant", "name": constant}
        return self._object(value, file, where)

    def _kinds(self) -> Iterable[tuple[Any, Callable[[Any, str, str], Data]]]:
        return (
            (Tensor, self._tensor),
            ((np.ndarray, np.generic), self._array),
            (
                (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc),
                lambda v, *_: {"kind": "name", "name": path_of(v)},
            ),
            (types.MethodType, self._method),
            (_bound_partial, self._handled),
            (partial, self._partial),
            (weakref.ref, self._weak),
            (Enum, _member),
            (float, lambda v, *_: {"kind": "float", "text": str(v)} if type(v) is float else _refuse(v)),
            (complex, lambda v, *_: {"kind": "complex", "text": str(v)}),
            (bytes, lambda v, *_: {"kind": "bytes", "hex": v.hex()}),
            ((torch.dtype, torch.layout, torch.memory_format), lambda v, *_: {"kind": "torch", "name": str(v)[6:]}),
            (torch.device, lambda v, *_: {"kind": "device", "name": str(v)}),
            (slice, lambda v, f, w: {"kind": "slice", "items": self._items((v.start, v.stop, v.step), f, w)}),
            (range, lambda v, f, w: {"kind": "range", "items": [v.start, v.stop, v.step]}),
            (PurePath, lambda v, *_: {"kind": "path", "text": str(v)}),
            (type(...), lambda v, *_: {"kind": "ellipsis"}),
            (torch.Generator, lambda v, f, w: {"kind": "generator", "state": self.value(v.get_state(), f, w)}),
            (types.SimpleNamespace, lambda v, f, w: {"kind": "namespace", "held": self._held(vars(v), f, w)}),
        )

    def _items(self, values: Iterable, file: str, where: str, names: tuple[str, ...] = ()) -> list[Data]:
        return [
            self.value(value, file, f"{where}.{names[i]}" if names else f"{where}[{i}]")
            for i, value in enumerate(values)
        ]

    def _pairs(self, values: dict, file: str, where: str) -> list[Data]:
        self._refuse_keys(values)
        return [
            [self.value(key, file, where), self.value(value, file, f"{where}[{key!r}]")]
            for key, value in values.items()
        ]

    def _refuse_keys(self, keys: Iterable) -> None:
        for key in keys:
            self._refuse_keys(key if isinstance(key, tuple | frozenset) else ())
            if not isinstance(key, (*KEYS, tuple, frozenset, Tensor, nn.Module)):
                raise Unwritable(f"keyed by {told(key)}; use text, numbers or tuples of them as keys")

    def _held(self, values: dict[str, Any], file: str, where: str) -> dict[str, Data]:
        return {str(name): self.value(value, file, f"{where}.{name}") for name, value in values.items()}

    def _module(self, module: nn.Module, file: str, where: str) -> Data:
        if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
            raise Unwritable("a compiled module; save the one that was compiled, as module._orig_mod")
        kind, parametrized = type(module), []
        if is_parametrized(module):  # then torch has made a class of its own for it
            kind, parametrized = kind.__bases__[0], list(cast(nn.ModuleDict, module.parametrizations))
        rest = {name: held for name, held in vars(module).items() if name not in OWN | HOOKS}
        rest |= {name: kept for name in HOOKS if (kept := _hooks(vars(module)[name]))}
        return {
            "kind": "module",
            "class": path_of(kind),
            "parametrized": parametrized,
            "training": module.training,
            "parameters": self._held(module._parameters, file, where),
            "buffers": self._held(module._buffers, file, where),
            "passing": sorted(module._non_persistent_buffers_set),
            "modules": self._held(module._modules, file, where),
            "held": self._held(rest, file, where),
        }

    def _object(self, value: Any, file: str, where: str) -> Data:
        kind = type(value)
        refuse_class(kind, value)
        if isinstance(value, _Context) and value.active:
            raise Unwritable("in a program that is running; save it when that has returned")
        slots = {name: getattr(value, name) for name in slots_of(kind) if hasattr(value, name)}
        return {
            "kind": "object",
            "class": path_of(kind),
            "held": self._held(getattr(value, "__dict__", {}), file, where),
            "slots": self._held(slots, file, where),
        }

    def _tensor(self, value: Tensor, file: str, where: str) -> Data:
        facts = self.tensors.facts(value, file, where.removeprefix("."))
        more = {name: held for name, held in vars(value).items() if name != WEAK}
        return {"kind": "tensor", "facts": facts, "held": self._held(more, file, where)}

    def _array(self, value: Any, file: str, where: str) -> Data:
        try:
            numbers = torch.from_numpy(np.array(value))
        except TypeError as error:
            raise Unwritable(f"an array of {value.dtype}; keep numbers, or a list of text") from error
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {"kind": kind, "numbers": self.value(numbers, file, where)}

    def _method(self, value: types.MethodType, file: str, where: str) -> Data:
        name = value.__func__.__name__
        if getattr(type(value.__self__), name, None) is not value.__func__ and not isinstance(value.__self__, type):
            raise Unwritable(
                f"the method {name}, which its class does not have under this name; write a def of a module"
            )
        return {"kind": "method", "name": name, "of": self.value(value.__self__, file, where)}

    def _partial(self, value: partial, file: str, where: str) -> Data:
        return {
            "kind": "partial",
            "function": self.value(value.func, file, f"{where}.func"),
            "arguments": self.value(value.args, file, f"{where}.args"),
            "keywords": self.value(value.keywords, file, f"{where}.keywords"),
            "held": self._noted(value, file, where),
        }

    def _handled(self, value: Any, file: str, where: str) -> Data:
        """What one of Pyro's handlers makes of a program."""
        if (path := decorated_of(value)) is not None:
            return {"kind": "name", "name": path}
        inner = value.func
        return {
            "kind": "handled",
            "items": self._items(inner.args, file, where),
            "held": self._noted(value, file, where),
        }

    def _noted(self, value: Any, file: str, where: str) -> Data:
        """What is noted on a partial, but for what it has from the program that it wraps."""
        held = {name: held for name, held in vars(value).items() if name not in WRAPPER_ASSIGNMENTS}
        return self._held(held, file, where)

    def _weak(self, value: weakref.ref, file: str, where: str) -> Data:
        return {"kind": "weak", "to": None if value() is None else self.value(value(), file, where)}


def _hooks(hooks: dict) -> dict:
    """But for those by which torch reads weights that earlier versions of it have written."""
    inner = {key: getattr(hook, "hook", hook) for key, hook in hooks.items()}
    of_torch = {k for k, hook in inner.items() if getattr(hook, "__module__", "").startswith("torch.nn.utils")}
    return type(hooks)((key, hook) for key, hook in hooks.items() if key not in of_torch or _is_named(inner[key]))


def _is_named(function: object) -> bool:
    return "<locals>" not in getattr(function, "__qualname__", "")


def _member(value: Enum, file: str, where: str) -> Data:
    if value.name not in type(value).__members__:
        raise Unwritable(f"{value!r}, which has no name; keep its number")
    return {"kind": "member", "class": path_of(type(value)), "name": value.name}


def _refuse(value: object) -> Data:
    raise Unwritable(f"{told(value)}; {REMEDY}")


def _order(value: object) -> tuple[str, str]:
    return type(value).__name__, getattr(value, "__qualname__", None) or repr(value)
