"""Programs whose parameters are their own, whatever lies in Pyro's global store under the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import pyro
from pyro import poutine
from pyro.nn import PyroModule
from pyro.params.param_store import StateDict
from torch import Tensor, nn

from dlvm.inference.programs.modules import module_of, modules_of

_STATES: WeakKeyDictionary[nn.Module, StateDict] = WeakKeyDictionary()


def own(program: Callable) -> Callable:
    """A module's program, run so that no parameter is read from or left in Pyro's global store.

    A plain function is returned as it is: what it declares by ``pyro.param`` lives in Pyro's global store, as always
    there. So is a program that is owned already, also inside handlers.
    """
    if not callable(program):
        raise TypeError(
            f"model and guide must be Pyro programs, got {type(program).__name__}; pass a module or a function"
        )
    if isinstance(program, type):
        raise TypeError(f"model and guide must be Pyro programs, got the class {program.__name__}; pass an instance")
    module = module_of(program)
    return program if module is None or _is_owned(program) else _Owned(program, module)


def _is_owned(program: Callable) -> bool:
    while not isinstance(program, _Owned) and hasattr(program, "__wrapped__"):
        program = program.__wrapped__
    return isinstance(program, _Owned)


class _Owned:
    """A program that wraps the given one, as handlers do."""

    def __init__(self, program: Callable, module: nn.Module):
        self.__wrapped__, self.module = program, module
        self.state = _STATES.setdefault(module, empty_store())
        for part in module.modules():
            # A context made outside local mode lacks the state that Pyro expects of it inside.
            if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
                part._pyro_context.param_state = empty_store()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with pyro.get_param_store().scope(self.state), pyro.settings.context(module_local_params=True):
                return self.__wrapped__(*args, **kwargs)
        except NotImplementedError as error:
            if "pyro.param" not in str(error):
                raise
            raise ValueError(
                f"{type(self.module).__name__} is a PyroModule, in whose run parameters are declared by pyro.param, by "
                "itself or by what it calls; Pyro does not keep these with a module: write a PyroModule with "
                "self.loc = PyroParam(torch.zeros(2)) instead"
            ) from error


def empty_store() -> StateDict:
    """A store without parameters, for ``scoped``."""
    return {"params": {}, "constraints": {}}


@contextmanager
def scoped(store: StateDict) -> Iterator[None]:
    """Inside, Pyro's store is this one; afterwards ``store`` holds in place what it has become."""
    params, constraints = store["params"], store["constraints"]
    with pyro.get_param_store().scope({"params": dict(params), "constraints": dict(constraints)}) as after:
        yield
    params.clear()
    params.update(after["params"])
    constraints.clear()
    constraints.update(after["constraints"])


def declared(module: nn.Module) -> dict[str, Tensor]:
    """What a module has declared by ``pyro.param`` when it ran, unconstrained, and does not hold itself."""
    kept = _STATES.get(module, empty_store())["params"]
    held = {id(parameter) for parameter in module.parameters()}
    return {name: value for name, value in kept.items() if id(value) not in held}


def trainable(parts: Iterable[Callable], traces: Iterable[poutine.Trace] = ()) -> list[Tensor]:
    """Every parameter that requires a gradient, once each: those of modules, and those declared at sites of the traces.

    Raises:
        ValueError: there is none.
    """
    found: list[Tensor] = [p for module in modules_of(*parts) for p in module.parameters()]
    sites: list[Any] = [site["value"] for trace in traces for site in trace.nodes.values() if site["type"] == "param"]
    found += [value.unconstrained() if hasattr(value, "unconstrained") else value for value in sites]
    parameters = list({id(p): p for p in found if p.requires_grad}.values())
    if not parameters:
        raise ValueError(
            "neither model nor guide has a parameter that requires a gradient, so nothing would be trained; "
            "make them nn.Modules with parameters, or declare these with pyro.param"
        )
    return parameters
