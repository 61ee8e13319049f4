"""A recurrence over many steps: one short program again and again, and gradients of its parameters all at once."""

from __future__ import annotations

import weakref
from itertools import count
from typing import Any

import torch
from torch import Tensor

from dlvm.nets.recurrences.cell import Cell, Step, trace
from dlvm.nets.recurrences.operations import operation

FEWEST = 8  # steps that are worth it
MOST_TRACES = 32  # of one step: for its shapes, and where it has changed
ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-9}

_cells: dict[int, Cell] = {}  # by number, for as long as their owner lives: recorded graphs hold the numbers
_numbers = count()


class _Known(dict[tuple, "tuple[int, list[Tensor]] | None"]):
    """Programs of one owner's step by the shapes of a call: a number and the step's own tensors, or None."""

    traces = 0

    def trace(self, owner: object, shapes: tuple, step: Step, start: Tensor, inputs: tuple[Tensor, ...]) -> None:
        self.traces += 1
        found = trace(step, start, tuple(value[0] for value in inputs)) if self.traces <= MOST_TRACES else None
        self[shapes] = None
        if found is not None:
            number = next(_numbers)
            _cells[number] = found[0]
            self[shapes] = number, found[1]
            weakref.finalize(owner, _cells.pop, number).atexit = False


_owners: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()


def scan(
    owner: object, step: Step, start: Tensor, inputs: tuple[Tensor, ...], which: int = 0
) -> tuple[Tensor, ...] | None:
    """All outputs of a recurrence, or None where it takes the ordinary loop.

        state_t, *others_t = step(state_t-1, *inputs_t),   t = 1..T

    The states are computed by a program of the step alone, without Python of its own and without a graph. ``step`` is
    then run once over all of them, which gives the other outputs, checks what the step checks, and shows that the
    program still does what the step does. Its graph gives the gradients of parameters and inputs by one product over
    all steps, where the loop adds one product for each; only the gradient of the states goes back step by step.
    To a recording it is two operations, however many steps there are. A second derivative is refused.

    Args:
        owner: whose step it is, for as long as its programs are kept.
        step: of (state, *inputs), over any leading dimensions; it returns the next state, of the state's shape, and
            others.
        start: the state before the first step, shape (*batch, D).
        inputs: of all steps, shapes (T, ...).
        which: of the owner's steps, where it has several.

    Returns:
        the outputs of the step, shapes (T, ...); None for few steps, of a type without rounding to compare by, or of a
        step that is no program: which draws, reads numbers into Python, or changes tensors in place.
    """
    if start.dtype not in ROUNDING or len(inputs[0]) < FEWEST:
        return None
    known = _owners.setdefault(owner, _Known())
    given = start, *(value[0] for value in inputs)
    shapes = which, *((value.shape, value.dtype, value.device) for value in given)
    for known_before in (shapes in known, False):
        if not known_before:
            known.trace(owner, shapes, step, start, inputs)
        if (cell := known[shapes]) is None:
            return None
        if (found := _outputs(*cell, step, start, inputs)) is not None:
            return found
        known[shapes] = None  # another module stands where one stood, or a number of Python's has changed
        if not known_before:
            break
    return None


def _outputs(
    number: int, own: list[Tensor], step: Step, start: Tensor, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...] | None:
    """What ``scan`` returns; None where the program is not the step's any more."""
    cell = _cells[number]
    with torch.no_grad():
        states, *kept = _scan_forward(number, start, inputs, own)
        previous = torch.cat([start.unsqueeze(0), states[:-1]])
    following, *others = step(previous, *inputs)
    with torch.no_grad():
        near = (following - states).abs() <= ROUNDING[start.dtype] * (1 + states.abs())
    if len(others) != cell.outputs - 1 or not (near | (states != states)).all():
        return None
    outputs = following, *others
    if not torch.is_grad_enabled() or not any(value.requires_grad for value in (start, *outputs)):
        return states, *others
    counts = len(outputs), len(inputs)
    return _Through.apply(number, counts, start, *outputs, states, previous, *inputs, *own, *kept)


class _Through(torch.autograd.Function):
    """Outputs that do not know of the states before them -> those that do."""

    @staticmethod
    def forward(ctx: Any, number: int, counts: tuple[int, int], start: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, states, *rest = tensors[: counts[0]], *tensors[counts[0] :]
        ctx.number, ctx.counts, ctx.given = number, counts, len(tensors)
        ctx.save_for_backward(*rest)
        return states.view_as(states), *(value.view_as(value) for value in outputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        outputs, inputs = ctx.counts
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a draw of many steps of a module can be differentiated once, got create_graph=True; give "
                "ConditionalChain a function, lambda z: net(z), whose steps are drawn one by one"
            )
        previous, *rest = ctx.saved_tensors
        kept = len(rest) - _cells[ctx.number].kept
        whole, first = _scan_backward(ctx.number, gradients, rest[kept:], previous, rest[:inputs], rest[inputs:kept])
        return None, None, first, whole, *gradients[1:], *[None] * (ctx.given - outputs)


def _forward(number: int, start: Tensor, inputs: list[Tensor], own: list[Tensor]) -> list[Tensor]:
    """[states, *what a gradient needs], each of all steps."""
    cell, state = _cells[number], start
    beside = *own, *cell.prepare(*own)
    made: list[list[Tensor]] = [[] for _ in range(1 + cell.kept)]
    for given in zip(*(value.unbind(0) for value in inputs), strict=True):
        found = cell.forward(state, *given, *beside)
        state = found[0]
        for values, value in zip(made, (state, *found[cell.outputs :]), strict=True):
            values.append(value)
    return [torch.stack(values) for values in made]


def _backward(
    number: int,
    gradients: list[Tensor],
    kept: list[Tensor],
    previous: Tensor,
    inputs: list[Tensor],
    own: list[Tensor],
) -> list[Tensor]:
    """[gradient of the states, of all steps, that of the state before the first]."""
    cell = _cells[number]
    beside = *own, *cell.prepare(*own)
    whole: list[Tensor] = []
    back: Tensor | None = None
    steps = zip(*(value.unbind(0) for value in (*gradients, *kept, previous, *inputs)), strict=True)
    for gradient, *rest in reversed(list(steps)):
        gradient = gradient if back is None else gradient + back
        whole.append(gradient)
        (back,) = cell.backward(gradient, *rest, *beside)
    return [torch.stack(whole[::-1]), back if back is not None else torch.zeros_like(previous[0])]


def _shapes_forward(number: int, start: Tensor, inputs: list[Tensor], own: list[Tensor]) -> list[Tensor]:
    """What ``_forward`` returns, by its shapes: a step stands for all."""
    cell = _cells[number]
    found = cell.forward(start, *(value[0] for value in inputs), *own, *cell.prepare(*own))
    return [value.new_empty(len(inputs[0]), *value.shape) for value in (found[0], *found[cell.outputs :])]


def _shapes_backward(
    number: int,
    gradients: list[Tensor],
    kept: list[Tensor],
    previous: Tensor,
    inputs: list[Tensor],
    own: list[Tensor],
) -> list[Tensor]:
    return [previous.new_empty(previous.shape), previous.new_empty(previous.shape[1:])]


_scan_forward = operation(
    "scan_forward", "int number, Tensor start, Tensor[] inputs, Tensor[] own", _forward, _shapes_forward
)
_scan_backward = operation(
    "scan_backward",
    "int number, Tensor[] gradients, Tensor[] kept, Tensor previous, Tensor[] inputs, Tensor[] own",
    _backward,
    _shapes_backward,
)
