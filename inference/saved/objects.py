"""Objects that a module has under a name, and those that are what their attributes hold."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import MemberDescriptorType, ModuleType
from typing import Any

from torch.distributions import constraints

from dlvm.inference.saved.names import LIBRARY, OF_LIBRARY, PARTS, Unwritable, look, run_as

STATES = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
REMEDY = "keep numbers, text, tensors, modules, or objects of a class of your own that holds such"


def decorated_of(value: Any) -> str | None:
    """``module:name`` of a program that a handler of Pyro's decorates where it is written."""
    inside, name = getattr(value, "__module__", "") or "", getattr(value, "__qualname__", "")
    if inside.partition(".")[0] not in LIBRARY - {"__main__"}:
        with suppress(ValueError):
            return path if look(path := f"{run_as(inside)}:{name}") is value else None
    return None


def constant_of(value: object) -> str | None:
    """``module:name`` of an object that the module of its class has as a constant, or torch or Pyro as a constraint."""
    inside = type(value).__module__
    homes = [inside, "torch.distributions.constraints", "pyro.distributions.constraints"]
    for home in homes if isinstance(value, constraints.Constraint) else homes[:1]:
        if home.partition(".")[0] not in LIBRARY and home in sys.modules:
            for name, found in vars(sys.modules[home]).items():
                if found is value:
                    return f"{run_as(home)}:{name}"
    return None


def refuse_class(kind: type, value: object) -> None:
    """Raises Unwritable where an object is more than what its attributes hold, or does something when it goes.

    A file, a lock, a generator, a process for example; and what has a state that only its own methods know.
    """
    root, maker = kind.__module__.partition(".")[0], getattr(kind, "__new__", None)
    foreign = root in LIBRARY - {"__main__"} and f"{kind.__module__}:{kind.__qualname__}" not in OF_LIBRARY
    if foreign or maker is not object.__new__ or hasattr(kind, "__del__") or isinstance(value, ModuleType):
        raise Unwritable(f"{told(value)}; {REMEDY}")
    theirs = [vars(cls) for cls in kind.__mro__[:-1] if cls.__module__.partition(".")[0] not in PARTS]
    methods = [found[name] for found in theirs for name in STATES if name in found]
    if any(getattr(method, "__module__", None) != "dataclasses" for method in methods):
        raise Unwritable(f"{told(value)}, which has a state of its own making; {REMEDY}")


def slots_of(kind: type) -> list[str]:
    """Names of what objects of a class hold in slots."""
    held = [name for cls in kind.__mro__ for name, found in vars(cls).items() if type(found) is MemberDescriptorType]
    return [name for name in held if name not in ("__dict__", "__weakref__")]


def told(value: object) -> str:
    """What an object is, in words."""
    kind = type(value)
    return f"an object of the class {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
