"""What is said of a program's data where it cannot be told: the plates that index them, and arguments' rows."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, overload

from pyro.poutine.messenger import Messenger
from torch import nn

from dlvm.inference.programs.modules import owner_of, signature_of, unwrapped

Program = TypeVar("Program", bound=Callable)
DATA_PLATES = "_plates_that_are_said_to_index_the_data"
VARIADIC = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


class Statement(NamedTuple):
    """What is said of a program.

    Attributes:
        plates: names of those that index its data; none where they are to be told.
        axes: (parameter, the axis along which it has its data, or None where all data share it), for those mentioned.
    """

    plates: tuple[str, ...] = ()
    axes: tuple[tuple[str, int | None], ...] = ()


NOTHING = Statement()
_SAID: dict[int, dict[str, Statement]] = {}


@overload
def described(
    model: Program,
    *,
    data_plate: str | Iterable[str] | None = None,
    shared: str | Iterable[str] = (),
    per_datum: str | Iterable[str] | Mapping[str, int] = (),
) -> Program: ...


@overload
def described(
    *,
    data_plate: str | Iterable[str] | None = None,
    shared: str | Iterable[str] = (),
    per_datum: str | Iterable[str] | Mapping[str, int] = (),
) -> Callable[[Program], Program]: ...


def described(
    model: Any = None,
    *,
    data_plate: str | Iterable[str] | None = None,
    shared: str | Iterable[str] = (),
    per_datum: str | Iterable[str] | Mapping[str, int] = (),
) -> Any:
    """Says what a datum of a model is, where its sites and the values of its arguments do not tell.

        log p(batch) = sum_n log p(x_n),   n = 1, ..., as many as ``data_plate`` has, or ``per_datum`` along its axis

    It is kept beside the model, for as long as that lives, and read by all that cuts or counts data: ``fit``, ``SVI``,
    ``evaluate``, evidence. The model stays what it is, to Pyro as well. What is not mentioned is told as for any model;
    what was said before is forgotten. Arguments are held against it by values: a datum must weigh alone what it weighs
    among others, as far as this can be seen.

    Returns:
        the same model; without one, a decorator for functions.

    Args:
        model: a Pyro program; guides and handlers around it need nothing.
        data_plate: the name of the plate that indexes data, or names, if each cell of crossed plates is a datum. Other
            plates then lie inside a datum, or are of what all data share.
        shared: names of the model's arguments that all data share, as a table, however long they are.
        per_datum: names of the arguments that have a row for each datum; ``{name: axis}`` where rows do not lie along
            axis 0, as in x of shape (time, batch, x_dim).

    Raises:
        TypeError: the model is no program, or names are no strings.
        ValueError: the model has no such argument, it is shared and per datum, or an axis is no count from the left.
            When programs run: there is no such plate, no data are in it, or an argument has another number of data.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(x):  # shape (time, batch)
        ...     with pyro.plate("series", x.shape[1]):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         with pyro.plate("time", len(x), dim=-2):
        ...             pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> described(model, data_plate="series", per_datum={"x": 1}) is model
        True
    """
    if model is None:
        return partial(described, data_plate=data_plate, shared=shared, per_datum=per_datum)
    if not callable(model) or isinstance(model, type):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"model must be a Pyro program, got {got}; pass a function, or an instance of a module")
    axes = {**_axes(per_datum), **dict.fromkeys(names := _names("shared", shared))}
    if twice := sorted(_axes(per_datum).keys() & set(names)):
        raise ValueError(f"shared and per_datum must be of different arguments, got {twice} in both; name each in one")
    _check_arguments(model, axes)
    owner, method = _place(model)
    if id(owner) not in _SAID:
        weakref.finalize(owner, _SAID.pop, id(owner), None).atexit = False
    plates = () if data_plate is None else _names("data_plate", data_plate)
    _SAID.setdefault(id(owner), {})[method] = Statement(plates, tuple(sorted(axes.items())))
    return model


def said_of(program: Callable) -> Statement:
    """What is said of the program inside handlers: of the object, or of the function that is its method."""
    owner, method = _place(program)
    inside = None if owner_of(program) is None else getattr(type(owner), method or "forward", None)
    for part, name in ((owner, method), (inside, "")):
        if (found := _SAID.get(id(part), {}).get(name)) is not None:
            return found
    return NOTHING


def positions(program: Callable, said: Statement) -> dict[int, int | None]:
    """{position: axis} of the arguments that are mentioned; without those that a partial has given already."""
    names = list(signature_of(program).parameters) if said.axes else []
    return {names.index(name): axis for name, axis in said.axes if name in names}


def _place(program: Callable) -> tuple[object, str]:
    """The module, object or function that a program is or belongs to, and the name of its method, if it is one."""
    inside, owner = unwrapped(program), owner_of(program)
    if owner is None or isinstance(inside, nn.Module):
        return getattr(inside, "__func__", inside), ""
    return owner, getattr(inside, "__name__", "")


def _names(word: str, value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if others := [type(name).__name__ for name in names if not isinstance(name, str)]:
        raise TypeError(f"{word} must be a name, or several in a tuple, got {', '.join(others[:3])}; pass strings")
    if "" in names:
        raise ValueError(f"{word} must be a name, or several in a tuple, got {value!r}; leave out what has none")
    return tuple(name for name in names if isinstance(name, str))


def _axes(per_datum: object) -> dict[str, int]:
    axes = {name: per_datum[name] if isinstance(per_datum, Mapping) else 0 for name in _names("per_datum", per_datum)}
    for name, axis in axes.items():
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"per_datum must give {name!r} an axis, a whole number, got {type(axis).__name__}; pass 1")
        if axis < 0:
            raise ValueError(f"per_datum must count the axis of {name!r} from the left, from 0 on, got {axis}")
    return axes


def _check_arguments(model: Callable, axes: Mapping[str, int | None]) -> None:
    taken = [name for name, each in signature_of(model).parameters.items() if each.kind not in VARIADIC] if axes else []
    if lacking := [name for name in axes if name not in taken]:
        word = "shared" if axes[lacking[0]] is None else "per_datum"
        raise ValueError(f"{word} must name arguments of the model, which are {taken}, got {lacking[0]!r}; name one")


def marked(program: Callable, plates: tuple[str, ...]) -> Callable:
    """A program whose sites bear the names of the plates that index its data; the program itself without names."""
    return _Marked(program, plates) if plates else program


class _Marked:
    """Wraps a program as handlers do, see ``marked``."""

    def __init__(self, program: Callable, plates: tuple[str, ...]):
        self.__wrapped__ = self.owned_program = program
        self.plates = frozenset(plates)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Marking(self.plates):
            return self.__wrapped__(*args, **kwargs)


class _Marking(Messenger):
    """Writes on sites which plates index the data."""

    def __init__(self, plates: frozenset[str]):
        super().__init__()
        self.plates = plates

    def _pyro_sample(self, msg: Any) -> None:
        msg["infer"] = {**(msg["infer"] or {}), DATA_PLATES: self.plates}


def said_plates(sites: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The names of the plates that sites say index their data; none where it is to be told."""
    marks = ((site.get("infer") or {}).get(DATA_PLATES) for site in sites)
    return next((plates for plates in marks if plates), frozenset())
