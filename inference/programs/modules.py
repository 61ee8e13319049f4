"""The modules that programs are, wrap or reach, and the mode that they are in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

import torch
from pyro.poutine.messenger import _context_wrap
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def module_of(program: Callable) -> nn.Module | None:
    """The module that a program is or, as ``poutine.scale(module)``, wraps; None for a plain function."""
    while not isinstance(program, nn.Module) and hasattr(program, "__wrapped__"):
        program = program.__wrapped__
    return program if isinstance(program, nn.Module) else None


def modules_of(*programs: Callable) -> list[nn.Module]:
    """The modules among programs, see ``module_of``."""
    return [module for program in programs if (module := module_of(program)) is not None]


def bare(program: Callable) -> Callable:
    """The module that a program is or wraps, or the function that it is."""
    while hasattr(program, "owned_program"):
        program = program.owned_program
    module = module_of(program)
    return program if module is None else module


def owner_of(program: Callable) -> object | None:
    """What a program's parameters belong to: the module that it is or wraps, or the object whose method it is.

    None for a plain function, and for the method of a class.
    """
    program = unwrapped(program)
    if isinstance(program, nn.Module):
        return program
    owner = program.__self__ if inspect.ismethod(program) else _decorated(program)
    return None if isinstance(owner, type) else owner


def unwrapped(program: Callable) -> Callable:
    """The module, method or function inside handlers and partials."""
    while (inner := inner_of(program)) is not None:
        program = inner
    return program


def inner_of(program: Callable) -> Callable | None:
    """What a handler or a partial was made of; None for a module, a method or a function."""
    if isinstance(program, nn.Module) or inspect.ismethod(program) or _decorated(program) is not None:
        return None
    if handled := _handled(program):
        return handled[1]
    wrapped = getattr(program, "__wrapped__", None)
    return getattr(program, "func", None) if wrapped is None else wrapped  # which may be false, as an empty sequence


def _handled(program: Callable) -> tuple:
    """(handler, program, *arguments) of what Pyro makes of a handled program."""
    made = program.func if isinstance(program, partial) and isinstance(program.func, partial) else program
    return made.args if isinstance(made, partial) and made.func is _context_wrap else ()


def within(program: Callable, handler: Callable[[Callable], Callable]) -> Callable:
    """The program with one more handler inside all others, which may hide from those outside what is declared."""
    if len(handled := _handled(program)) != 2:
        return handler(program)
    outer, inside = handled
    return partial(_context_wrap, outer, within(inside, handler))


def _decorated(program: Callable) -> object | None:
    """The object of a method that a handler decorates in its class."""
    if len(handled := _handled(program)) > 2:
        _, function, owner = handled[:3]
        if hasattr(type(owner), getattr(function, "__name__", "")):
            return owner
    return None


def signature_of(program: Callable) -> inspect.Signature:
    """The arguments that a program takes; of a module, those of its ``forward``."""
    program = bare(program)
    while handled := _handled(program):  # Pyro's decorators say nothing of the arguments
        inside: Any = handled[1]
        program = partial(inside, *handled[2:]) if handled[2:] else inside
    found = getattr(program, "program_signature", None)  # of a module: that of a program inside
    if isinstance(found, inspect.Signature):
        return found
    return inspect.signature(program.forward if isinstance(program, nn.Module) else program)


def reached(*programs: Callable) -> list[nn.Module]:
    """The modules that programs are, wrap, or can get at: of a method its object, of a function what it closes over."""
    return [part for part in closure(programs, _around) if isinstance(part, nn.Module)]


def closure(parts: Iterable[object], near: Callable[[object], Iterable[object]]) -> Iterator[object]:
    """Parts, what is near them, what is near that, and so on; each object once."""
    waiting, seen = list(parts), {}
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen[id(part)] = part  # kept alive, so that no later object takes its id
            yield part
            waiting.extend(near(part))


def _around(program: object) -> list:
    """What a function, a method, a partial or a wrapped program refers to by itself."""
    if isinstance(program, partial):
        given = [*program.args, *program.keywords.values()]
        return [program.func, *given, *(part for value in given for part in _held(value))]
    if isinstance(program, nn.Module) or not callable(program):
        return []
    function = getattr(program, "__func__", program)
    code = getattr(function, "__code__", None)
    names = code.co_names if code is not None else ()
    world = getattr(function, "__globals__", {})
    near = [getattr(program, "__self__", None), getattr(program, "__wrapped__", None), getattr(program, "fn", None)]
    near += _held(near[0])
    near += [world[name] for name in names if isinstance(world.get(name), nn.Module)]
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # a name that has no value yet
            near.append(cell.cell_contents)
    return [part for part in near if callable(part)]


def _held(owner: object) -> list:
    """The modules that an object has which is none itself, also in a list, a tuple or a dictionary."""
    if isinstance(owner, nn.Module | type | ModuleType):
        return []
    found = []
    for value in getattr(owner, "__dict__", {}).values():
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        found += [part for part in parts if isinstance(part, nn.Module)]
    return found


@contextmanager
def evaluation_mode(*programs: Callable) -> Iterator[None]:
    """Puts programs that are modules into evaluation mode, and every part of them back as it was."""
    parts = [part for module in reached(*programs) for part in module.modules()]
    before = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training


@contextmanager
def statistics_kept(program: Callable) -> Iterator[None]:
    """Inside, batch statistics are used as before and not gathered."""
    parts = (part for module in reached(program) for part in module.modules() if isinstance(part, _NormBase))
    gathering = [part for part in parts if part.training and part.track_running_stats]
    try:
        for part in gathering:
            part.track_running_stats = False
        yield
    finally:
        for part in gathering:
            part.track_running_stats = True


class GradientsWhereNeeded:
    """Lets a program that differentiates by itself run under no_grad, where programs are tried, checked and evaluated.

    A guide that takes a step along the gradient of log p(x, z), or a model with the force of a potential, calls
    ``torch.autograd.grad``, which finds no graph there. Such a program is run again, with gradients, from then on at
    once; what it drew is cut off from its graph, as no_grad asks for. Others pay nothing.
    """

    def __init__(self) -> None:
        self.needed = False

    def run(self, program: Callable[[], Any]) -> Any:
        """What a program returns."""
        if torch.is_grad_enabled():
            return program()
        frames = [frame for frame in _PYRO_STACK if isinstance(frame, TraceMessenger)]
        before = [(frame.trace, set(frame.trace.nodes)) for frame in frames]
        if not self.needed:
            try:
                return program()
            except RuntimeError as error:
                if "does not require grad" not in str(error):  # torch's words where there is no graph
                    raise
        for trace, names in before:
            for name in [name for name in trace.nodes if name not in names]:
                trace.remove_node(name)
        with torch.enable_grad():
            found = program()
        for trace, names in before:
            for name, site in trace.nodes.items():
                if name not in names and site["type"] == "sample" and isinstance(value := site["value"], Tensor):
                    site["value"] = value.detach()
        self.needed = True
        return found
