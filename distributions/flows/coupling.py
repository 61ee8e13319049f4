"""Coupling steps of a flow: one half of the dimensions is changed, given the other half and a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dlvm.nets import MLP
from dlvm.nets.arguments import count, is_count, made, whole, widths

LIMIT = 3.0


class Elementwise(Protocol):
    """An increasing map of each number by itself: parameters have shape (*batch, dim, size), 0 for the identity."""

    size: int

    def __call__(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dy, both of the shape of y."""

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        """y."""


class Affine:
    """z = exp(c tanh(s / c)) y + t,  c = 3: no step stretches or shrinks by more than e^3 = 20."""

    size = 2

    def __call__(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = _affine(parameters)
        return log_scale.exp() * y + shift, log_scale

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        log_scale, shift = _affine(parameters)
        return (z - shift) * (-log_scale).exp()


class Additive:
    """z = y + t, which keeps every volume."""

    size = 1

    def __call__(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return y + parameters.squeeze(-1), torch.zeros_like(y)

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        return z - parameters.squeeze(-1)


def elementwise(bijection: Elementwise) -> Elementwise:
    """The map itself; refuses, by the argument's name, what is none."""
    able = callable(bijection) and callable(getattr(bijection, "inverse", None))
    if isinstance(bijection, type) or not able or not is_count(getattr(bijection, "size", None)):
        got = f"the class {bijection.__name__}" if isinstance(bijection, type) else repr(bijection)
        raise TypeError(
            f"bijection must be a map with size and inverse, got {got}; pass Affine(), Additive() or "
            "RationalQuadratic(bins=8)"
        )
    return bijection


class Conditioner(nn.Module):
    """From some numbers, possibly none, and a context to the parameters of maps; near 0 at the start.

        a_1 = activation(V y + U h + b),  a_2 = activation(W a_1 + b), ...,  parameters = W a_n + b

    Args:
        inputs, context: widths of y and h; one of them may be 0, for none.
        outputs: how many parameters.
        hidden: widths of the hidden layers; () makes the parameters linear in y and h.
        activation: makes the nonlinearity.
    """

    def __init__(
        self, inputs: int, context: int, outputs: int, hidden: Sequence[int], activation: Callable[[], nn.Module]
    ):
        super().__init__()
        width = hidden[0] if hidden else outputs
        self.context = nn.Linear(context, width) if context else None
        self.value = nn.Linear(inputs, width, bias=not context) if inputs else None
        self.rest = MLP(*hidden, outputs, activation=activation) if hidden else None
        self.activation = made("activation", activation)
        last: list[nn.Module | None] = [self.context, self.value] if self.rest is None else [self.rest.layers[-1]]
        with torch.no_grad():
            for parameter in (p for layer in last if layer is not None for p in layer.parameters()):
                parameter.mul_(0.01)

    def forward(self, y: Tensor, h: Tensor | None = None) -> Tensor:
        if (h is None) != (self.context is None):
            raise ValueError("h must be given exactly where the step was made with context > 0; give or omit both")
        batches = [given.shape[:-1] for given in (y, h) if given is not None]
        layers = ((self.value, y), (self.context, h))
        first, *more = [layer(given) for layer, given in layers if layer is not None]
        out = first + more[0] if more else first
        out = out if self.rest is None else self.rest(self.activation(out))
        return out.expand(*torch.broadcast_shapes(*batches), -1)


class Coupling(nn.Module):
    """One step: the first half of the dimensions stays, and decides with the context what happens to the others.

        z_a = y_a,   z_b = f(y_b; conditioner(y_a, h)),   log |dz/dy| = sum_b log f'

    Forward and inverse are one call of the network each. A single dimension is changed given the context alone; of an
    odd number the larger part is changed.

    Args:
        dim: number of dimensions.
        context: width of the context h; 0 for none.
        reverse: the last half stays.
        bijection: f: ``Affine()``, as RealNVP has, ``Additive()``, as NICE has, or ``RationalQuadratic()``.
        hidden: widths of the conditioner's hidden layers.
        activation: makes the conditioner's nonlinearity.

    Raises:
        ValueError: ``dim`` is below 1, or below 2 where there is no context; when called, y has another width, or h is
            missing or superfluous.
        TypeError: ``bijection`` is no such map.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh, Krueger, Bengio, 2015, arXiv:1410.8516.
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.
        Neural Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019, arXiv:1906.04032.

    Example:
        >>> z, log_det = Coupling(3, 4)(torch.zeros(5, 3), torch.zeros(5, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        dim: int,
        context: int,
        reverse: bool = False,
        bijection: Elementwise | None = None,
        hidden: Sequence[int] = (64,),
        activation: Callable[[], nn.Module] = nn.ELU,
    ):
        super().__init__()
        count(dim=dim)
        check_context(context)
        if dim < 2 and not context:
            raise ValueError(f"dim must be at least 2 where there is no context, got {dim}: nothing would decide")
        widths(hidden=hidden)
        self.bijection = Affine() if bijection is None else elementwise(bijection)
        self.dim, self.reverse, self.kept = dim, reverse, dim // 2
        self.changed = dim - self.kept
        self.conditioner = Conditioner(self.kept, context, self.changed * self.bijection.size, hidden, activation)

    def forward(self, y: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, others = self._split(y)
        others, log_slopes = self.bijection(others, self._conditions(kept, h))
        return self._joined(kept, others), log_slopes.sum(-1)

    def inverse(self, z: Tensor, h: Tensor | None = None) -> Tensor:
        kept, others = self._split(z)
        return self._joined(kept, self.bijection.inverse(others, self._conditions(kept, h)))

    def _conditions(self, kept: Tensor, h: Tensor | None) -> Tensor:
        return self.conditioner(kept, h).unflatten(-1, (self.changed, self.bijection.size))

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(y, Tensor) or y.shape[-1:] != (self.dim,):
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"y must be a tensor of shape (*batch, {self.dim}), got {got}; make the step for this dim")
        if self.reverse:
            others, kept = y.split([self.changed, self.kept], dim=-1)
            return kept, others
        return y.split([self.kept, self.changed], dim=-1)

    def _joined(self, kept: Tensor, others: Tensor) -> Tensor:
        kept = kept.expand(*others.shape[:-1], -1)
        return torch.cat([others, kept] if self.reverse else [kept, others], dim=-1)


def check_context(context: int) -> None:
    """Refuses, as the width of a context, anything but an integer of at least 0."""
    whole(context=context)
    if context < 0:
        raise ValueError(f"context must be at least 0, got {context}; pass the width of the context, or 0 for none")


def _affine(parameters: Tensor) -> tuple[Tensor, Tensor]:
    raw, shift = parameters.unbind(-1)
    return LIMIT * torch.tanh(raw / LIMIT), shift
