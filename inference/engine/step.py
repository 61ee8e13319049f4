"""What one step computes: the loss of a pair under an objective, and its gradient, in the precision asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch has it, and does not say so
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dlvm.distributions.pyro_lock import TURN
from dlvm.inference.console import say
from dlvm.inference.engine.module_state import State
from dlvm.inference.engine.recording import Outcome
from dlvm.inference.engine.reported import JIT, reporting
from dlvm.inference.programs.batches import check_dense
from dlvm.inference.programs.errors import NonFinite, explaining, fault
from dlvm.inference.programs.modules import modules_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import empty_store, scoped, trainable
from dlvm.inference.programs.randomness import generator_state, untouched

PRECISIONS = ("fp32", "bf16")
_LAYERS = (
    F.linear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)


class Step:
    """Loss and gradients as functions of a batch, see ``record`` for what they return.

    Args:
        pair: whose programs run.
        objective: any ``pyro.infer.ELBO``.
        precision: of layers in ``gradients``, see ``precise``.
    """

    def __init__(self, pair: Pair, objective: ELBO, precision: str = "fp32"):
        self.pair = pair
        self.objective: Any = objective  # what all have and use here, Pyro's base class does not declare
        self.reported: Any = objective  # whose loss is told; another one where the objective has gradients alone
        self.parts = (*pair.modules, objective)
        self.parameters: list[Tensor] = []
        self.beside: set[int] = set()  # the objective's own, as a baseline's, which the norm leaves out
        self._precise = precise(precision)
        self._kept = None if pair.shows else empty_store()

    def find_parameters(self, args: tuple, kwargs: dict) -> None:
        """Runs both programs once, so that every parameter exists; spends no random number."""
        check_dense(*args, **kwargs)
        probing = self.pair.evaluating()
        with untouched(), torch.no_grad(), probing, self.store(), poutine.trace(param_only=True) as handler:
            with explaining(self.pair, args, kwargs):
                self.reported = reporting(self.objective, self.pair.programs, args, kwargs)
            if isinstance(self.objective, JIT) and not handler.trace.nodes.keys() <= {*pyro.get_param_store().keys()}:
                name = type(self.objective).__name__
                raise ValueError(
                    f"{name} looks parameters up in Pyro's store, where those of modules are not; "
                    f"pass {name.removeprefix('Jit')} in its place, whose steps engine='captured' records"
                )
        self.parameters = trainable((*self.pair.programs, self.objective), [handler.trace])
        self.beside = {id(p) for module in modules_of(self.objective) for p in module.parameters()}
        self.clear()

    def require_gradient(self, args: tuple, kwargs: dict) -> None:
        """Makes one gradient and leaves no trace of it.

        Raises:
            ValueError: no parameter gets one.
        """
        with untouched(), State(self.parts, self.stores()).restored():
            try:
                _, gradients = self.gradients(*args, **kwargs)
            except Exception:  # the first step, which comes next, raises it again and says where
                return
        self.refuse_none(gradients)

    def prove_gradient(self, args: tuple, kwargs: dict) -> None:
        """The same, for programs that go on without this step: gradients that others have left are theirs again.

        Raises:
            ValueError: no parameter gets one.
        """
        registered = [p for module in self.pair.modules for p in module.parameters()]
        shown = [p for store in (*self.stores(), pyro.get_param_store()._params) for p in store.values()]
        left = [(parameter, parameter.grad) for parameter in (*registered, *shown)]
        try:
            with TURN, State(self.parts, self.stores()).restored():
                self.find_parameters(args, kwargs)
                self.require_gradient(args, kwargs)
        finally:
            for parameter, gradient in left:
                parameter.grad = gradient

    def refuse_none(self, gradients: list[Tensor | None]) -> None:
        """Raises ValueError where no parameter of the programs has a gradient; says so where it is zero for all."""
        pairs = zip(self.parameters, gradients, strict=True)
        found = [g for p, g in pairs if g is not None and id(p) not in self.beside]
        if not found:
            raise ValueError(
                "nothing would be trained by the gradient on the first batch: no parameter of model and guide has one; "
                "let the programs compute with the very modules that they register by pyro.module or have as "
                "attributes, and do not detach them or run them under no_grad"
            )
        if not any(bool((g != 0).any()) for g in found):
            say("the gradient on the first batch is zero for all parameters of model and guide: nothing is trained yet")

    def stores(self) -> list[dict[str, Any]]:
        """The dictionaries that hold what was declared by ``pyro.param``."""
        return [pyro.get_param_store()._params if self._kept is None else self._kept["params"]]

    def store(self) -> AbstractContextManager:
        """Where the objective keeps what it declares: here, or where functions and methods show theirs."""
        return nullcontext() if self._kept is None else scoped(self._kept)

    def gradients(self, *args: Any, **kwargs: Any) -> Outcome:
        """Losses, none where the objective has gradients alone, and the norm of the programs' gradient, in nats; and
        the gradients of ``parameters``."""
        try:
            return self._gradients(*args, **kwargs)
        finally:
            self.clear()

    def checked_gradients(self, *args: Any, **kwargs: Any) -> Outcome:
        """The same; an error about numbers that are not finite says where they came from."""
        try:
            with self._located(args, kwargs):
                numbers, gradients = self._gradients(*args, **kwargs)
                _require_finite(numbers[:-1], numbers[-1])
            return numbers, gradients
        finally:
            self.clear()

    def loss(self, *args: Any, **kwargs: Any) -> Outcome:
        """Losses, in nats, and nothing else."""
        with self.store():
            loss = self.reported.loss(*self.pair.programs, *args, **kwargs)
        return [*(loss if isinstance(loss, tuple) else (loss,))], []

    def checked_loss(self, *args: Any, **kwargs: Any) -> Outcome:
        """The same; an error about numbers that are not finite says where they came from."""
        with self._located(args, kwargs):
            losses, _ = self.loss(*args, **kwargs)
            _require_finite(losses)
        return losses, []

    def clear(self) -> None:
        """Leaves no gradient behind."""
        for parameter in self.parameters:
            parameter.grad = None

    def _gradients(self, *args: Any, **kwargs: Any) -> Outcome:
        self.clear()  # what others have left
        with self.store(), self._precise:
            loss = self.objective.loss_and_grads(*self.pair.programs, *args, **kwargs)
        gradients = [parameter.grad for parameter in self.parameters]
        if self.reported is not self.objective:  # it says inf, or nothing
            return [self.norm(gradients)], gradients
        return [*(loss if isinstance(loss, tuple) else (loss,)), self.norm(gradients)], gradients

    def norm(self, gradients: list[Tensor | None]) -> float:
        """The L2 norm of the programs' gradient."""
        pairs = zip(self.parameters, gradients, strict=True)
        return torch.nn.utils.get_total_norm([g for p, g in pairs if g is not None and id(p) not in self.beside]).item()

    @contextmanager
    def _located(self, args: tuple, kwargs: dict) -> Iterator[None]:
        before = generator_state()
        with explaining(self.pair, args, kwargs):
            try:
                yield
            except (NonFinite, ValueError, LinAlgError) as error:
                check_dense(*args, **kwargs)
                found = fault(error, self.pair, args, kwargs, before)
                if found is None:
                    raise
                raise found from error


def _require_finite(losses: list[float], norm: float | None = None) -> None:
    if not all(map(math.isfinite, losses if norm is None else (*losses, norm))):
        gradient = "" if norm is None else f", gradient norm {norm}"
        raise NonFinite(f"loss {', '.join(map(str, losses))}{gradient}")


class _BFloat16Layers(TorchFunctionMode):
    """Products are made in bfloat16 and summed in single precision; biases and log-densities never see bfloat16."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        return _layer(func, *args, **kwargs) if func in _LAYERS else func(*args, **kwargs)


def _layer(
    func: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **kwargs: Any
) -> Tensor:
    if input.dtype != torch.float32:
        return func(input, weight, bias, *rest, **kwargs)
    product = func(input.bfloat16(), weight.bfloat16(), None, *rest, **kwargs).float()
    if bias is None:
        return product
    return product + bias.reshape(-1, *[1] * (0 if func is F.linear else weight.dim() - 2))


def precise(precision: str) -> AbstractContextManager:
    """A context in which layers compute in this precision.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return _BFloat16Layers() if precision == "bf16" else nullcontext()
