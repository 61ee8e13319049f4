"""Expectation maximisation as a generator of records, for models that know both of its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlvm.inference.console import tell
from dlvm.inference.programs.batches import Batches, arguments
from dlvm.inference.programs.data_checks import DataCheck
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import DataCount, batch_size
from dlvm.inference.training.arguments import check_batches
from dlvm.nets.arguments import count, real

FALL = 1e-9  # of log p(x), relative; more is no rounding


class Maximisable(Protocol):
    """What ``fit_em`` asks of a module: sums over data, and the parameters that are best given these.

    ``expected_statistics(*args)`` is the E-step on a batch, whose data are as independent as batches are: log p(x) of
    each datum, shape (batch,), and {name: tensor}, each the sum over these data of what is expected under p(z | x).
    ``maximise(statistics)`` is the M-step: given the sums over all data, it moves the parameters to where the
    expected log p(x, z) is highest.
    """

    def expected_statistics(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]: ...

    def maximise(self, statistics: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class EMStep:
    """A model as it stands after so many steps of ``fit_em``.

    Attributes:
        iteration: how many M-steps it has had; 0 is the start.
        log_px: exact log p(x) of the data that it is fitted to, nats per datum.
        valid: that of the validation data; None without such data.
        rise: of ``log_px``, by the last M-step; NaN at the start.
        seconds: of the last M-step and the E-step after it.
    """

    iteration: int
    log_px: float
    valid: float | None
    rise: float
    seconds: float

    def __str__(self) -> str:
        valid = "" if self.valid is None else f"   valid {self.valid:.4f}"
        rise = "" if math.isnan(self.rise) else f"   rise {self.rise:.2g}"
        return f"iteration {self.iteration:4d}   log p(x) {self.log_px:.4f}{valid} nats per datum{rise}"


def fit_em(
    model: Any,
    train: Tensor | Iterable,
    valid: Tensor | Iterable | None = None,
    iterations: int = 100,
    tolerance: float = 1e-6,
    rows: int = 10_000,
) -> Iterator[EMStep]:
    """Fits a model by expectation maximisation; yields a record at the start and after each iteration.

        theta <- argmax_theta' sum_n E_p(z | x_n, theta) log p(x_n, z; theta')

    log p(x) never falls, but for rounding, or where the model's M-step is not quite the maximum (as with a
    ``reg_covar``): a line then says so. Sums over data are gathered batch by batch, in double precision, so that data
    may be larger than memory; parameters keep their type, and are those of the last record whenever the loop is left.

    Returns:
        a generator of ``EMStep``; it ends after ``iterations``, or once log p(x) rises by less than ``tolerance``.

    Args:
        model: a module with ``expected_statistics(*args)`` and ``maximise(statistics)``, see ``Maximisable``.
        train: a tensor x, or batches, gone through once for each record; they must be the same each time.
        valid: the same, for log p(x) of data that it is not fitted to.
        iterations: M-steps, at most.
        tolerance: nats per datum.
        rows: of a tensor, at once.

    Raises:
        ValueError: a number is out of range, data lie outside the likelihood's support, or what the model refuses: too
            few data, a component without data, a singular covariance.
        TypeError: the model has not the two methods, or data cannot be gone through again.
        NonFinite: log p(x) is NaN or infinite.

    References:
        Maximum Likelihood from Incomplete Data via the EM Algorithm, Dempster, Laird, Rubin, 1977.

    Example:
        >>> from dlvm.models import GaussianMixture
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(300, 2) + 4 * torch.randint(2, (300, 1))
        >>> records = list(fit_em(GaussianMixture(2, 2).start_at(x), x, iterations=5))
        >>> records[0].log_px < records[1].log_px < records[5].log_px
        True
    """
    check_steps(model)
    count(iterations=iterations, rows=rows)
    real(tolerance=tolerance)
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be at least 0 and finite, got {tolerance}; pass 0 to go on to the end")
    pair = Pair(model)
    data = [None if given is None else _batches(pair, word, given, rows) for word, given in _both(train, valid)]
    return _steps(model, pair, data[0], data[1], iterations, tolerance)  # type: ignore[arg-type]  # train is no None


def check_steps(model: object) -> None:
    """Raises TypeError where a model has not the two steps."""
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"model must be a module, got {got}; pass one such as GaussianMixture(3, x_dim)")
    missing = [name for name in ("expected_statistics", "maximise") if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(
            f"model {type(model).__name__} has no {' and no '.join(missing)}: its E-step or M-step has no closed form "
            "here; write them, as Maximisable says, or train with fit(...)"
        )


def _both(train: object, valid: object) -> list[tuple[str, Any]]:
    return [("train", train), ("valid", valid)]


def _batches(pair: Pair, word: str, data: Tensor | Iterable, rows: int) -> Batches:
    """Data as batches that have been held against the likelihood's support, or will be as they come."""
    if isinstance(data, Tensor):
        arguments(data)
        data = [(part,) for part in data.split(rows)]
    check_batches(word, data)
    found = Batches(data, lambda args: args, DataCount(pair), None)
    found.check_by(DataCheck(pair, arguments(next(iter(found.data)))))
    return found


def _steps(
    model: Any, pair: Pair, train: Batches, valid: Batches | None, iterations: int, tolerance: float
) -> Iterator[EMStep]:
    before = math.nan
    statistics: dict[str, Tensor] = {}
    for iteration in range(iterations + 1):
        began = time.perf_counter()
        if iteration:
            with torch.no_grad(), in_double(model):
                model.maximise(statistics)
        with in_double(model):
            log_px, statistics = _expected(model, pair, train, iteration)
            judged = None if valid is None else _expected(model, pair, valid, iteration)[0]
        rise = log_px - before
        if rise < -FALL * max(1.0, abs(log_px)):
            tell(
                f"fit_em: log p(x) fell by {-rise:.2g} nats per datum at iteration {iteration}: the M-step is not the "
                "maximum of this likelihood (as with a reg_covar), or data are other ones at each pass"
            )
        yield EMStep(iteration, log_px, judged, rise, time.perf_counter() - began)
        if rise < tolerance:
            return
        before = log_px


@torch.no_grad()
def _expected(model: Any, pair: Pair, data: Batches, iteration: int) -> tuple[float, dict[str, Tensor]]:
    """Mean log p(x), and the statistics summed over all batches."""
    total, number = 0.0, 0
    sums: dict[str, Tensor] = {}
    for args, _ in data:
        found = model.expected_statistics(*(_double(value) for value in args))
        log_px, statistics = _checked(model, found, batch_size(pair, args))
        if not log_px.isfinite().all():
            row = int((~log_px.isfinite()).nonzero()[0])
            raise NonFinite(
                f"iteration {iteration}: log p(x) is {log_px[row].item()} for a datum, row {row} of its batch; a "
                "component may lie too far from it or be singular: start_at(x), or pass a larger reg_covar"
            )
        total, number = total + log_px.sum().item(), number + len(log_px)
        sums = {name: value + sums[name] if sums else value for name, value in statistics.items()}
    return total / number, sums


def _checked(model: object, found: object, number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """What an E-step returns, once it is what it must be."""
    log_px, statistics = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
    if not isinstance(log_px, Tensor) or log_px.shape != (number,) or not isinstance(statistics, dict):
        got = tuple(log_px.shape) if isinstance(log_px, Tensor) else type(found).__name__
        raise TypeError(
            f"expected_statistics of {type(model).__name__} must return log p(x), shape ({number},), and a dict of "
            f"sums over data, got {got}; see Maximisable"
        )
    return log_px, statistics


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def in_double(model: nn.Module) -> Iterator[None]:
    """Inside, parameters and buffers are in double precision; they are rounded to their own type at the end."""
    held = [(tensor, tensor.dtype) for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    try:
        for tensor, _ in held:
            tensor.data = tensor.data.double()
        yield
    finally:
        for tensor, kind in held:
            tensor.data = tensor.data.to(kind)
