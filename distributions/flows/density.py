"""A density by an invertible map: of data that the map takes to noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.flows.flow_normal import Bijection
from dlvm.nets.arguments import count, module
from dlvm.nets.mlp import as_floats

NOISES: dict[str, Callable[[Tensor], TorchDistribution]] = {
    "normal": lambda zero: dist.Normal(zero, torch.ones_like(zero)),
    "logistic": lambda zero: dist.Logistic(zero, torch.ones_like(zero)),
}


class Transformed(TorchDistribution):
    """Numbers that an invertible map takes to noise: scored by one pass, drawn by one pass of the inverse.

        log p(x) = log p_noise(f(x)) + log |det df/dx|,   x = f^-1(noise)

    Args:
        flow: f, a map (x, *context) -> (noise, log |det|) with an ``inverse``.
        noise: of the same event shape, without a batch shape.
        *context: tensors that f is given as well, whose leading dimensions are the batch.
        batch_shape: that of the contexts unless told.
        support: of x.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(
        self,
        flow: Bijection,
        noise: TorchDistribution,
        *context: Tensor,
        batch_shape: Sequence[int] | None = None,
        support: constraints.Constraint = constraints.real_vector,
    ):
        self.flow, self.noise, self.context, self._support = flow, noise, context, support
        shape = torch.broadcast_shapes(*(h.shape[:-1] for h in context)) if batch_shape is None else batch_shape
        super().__init__(torch.Size(shape), noise.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        return self._support

    def expand(self, batch_shape: Sequence[int], _instance: Transformed | None = None) -> Transformed:
        return Transformed(self.flow, self.noise, *self.context, batch_shape=batch_shape, support=self._support)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        noise = self.noise.rsample(torch.Size(sample_shape) + self.batch_shape)
        return self.flow.inverse(noise, *self.context)

    def log_prob(self, value: Tensor) -> Tensor:
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"value must have shape (*batch, {self.event_shape[0]}), got {tuple(value.shape)}; make the flow for "
                "this width"
            )
        noise, log_det = self.flow(as_floats(value, self.noise.mean), *self.context)
        found = self.noise.log_prob(noise) + log_det
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))


class FlowDensity(nn.Module):
    """Conditional distribution by an invertible map of data to noise, whose density is exact.

        log p(x | z) = log p_noise(f(x; h)) + log |det df/dx|,   h = net(z)

    Without ``net`` it depends on nothing, and is a model's whole p(x); with it, it is a likelihood of a VAE.

    Args:
        flow: f, a module (x, *context) -> (noise, log |det|) with an ``inverse``, as ``Composition`` or ``MultiScale``.
        dim: numbers in a datum.
        net: contexts -> h, of the width that the flow's steps take; none unless told.
        noise: ``"normal"`` or ``"logistic"``, of location 0 and scale 1.

    Raises:
        ValueError: ``dim`` is below 1, or ``noise`` another word.
        TypeError: the flow is no module with an inverse, or the net no module.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> from dlvm.distributions import Composition, Coupling
        >>> p = FlowDensity(Composition(Coupling(3, 8), Coupling(3, 8, reverse=True)), 3, net=nn.Linear(2, 8))
        >>> x = p(torch.zeros(5, 2)).sample()
        >>> p(torch.zeros(5, 2)).log_prob(x).shape
        torch.Size([5])
    """

    zero: Tensor

    def __init__(self, flow: nn.Module, dim: int, net: nn.Module | None = None, noise: str = "normal"):
        super().__init__()
        module(flow=flow, **({} if net is None else {"net": net}))
        count(dim=dim)
        check_inverse("flow", flow)
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
        self.flow, self.net, self.noise = flow, net, noise
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def extra_repr(self) -> str:
        return f"noise={self.noise!r}"

    def forward(self, *context: Tensor) -> Transformed:
        if self.net is None and context:
            raise ValueError("context must not be given to a density without a net; make it with net=..., or omit it")
        h = () if self.net is None else (self.net(*context),)
        support = getattr(self.flow, "domain", constraints.real_vector)
        noise = NOISES[self.noise](self.zero).to_event(1)
        return Transformed(cast(Bijection, self.flow), noise, *h, support=support)


class Composition(nn.Module):
    """Invertible maps one after the other; all are given the same context.

        z = f_n( ... f_1(y) ...),   log |det dz/dy| = sum_i log |det df_i|

    Args:
        *maps: modules (y, *context) -> (z, log |det|), each with an ``inverse``.

    Raises:
        ValueError: there is none.
        TypeError: one is no module, or has no inverse.

    Example:
        >>> from dlvm.distributions import Coupling
        >>> flow, y = Composition(Coupling(3, 0), Coupling(3, 0, reverse=True)), torch.randn(5, 3)
        >>> flow.inverse(flow(y)[0]).allclose(y, atol=1e-5)
        True
    """

    def __init__(self, *maps: nn.Module):
        super().__init__()
        if not maps:
            raise ValueError("maps must be one or more, got none; write Composition(Coupling(2, 0))")
        for i, each in enumerate(maps):
            check_inverse(f"maps[{i}]", each)
        self.maps = nn.ModuleList(maps)

    @property
    def domain(self) -> constraints.Constraint:
        """Where y lies, as the first map says."""
        return getattr(self.maps[0], "domain", constraints.real_vector)

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dz/dy|."""
        total: Any = 0.0
        for each in self.maps:
            y, log_det = each(y, *context)
            total = total + log_det
        return y, total

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        for each in reversed(self.maps):
            z = cast(Bijection, each).inverse(z, *context)
        return z

    @torch.no_grad()
    def initialise(self, y: Tensor, *context: Tensor) -> Tensor:
        """Lets each map that starts from data see those that reach it, in order; returns z."""
        for each in self.maps:
            y = initialised(each, y, *context)
        return y


def initialised(flow: nn.Module, y: Tensor, *context: Tensor) -> Tensor:
    """z of a map that has been started from these data, where it starts from data at all."""
    start = getattr(flow, "initialise", None)
    return flow(y, *context)[0] if start is None else start(y, *context)


def check_inverse(name: str, flow: object) -> None:
    """Refuses, by the argument's name, what is no module with an inverse."""
    module(**{name: flow})
    if not callable(getattr(flow, "inverse", None)):
        raise TypeError(
            f"{name} must have an inverse(z, *context), got {type(flow).__name__}; pass a Coupling, a Composition or a "
            "module of your own with both directions"
        )
