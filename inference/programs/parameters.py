"""Programs whose parameters are their own, whatever lies in Pyro's global store under the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.inference.programs.modules import module_of, modules_of

_STATES: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


def own(program: Callable) -> Callable:
    """A module's program, run so that no parameter is read from or left in Pyro's global store.

    A plain function is returned as it is: what it declares by ``pyro.param`` lives in Pyro's global store, as always
    there.
    """
    if not callable(program):
        raise TypeError(
            f"model and guide must be Pyro programs, got {type(program).__name__}; pass a module or a function"
        )
    if isinstance(program, type):
        raise TypeError(f"model and guide must be Pyro programs, got the class {program.__name__}; pass an instance")
    module = module_of(program)
    return program if module is None else _Owned(program, module)


class _Owned:
    def __init__(self, program: Callable, module: nn.Module):
        self.program, self.module = program, module
        self.state = _STATES.setdefault(module, empty_store())
        for part in module.modules():
            # A context made outside local mode lacks the state that Pyro expects of it inside.
            if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
                part._pyro_context.param_state = empty_store()

    def __call__(self, *args, **kwargs):
        try:
            with pyro.get_param_store().scope(self.state), pyro.settings.context(module_local_params=True):
                return self.program(*args, **kwargs)
        except NotImplementedError as error:
            if "pyro.param" not in str(error):
                raise
            raise ValueError(
                f"{type(self.module).__name__} is a PyroModule, in whose run parameters are declared by pyro.param, by "
                "itself or by what it calls; Pyro does not keep these with a module: write a PyroModule with "
                "self.loc = PyroParam(torch.zeros(2)) instead"
            ) from error


def declared(module: nn.Module) -> dict[str, Tensor]:
    """What a module has declared by ``pyro.param`` when it ran, unconstrained, and does not hold itself."""
    kept = _STATES.get(module, empty_store())["params"]
    held = {id(parameter) for parameter in module.parameters()}
    return {name: value for name, value in kept.items() if id(value) not in held}


@contextmanager
def scoped(store: dict) -> Iterator[None]:
    """Inside, Pyro's store is this one; afterwards ``store`` holds in place what it has become."""
    with pyro.get_param_store().scope({key: dict(kept) for key, kept in store.items()}) as after:
        yield
    for key, kept in store.items():
        kept.clear()
        kept.update(after[key])


def trainable(parts: Iterable[Callable], traces: Iterable[poutine.Trace] = ()) -> list[Tensor]:
    """Every parameter that requires a gradient, once each: those of modules, and those declared at sites of the traces.

    Raises:
        ValueError: there is none.
    """
    found = [p for module in modules_of(*parts) for p in module.parameters()]
    declared = [site["value"] for trace in traces for site in trace.nodes.values() if site["type"] == "param"]
    found += [value.unconstrained() if hasattr(value, "unconstrained") else value for value in declared]
    parameters = list({id(p): p for p in found if p.requires_grad}.values())
    if not parameters:
        raise ValueError(
            "neither model nor guide has a parameter that requires a gradient, so nothing would be trained; "
            "make them nn.Modules with parameters, or declare these with pyro.param"
        )
    return parameters


def empty_store() -> dict:
    """A store without parameters, for ``scoped``."""
    return {"params": {}, "constraints": {}}


class Snapshot:
    """Two programs as they were at the last ``take``: states of modules, and Pyro's store where one is a function."""

    def __init__(self, model: Callable, guide: Callable):
        self.modules = modules_of(model, guide)
        self.functions = len(self.modules) < 2
        self.take()

    def take(self) -> None:
        self.states = [_copied(module.state_dict()) for module in self.modules]
        self.declared = [_copied(declared(module)) for module in self.modules]
        if self.functions:
            self.store = _copied(dict(pyro.get_param_store().named_parameters()))

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What was taken, by program, to be written down or replaced."""
        taken = {f"program{i}": state for i, state in enumerate(self.states)}
        taken |= {f"declared{i}": state for i, state in enumerate(self.declared)}
        return taken | ({"store": self.store} if self.functions else {})

    @torch.no_grad()
    def put_back(self) -> None:
        for module, state, others in zip(self.modules, self.states, self.declared, strict=True):
            module.load_state_dict(state)
            put_back(declared(module), others)
        if self.functions:
            put_back(dict(pyro.get_param_store().named_parameters()), self.store)


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def put_back(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into the parameters of the same names."""
    for name in parameters.keys() & values.keys():
        parameters[name].copy_(values[name])
