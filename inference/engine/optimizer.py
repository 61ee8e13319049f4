"""A torch optimizer's step with nothing around its kernel."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from dlvm.inference.console import first_line

_KERNELS: dict[type[Optimizer], Callable[..., None]] = {Adam: torch._fused_adam_, AdamW: torch._fused_adamw_}
_PLAIN = ("amsgrad", "maximize", "capturable", "differentiable")
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def made(optimizer: Callable[[Iterable[Tensor]], Optimizer], parameters: list[Tensor]) -> Optimizer:
    """The optimizer of some parameters.

    Raises:
        TypeError: what makes it makes something else, or one that needs the loss as a function.
        ValueError: it has none of the parameters.
    """
    remedy = "write partial(torch.optim.Adam, lr=1e-3)"
    try:
        found = optimizer(parameters)
    except (TypeError, ValueError) as error:
        raise TypeError(f"optimizer cannot be made from the parameters ({first_line(error)}); {remedy}") from error
    if not isinstance(found, Optimizer):
        raise TypeError(f"optimizer must make a torch optimizer from parameters, got {found!r}; {remedy}")
    if inspect.signature(type(found).step).parameters["closure"].default is inspect.Parameter.empty:
        raise TypeError(f"optimizer {type(found).__name__} calls the loss several times in a step; {remedy}")
    if {id(p) for group in found.param_groups for p in group["params"]}.isdisjoint(map(id, parameters)):
        raise ValueError(f"optimizer has none of the {len(parameters)} parameters of model and guide; {remedy}")
    return found


class _Group(NamedTuple):
    """A group of an optimizer's: its settings, its parameters, and their states, one by one and by kind."""

    settings: dict[str, Any]
    parameters: list[Tensor]
    states: list[dict[str, Any]]
    by_kind: tuple[list[Tensor], list[Tensor], list[Tensor]]


class QuickStep:
    """``optimizer.step()`` for gradients that lie on the parameters.

    A fused Adam or AdamW in its plain form is stepped by its kernel alone, which spares some 40 us of bookkeeping at
    every step; state, hyperparameters and results are the optimizer's own. Any other optimizer steps as it is.

    Args:
        optimizer: any torch optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.groups: list[_Group] | None = None

    def __call__(self) -> None:
        groups = self.groups
        if groups is not None and self._current(groups):
            self.optimizer._opt_called = True  # type: ignore[attr-defined]  # a schedule's: it warns where it is missing
            for group, parameters, _, state in groups:
                self._step(group, parameters, state)
        else:
            self.optimizer.step()
            self.groups = self._found()

    def _found(self) -> list[_Group] | None:
        """Parameters and state by group; None where the kernel alone would not do."""
        optimizer = self.optimizer
        plain = type(optimizer) in _KERNELS and not any(getattr(optimizer, name, None) for name in _HOOKS)
        if not plain or any(not g["fused"] or any(g[word] for word in _PLAIN) for g in optimizer.param_groups):
            return None
        found = []
        for group in optimizer.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [optimizer.state[p] for p in parameters]
            means, squares, steps = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            if len({(p.dtype, p.device) for p in parameters}) > 1:
                return None
            found.append(_Group(group, parameters, states, (means, squares, steps)))
        return found

    def _current(self, groups: list[_Group]) -> bool:
        """Whether nobody has put other parameters, another state or other settings into the optimizer since."""
        optimizer = self.optimizer
        if len(optimizer.param_groups) != len(groups) or any(getattr(optimizer, name, None) for name in _HOOKS):
            return False
        for now, (group, parameters, states, state) in zip(optimizer.param_groups, groups, strict=True):
            if now is not group or any(group[word] for word in _PLAIN) or not group["fused"]:
                return False
            if sum(p.grad is not None for p in group["params"]) != len(parameters):
                return False
            if any(optimizer.state.get(p) is not s for p, s in zip(parameters, states, strict=True)):
                return False
            if states and states[0]["exp_avg"] is not state[0][0]:
                return False
        return True

    @torch.no_grad()
    def _step(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        state: tuple[list[Tensor], list[Tensor], list[Tensor]],
    ) -> None:
        means, squares, steps = state
        if not parameters:
            return
        torch._foreach_add_(steps, 1)
        _KERNELS[type(self.optimizer)](
            parameters,
            [p.grad for p in parameters],
            means,
            squares,
            [],
            steps,
            amsgrad=False,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )
