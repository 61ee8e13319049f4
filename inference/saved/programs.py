"""What programs train beside the modules that they are: Pyro's stores, and modules that functions know by name."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro.nn import PyroModule
from pyro.params.param_store import StateDict
from pyro.poutine.messenger import _bound_partial
from torch import Tensor, nn

from dlvm.inference.programs.errors import explaining
from dlvm.inference.programs.modules import closure, owner_of, unwrapped
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import kept_of, store_of
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.saved.names import LIBRARY, PARTS, Names
from dlvm.inference.saved.reading import Reader
from dlvm.inference.saved.writing import Data, Writer

STORE = ("params", "constraints")
OF_MODULES = "$$$"  # in Pyro's names of parameters that pyro.module has declared


class Run(NamedTuple):
    """What a run of a pair on a batch shows: log q and log p of what it draws under a seed, and parameters by name."""

    densities: tuple[str, ...] = ()
    parameters: frozenset[str] | None = None


def run(pair: Pair, batch: tuple) -> Run:
    """One run, if there is a batch; randomness goes on as if there had been none."""
    if not batch:
        return Run()
    with explaining(pair, batch, {}), untouched(seed=0), torch.no_grad(), pair.evaluating():
        traces = pair.traces(batch, {})
        densities = tuple(float(trace.log_prob_sum()).hex() for trace in traces)
    sites = [(name, site["type"]) for trace in traces for name, site in trace.nodes.items()]
    return Run(densities, frozenset(name for name, kind in sites if kind == "param"))


def written(writer: Writer, pair: Pair, model: Callable, guide: Callable, seen: Run) -> Data:
    """A pair as data: both programs, what they have declared, and the modules that their functions know by name.

    Raises:
        TypeError: something cannot be written down; the message says where it lies and what to do.
    """
    data: dict[str, Data] = {
        word: writer.value(program, word) for word, program in (("model", model), ("guide", guide))
    }
    known = modules_by_name([value for value, _ in writer.seen.values()])
    for path, module in known.items():
        if any(id(part) in writer.seen for part in module.modules()):
            raise TypeError(
                f"the module {path} is both held by the pair and used by its name, and would come back as two; pass "
                "it to what uses it, or use it by its name alone; nothing was written"
            )
    data["globals"] = {path: writer.value(module, "guide", f".{path}") for path, module in known.items()}
    owners = [(index, state) for value, index in writer.seen.values() if (state := kept_of(value))]
    data["declared"] = [
        {"owner": {"part": index}, "store": _store(writer, state, f".declared{i}")}
        for i, (index, state) in enumerate(owners)
    ]
    if pair.shows:
        data["store"] = _store(writer, _shown(writer, seen), ".store")
    return data


def _shown(writer: Writer, seen: Run) -> dict[str, Any]:
    """What the pair has in Pyro's global store, but for what modules hold themselves."""
    state = pyro.get_param_store().get_state()
    names = state["params"] if seen.parameters is None else seen.parameters
    found = {name: p for name, p in state["params"].items() if name in names and id(p) not in writer.seen}
    if lost := sorted({name.split(OF_MODULES)[0] for name in found if OF_MODULES in name}):
        raise TypeError(
            f"Pyro's store holds parameters of the module {lost[0]!r}, and neither program was seen to hold it: pass "
            "it to the program, or make it a global of its module; where it is another model's, call "
            "save(folder, model, guide, *batch), so that a run tells what is used; nothing was written"
        )
    return {"params": found, "constraints": {name: state["constraints"][name] for name in found}}


def _store(writer: Writer, state: Mapping[str, Any], where: str) -> Data:
    return {word: writer.value(dict(state[word]), "guide", where) for word in STORE}


class Read(NamedTuple):
    """A pair that was read, what it needs in Pyro's global store, and modules for where functions look for them."""

    model: Callable
    guide: Callable
    store: StateDict
    modules: dict[str, nn.Module]

    def put(self, names: Names) -> None:
        """Puts parameters and modules where functions look for them.

        Raises:
            ValueError: Pyro's store holds others under the same names, or a name stands for another module by now.
        """
        for owner in map(owner_of, (self.model, self.guide)):
            _refuse_taken(owner.modules() if isinstance(owner, nn.Module) else ())
        for path, module in self.modules.items():
            _put(path, names.global_of(path), module)
        _show(self.store)


def read(reader: Reader, data: Data) -> Read:
    """The pair that ``written`` made data of; nothing outside it has changed."""
    model, guide = reader.value(data["model"]), reader.value(data["guide"])
    for entry in data["declared"]:
        store_of(reader.value(entry["owner"])).set_state(_state(reader, entry["store"]))
    modules = {path: reader.value(module) for path, module in data["globals"].items()}
    return Read(model, guide, _state(reader, data.get("store", {})), modules)


def _state(reader: Reader, data: Data) -> StateDict:
    params, constraints = (reader.value(data[word]) if data else {} for word in STORE)
    return {"params": params, "constraints": constraints}


def _show(state: StateDict) -> None:
    """Puts parameters into Pyro's global store, where functions look for theirs."""
    store = pyro.get_param_store()
    for name, value in state["params"].items():
        if name in store and not _equal(store._params[name], value):
            raise ValueError(
                f"Pyro's global store holds another parameter {name!r}, and functions take theirs from there; save "
                "what is to be kept, call pyro.clear_param_store() and load again"
            )
    new = {name: value for name, value in state["params"].items() if name not in store}
    store.set_state({"params": new, "constraints": {name: state["constraints"][name] for name in new}})


def _refuse_taken(parts: Iterable[nn.Module]) -> None:
    """Raises ValueError where Pyro, in a run outside of dlvm, would put another's value into a parameter."""
    store = pyro.get_param_store()
    for part in parts:
        for name in part._pyro_params if isinstance(part, PyroModule) else ():
            full, here = f"{part._pyro_name}.{name}".lstrip("."), part._parameters[f"{name}_unconstrained"]
            if full in store and here is not None and not _equal(store._params[full], here):
                raise ValueError(
                    f"Pyro's global store holds another parameter {full!r}, which Pyro would put into the module "
                    "that is loaded when that runs; call pyro.clear_param_store() and load again"
                )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.detach().cpu(), b.detach().cpu())


def _put(path: str, here: nn.Module, module: nn.Module) -> None:
    """A module's state into the one that a function of this process knows by its name."""
    if type(here) is not type(module) or [*here.state_dict()] != [*module.state_dict()]:
        raise ValueError(
            f"it needs the {type(module).__name__} that lay at {path}, and the {type(here).__name__} there is another "
            "by now; bring back what was there"
        )
    here.load_state_dict(module.state_dict())
    for ours, theirs in zip(here.modules(), module.modules(), strict=True):
        ours.training = theirs.training
    for p, q in zip(here.parameters(), module.parameters(), strict=True):
        p.requires_grad_(q.requires_grad)


def modules_by_name(values: Iterable[object]) -> dict[str, nn.Module]:
    """{path: module} of the globals that functions use, those that these call, and the methods of classes."""
    found: dict[str, nn.Module] = {}
    for function in closure([f for value in values for f in _functions(value)], _called):
        for name, value in _globals(function):
            if isinstance(value, nn.Module):
                found[f"{function.__module__}:{name}"] = value
    return found


def _functions(value: object) -> Iterator[types.FunctionType]:
    """A function; of an object, what its class and those above it are written of."""
    value = unwrapped(value) if isinstance(value, _bound_partial) else value
    if isinstance(value, types.FunctionType):
        yield value
    else:
        for cls in type(value).__mro__:
            if _is_users(cls):
                yield from (f for f in vars(cls).values() if isinstance(f, types.FunctionType))


def _is_users(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] not in {*LIBRARY, *PARTS, "dlvm"} - {"__main__"}


def _called(function: Any) -> list[object]:
    return [value for _, value in _globals(function) if isinstance(value, types.FunctionType)]


def _globals(function: Any) -> list[tuple[str, Any]]:
    """Names and values of what a user's function takes from its module."""
    if not _is_users(function):
        return []
    codes = [code for code in closure([function.__code__], _inside) if isinstance(code, types.CodeType)]
    names = {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return [(name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__]


def _inside(code: object) -> tuple:
    """The functions, comprehensions and classes that a function is written with, among other constants."""
    return code.co_consts if isinstance(code, types.CodeType) else ()
