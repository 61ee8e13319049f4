"""Programs whose parameters are their own, whatever lies in Pyro's global store under the same names."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import pyro
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide
from pyro.nn import PyroModule
from pyro.params.param_store import ParamStoreDict, StateDict
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.inference.programs.modules import GradientsWhereNeeded, inner_of, owner_of, reached, unwrapped, within

_STORES: dict[int, ParamStoreDict] = {}


def own(program: Callable) -> Callable:
    """A program that trains what it computes with, whatever Pyro's global store holds.

    A module's program reads no parameter from that store and leaves none in it. What a method declares belongs to its
    object, so that no other object's method meets it; the global store shows what the last of them has run with. What
    a plain function declares by ``pyro.param`` lives in that store, as always there, but a module that it registers by
    ``pyro.module`` is trained itself, also where the store holds another one's parameters under that name.

    What is owned already is returned as it is, also inside handlers.
    """
    if not callable(program):
        raise TypeError(
            f"model and guide must be Pyro programs, got {type(program).__name__}; pass a module or a function"
        )
    if isinstance(program, type):
        raise TypeError(f"model and guide must be Pyro programs, got the class {program.__name__}; pass an instance")
    return program if _is_owned(program) else _Owned(program)


def _is_owned(program: Callable) -> bool:
    inner: Callable | None = program
    while inner is not None and not isinstance(inner, _Owned):
        inner = inner_of(inner)
    return inner is not None


class _Owned:
    """A program that wraps the given one, as handlers do."""

    def __init__(self, program: Callable):
        self.__wrapped__ = self.owned_program = program
        self.owner = owner_of(program)
        self.shows = not isinstance(unwrapped(program), nn.Module)
        self.guides = [] if self.owner is None else _localised(program)
        self.runs_model = isinstance(unwrapped(program), GuideMessenger)
        self.gradients = GradientsWhereNeeded()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = self.gradients.run
        if self.runs_model:  # what the model observes inside its guide is none of the guide's density
            with poutine.block(hide_fn=lambda msg: msg["type"] == "sample" and msg["is_observed"]):
                return run(partial(self._run, args, kwargs))
        return run(partial(self._run, args, kwargs))

    def _run(self, args: tuple, kwargs: dict) -> Any:
        store = pyro.get_param_store()
        if self.owner is None:
            with _Declaring(store, store):
                return self.__wrapped__(*args, **kwargs)
        outer = ParamStoreDict()
        outer.set_state(store.get_state())
        declarer = _declarer(self.owner)
        kept = outer if declarer is None else store_of(declarer)
        local, declaring = pyro.settings.context(module_local_params=True), _Declaring(kept, outer)
        with store.scope(kept.get_state()), local, declaring, _declaring_inside(self.guides, _Declaring(kept, outer)):
            found = self.__wrapped__(*args, **kwargs)
        if kept is outer or self.shows:
            store.set_state(kept.get_state())
        return found


def store_of(owner: object) -> ParamStoreDict:
    """What programs of a module or an object have declared, for as long as it lives."""
    if id(owner) not in _STORES:
        weakref.finalize(owner, _STORES.pop, id(owner), None).atexit = False
        _STORES[id(owner)] = ParamStoreDict()
    return _STORES[id(owner)]


def kept_of(owner: object) -> StateDict | None:
    """What ``store_of`` has for an owner, parameters and constraints by name; None where nothing was declared."""
    store = _STORES.get(id(owner))
    return None if store is None or not len(store) else store.get_state()


def _declarer(owner: object) -> object | None:
    """Whose ``pyro.param`` runs in programs of an owner: Pyro's own guides run their model's, maybe a function's."""
    while isinstance(owner, AutoGuide | GuideMessenger):
        owner = owner_of(owner.model)
    return owner


def _localised(program: Callable) -> list[AutoGuide | EasyGuide | GuideMessenger]:
    """Lets modules made elsewhere have parameters of their own in a run; returns guides that run a model in theirs."""
    modules: list[nn.Module] = reached(program)
    guides: list[AutoGuide | EasyGuide | GuideMessenger] = []
    for module in modules:
        for part in module.modules():
            if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
                part._pyro_context.param_state = empty_store()  # as Pyro expects of a context in local mode
            if isinstance(part, AutoGuide | EasyGuide | GuideMessenger):
                guides.append(part)
                modules += [new for new in reached(part.model) if new not in modules]
    return guides


@contextmanager
def _declaring_inside(guides: list[AutoGuide | EasyGuide | GuideMessenger], declaring: _Declaring) -> Iterator[None]:
    """Inside, models that guides run for themselves, out of reach of handlers around the guide, declare as these do."""
    models = [guide._model for guide in guides]
    try:
        for guide in guides:
            guide._model = (within(guide.model, declaring),)
        yield
    finally:
        for guide, model in zip(guides, models, strict=True):
            guide._model = model


class _Declaring(Messenger):
    """Has ``pyro.param`` and ``pyro.module`` declare in one store, and every registered module its own parameters.

    Args:
        kept: where parameters are declared.
        outer: where one is found that is asked for without a value to begin with, or asked to be put into a module.
    """

    def __init__(self, kept: ParamStoreDict, outer: ParamStoreDict):
        super().__init__()
        self.kept, self.outer = kept, outer

    def _pyro_param(self, msg: dict) -> None:
        if msg["fn"] == pyro.get_param_store().get_param:  # a PyroModule's own parameters come by themselves
            msg["fn"] = self.declare
        elif getattr(msg["fn"], "__code__", None) in PyroModule.__setattr__.__code__.co_consts:
            msg["kwargs"]["event_dim"] = None  # a value that a module is given inside a plate is kept in all its rows
            msg["fn"] = _whole(msg["fn"])

    def declare(
        self,
        name: str,
        init: Any = None,  # a tensor, a function that makes one, or None
        constraint: constraints.Constraint = constraints.real,
        event_dim: int | None = None,
    ) -> Tensor:
        known = self.kept._params.get(name)
        registers = isinstance(init, nn.Parameter) and known is not init
        updates = _updates_module() if registers else None
        if known is None and (init is None or updates) and name in self.outer:
            _put(self.kept, name, self.outer._params[name], self.outer._constraints[name])
        elif updates is False:
            _put(self.kept, name, init, constraints.real)
        return self.kept.get_param(name, init, constraint, event_dim)


def _whole(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same value in memory of its own for every element, as an optimizer needs it."""
    return lambda *args, **kwargs: make(*args, **kwargs).contiguous()


def _put(store: ParamStoreDict, name: str, value: Tensor, constraint: constraints.Constraint) -> None:
    if name in store:
        del store[name]
    store.set_state({"params": {name: value}, "constraints": {name: constraint}})


def _updates_module() -> bool | None:
    """Whether a module's parameter is declared to be replaced by the store's; None where no module declares it.

    Pyro passes this on to nobody, so it is read off the calls on their way here.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not pyro.param.__code__:
        frame = frame.f_back
    caller = None if frame is None else frame.f_back
    if caller is not None and caller.f_code is pyro.module.__code__:
        return bool(caller.f_locals["update_module_params"])
    return False if caller is not None and caller.f_code is PyroModule.__getattr__.__code__ else None


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


@contextmanager
def undeclared(*owners: object) -> Iterator[list[Tensor]]:
    """Inside, programs may declare parameters of a shape that is not theirs, which are forgotten afterwards.

    Args:
        owners: of the programs, see ``owner_of``; Pyro's own store is one more.

    Returns:
        what has been forgotten, filled at the end; parameters of modules are not.
    """
    stores = [pyro.get_param_store(), *(store_of(_declarer(owner) or owner) for owner in owners)]
    before = [set(store.keys()) for store in stores]
    forgotten: list[Tensor] = []
    yield forgotten
    for store, names in zip(stores, before, strict=True):
        for name in [name for name in store.keys() if name not in names]:
            if not isinstance(store._params[name], nn.Parameter):
                forgotten.append(store._params[name])
                del store[name]


def declared(owner: object) -> dict[str, Tensor]:
    """What programs of a module or an object have declared, unconstrained, and it does not hold itself."""
    held = {id(p) for p in owner.parameters()} if isinstance(owner, nn.Module) else ()
    return {name: value for name, value in store_of(owner)._params.items() if id(value) not in held}


def trainable(parts: Iterable[Callable], traces: Iterable[poutine.Trace] = ()) -> list[Tensor]:
    """Every parameter that requires a gradient, once each: those of modules, and those declared at sites of the traces.

    Raises:
        ValueError: there is none.
    """
    owners = map(owner_of, parts)
    found: list[Tensor] = [p for owner in owners if isinstance(owner, nn.Module) for p in owner.parameters()]
    sites: list[Any] = [site["value"] for trace in traces for site in trace.nodes.values() if site["type"] == "param"]
    found += [value.unconstrained() if hasattr(value, "unconstrained") else value for value in sites]
    parameters = list({id(p): p for p in found if p.requires_grad}.values())
    if not parameters:
        raise ValueError(
            "neither model nor guide has a parameter that requires a gradient, so nothing would be trained; "
            "make them nn.Modules with parameters, or declare these with pyro.param"
        )
    return parameters
