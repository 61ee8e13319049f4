"""Pseudo-inputs of a VampPrior: data that are learned within the range of real ones, or some of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import biject_to, constraints, transforms

EDGE = 0.02


class LearnedInputs(nn.Module):
    """K data that are learned from where they start, and stay within a support.

        u = f(scale * v),   v learned,   f from real numbers to the support

    ``scale`` is the spread of the start before f, column by column, so that a step moves u by a share of what data
    differ by, whatever their unit.

    Args:
        start: K rows, shape (K, ...), finite; at the edge of a support, where nothing could be learned, they are moved
            inwards by 0.02.
        support: ``constraints.real``, ``positive`` or ``unit_interval`` of torch.

    Raises:
        TypeError: ``start`` is no tensor of floats, or ``support`` no constraint.
        ValueError: ``start`` has no rows, is not finite or outside of the support; or the support is another.

    Example:
        >>> LearnedInputs(torch.eye(3), constraints.unit_interval)().shape
        torch.Size([3, 3])
    """

    scale: Tensor

    def __init__(self, start: Tensor, support: constraints.Constraint = constraints.real):
        super().__init__()
        start = _rows("start", start)
        if not isinstance(support, constraints.Constraint):
            raise TypeError(f"support must be a constraint, got {support!r}; write constraints.unit_interval")
        if not any(support is known for known in (constraints.real, constraints.positive, constraints.unit_interval)):
            raise ValueError(f"support must be real, positive or unit_interval of torch's constraints, got {support}")
        if not bool(start.isfinite().all()):
            raise ValueError("start must be finite, got NaN or inf; fill what is missing, as with the column's mean")
        self.support = support
        raw = self._to_support().inv(_inside(start, support))
        spread = raw.std(0) if len(raw) > 1 else torch.ones_like(raw[0])
        self.register_buffer("scale", torch.where(spread > 1e-6, spread, 1.0))
        self.values = nn.Parameter(raw / self.scale)

    def forward(self) -> Tensor:
        """The pseudo-inputs, shape (K, ...)."""
        return self._to_support()(self.scale * self.values)

    def _to_support(self) -> transforms.Transform:
        return biject_to(self.support)


class FixedInputs(nn.Module):
    """Some of the data, as they are.

    Args:
        values: K rows, shape (K, ...).

    Raises:
        TypeError: ``values`` is no tensor of floats.
        ValueError: there are no rows.

    Example:
        >>> FixedInputs(torch.eye(3))().shape
        torch.Size([3, 3])
    """

    values: Tensor

    def __init__(self, values: Tensor):
        super().__init__()
        self.register_buffer("values", _rows("values", values).clone())

    def forward(self) -> Tensor:
        """The pseudo-inputs, shape (K, ...)."""
        return self.values


def _rows(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of floats, got {got}; write torch.as_tensor({name}).float()")
    if value.dim() < 2 or not value.numel():
        raise ValueError(f"{name} must have shape (K, ...), got {tuple(value.shape)}; one datum is x[None]")
    return value.detach()


def _inside(start: Tensor, support: constraints.Constraint) -> Tensor:
    """The rows, away from the edge of their support."""
    if support is constraints.real:
        return start
    if not bool((start >= 0).all()) or (support is constraints.unit_interval and not bool((start <= 1).all())):
        raise ValueError(
            f"start must lie in the support {support}, got numbers from {start.min():g} to {start.max():g}; choose "
            "constraints.real, or another start"
        )
    return start.clamp(EDGE, 1 - EDGE) if support is constraints.unit_interval else start.clamp_min(EDGE)
