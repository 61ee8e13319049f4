"""Classes, functions and constants by the path to import them from, and which of them a folder may name."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
from pyro.nn import PyroModule, PyroSample
from pyro.poutine.messenger import _bound_partial
from torch import nn

MIXIN = re.compile(r"PyroModule\[(.*)\]")
PRIOR = "_pyro_prior_"  # before the name of a function that a PyroSample was made of
LIBRARY = frozenset(sys.stdlib_module_names) | {"builtins"}
NAMED = (type, FunctionType, BuiltinFunctionType, np.ufunc, _bound_partial)
OF_BUILTINS = {"abs", "bool", "complex", "dict", "float", "frozenset", "int", "len", "list", "max", "min", "set", "str"}
OF_BUILTINS |= {"sum", "tuple"}
OPEN = {"argparse", "builtins", "collections", "math"}  # of which some may be named
OF_LIBRARY = {"argparse:Namespace", "collections:OrderedDict"}
PARTS = {  # of packages that can also read files, compile or run what they are given
    "torch": ("torch.nn", "torch.distributions", "torch._C._nn", "torch.functional", "torch.special", "torch.linalg"),
    "pyro": (
        "pyro.distributions",
        "pyro.infer",
        "pyro.nn",
        "pyro.ops",
        "pyro.poutine",
        "pyro.contrib",
        "pyro.primitives",
    ),
    "numpy": (),
}
MOVED = "say where each is by names={path: class or function}"


class Unwritable(TypeError):
    """What cannot be written down, or not be found again by a path, and what to do about it."""


def path_of(value: Any) -> str:
    """``module:qualified.name`` of a class or a function, from which ``Names.named`` gets it back.

    Raises:
        Unwritable: there is no such path, or a folder may not name it.

    Example:
        >>> path_of(nn.Linear), path_of(PyroModule[nn.Linear])
        ('torch.nn.modules.linear:Linear', 'PyroModule[torch.nn.modules.linear:Linear]')
    """
    if isinstance(value, type) and (mixed := _mixed(value)) is not None:
        return f"PyroModule[{path_of(mixed)}]"
    inside, name = getattr(value, "__module__", None) or "builtins", getattr(value, "__qualname__", value.__name__)
    homes = (
        (inside, name.replace(PRIOR, "")),
        (inside, name),
        (inside, value.__name__),
        ("torch", value.__name__),
        ("numpy", value.__name__),
    )
    for module, found in homes:
        path = f"{run_as(module)}:{found}"
        with suppress(ValueError):
            if _allowed(path, value) and look(path) is value:
                return path
    what = "a lambda" if "<lambda>" in name else f"{'class' if isinstance(value, type) else 'function'} {name}"
    if "<lambda>" in name or "<locals>" in name:
        where = "" if "<lambda>" in name else ", which lies inside a function"
        raise Unwritable(f"{what}{where}; write it as a class or a def at the top of a module that can be imported")
    root = inside.partition(".")[0]
    if root in LIBRARY or root in PARTS:
        raise Unwritable(f"{what} of {inside}, which no folder may name; call it from a def of your own")
    raise Unwritable(f"{what}, which {inside} does not have under this name; give it the name that it is found by")


class Names:
    """What paths stand for in this process.

    Args:
        given: {path: class or function} of those that have moved, or that lay in a script.
    """

    def __init__(self, given: Mapping[str, Any] | None = None):
        if not isinstance(given or {}, Mapping):
            raise TypeError(f"names must be a dict of classes by path, got {given!r}; write {{'__main__:VAE': VAE}}")
        self.given = dict(given or {})

    def named(self, path: str) -> Any:
        """A class or a function.

        Raises:
            ValueError: it is not there any more, or a folder may not name it.
        """
        if path in self.given:
            return self.given[path]
        if mixed := MIXIN.fullmatch(path):
            return PyroModule[self.class_of(mixed[1], nn.Module)]
        found = look(path)
        if found is None:
            raise ValueError(f"it needs {path}, which {_where(path)}; {MOVED}")
        if not isinstance(found, NAMED) or not _allowed(path, found):
            raise ValueError(f"it names {path}, which no folder may; it was not written by dlvm.inference.save")
        return found

    def class_of(self, path: str, base: type = object) -> type:
        """A class, and none but of a base.

        Raises:
            ValueError: as ``named``; it is something else.
        """
        found = self.named(path)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(f"it needs a {base.__name__} at {path}, and there is {found!r}; {MOVED}")
        return found

    def global_of(self, path: str) -> nn.Module:
        """A module that functions know by its name.

        Raises:
            ValueError: it is not there any more.
        """
        module, _, name = path.partition(":")
        found = self.given.get(path) or _imported(module).get(name)
        if not isinstance(found, nn.Module):
            raise ValueError(f"it needs the module {path}, which {_where(path)}; {MOVED}")
        return found

    def constant(self, path: str) -> object:
        """An object that a module has as a constant.

        Raises:
            ValueError: it is not there any more, or it is of a class that a folder may not name.
        """
        if path in self.given:
            return self.given[path]
        module, _, name = path.partition(":")
        found = _imported(module).get(name)
        if found is None or isinstance(found, type | ModuleType) or callable(found):
            raise ValueError(f"it needs {path}, which {_where(path)}; {MOVED}")
        path_of(type(found))
        return found


def _mixed(cls: type) -> type | None:
    """What a class of Pyro's making, ``PyroModule[cls]``, was made of."""
    base = cls.__bases__[0]
    made = issubclass(cls, PyroModule) and "<locals>" in cls.__qualname__ and issubclass(base, nn.Module)
    return base if made and PyroModule[base] is cls else None


def run_as(module: str) -> str:
    """The name by which a script that runs as ``python -m name`` can be imported."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if module == "__main__" and spec is not None else module


def _imported(module: str) -> dict[str, Any]:
    """What a module has, once it is imported; nothing where it may not be.

    Raises:
        ValueError: it cannot be imported.
    """
    if module in ("__main__", run_as("__main__")):
        return vars(sys.modules["__main__"])
    if module.partition(".")[0] in LIBRARY and module not in OPEN:
        return {}
    try:
        return vars(importlib.import_module(module))
    except Exception as error:
        raise ValueError(
            f"it needs the module {module!r}, which cannot be imported here ({type(error).__name__}: {error}); "
            f"PYTHONPATH tells Python where to look, or {MOVED}"
        ) from error


def _allowed(path: str, value: Any) -> bool:
    """Whether a folder may name this: nothing of the standard library but what is harmless, and of torch its maths."""
    module, _, name = path.partition(":")
    root, home = module.partition(".")[0], getattr(value, "__module__", None) or "builtins"
    if module == "builtins":
        return name in OF_BUILTINS
    if root in LIBRARY - {"__main__"}:
        return root == "math" or path in OF_LIBRARY
    if module == "torch":
        return isinstance(value, BuiltinFunctionType) and value.__name__ == name
    if root == "numpy":
        return isinstance(value, np.ufunc)
    if root in PARTS:
        return any(f"{module}.".startswith(f"{part}.") for part in PARTS[root])
    return run_as(home) == module  # and none that it has imported from elsewhere


def look(path: str) -> Any:
    """What lies at a path, found in modules and classes alone; None if it is not there."""
    module, _, names = path.partition(":")
    found, held = None, _imported(module)
    for i, name in enumerate(names.split(".")):
        if i and not isinstance(found, type):
            return None
        found = (vars(found) if isinstance(found, type) else held).get(name)
        found = found.__func__ if i and isinstance(found, staticmethod) else found
        found = found.prior if isinstance(found, PyroSample) else found
    return found


def _where(path: str) -> str:
    lost = "lay in a script or a notebook, and is not in this one"
    return lost if path.startswith("__main__:") else "is not there any more"
