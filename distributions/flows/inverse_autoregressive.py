"""The inverse autoregressive flow, conditioned on a context."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn import functional as F

from dlvm.distributions.scale import LIMIT, limited, positive
from dlvm.nets import MADE, out_features
from dlvm.nets.arguments import count, real, whole, widths


class InverseAutoregressive(Transform):
    """One gated step y -> z of the flow, for a fixed context.

        z_j = gate_j y_j + (1 - gate_j) m_j,   (m, s) = made(y, h),  gate = sigmoid(limited(s + bias))
        log |dz/dy| = sum_j log gate_j

    Forward is one call of the network, and what it produced is scored for free. A value from elsewhere is inverted in
    D calls, one dimension at a time.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, made: MADE, context: Tensor, bias: float = 2.0, cache_size: int = 1):
        super().__init__(cache_size=cache_size)
        self.made, self.context, self.bias = made, context, bias
        self._scored: tuple[Tensor, Tensor] | None = None

    def with_cache(self, cache_size: int = 1) -> InverseAutoregressive:
        if cache_size == self._cache_size:
            return self
        return InverseAutoregressive(self.made, self.context, self.bias, cache_size)

    def _step(self, y: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.made(y, self.context)
        return m, limited(s + self.bias)

    def _call(self, y: Tensor) -> Tensor:
        m, s = self._step(y)
        if self._cache_size:
            self._scored = y, F.logsigmoid(s).sum(-1)
        return torch.lerp(m, y, torch.sigmoid(s))

    def _inv_call(self, z: Tensor) -> Tensor:
        # A value drawn by sample() carries no graph: reusing what is cached would lose the network's gradient.
        if torch.is_grad_enabled() and not z.requires_grad:
            return self._inverse(z)
        return super()._inv_call(z)

    def _inverse(self, z: Tensor) -> Tensor:
        y = torch.zeros_like(z)
        for degree in range(1, self.made.dim + 1):
            m, s = self._step(y)
            gate = torch.sigmoid(s)
            y = torch.where(self.made.order == degree, (z - (1 - gate) * m) / gate, y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:  # torch's names for y and z
        if self._scored is not None and self._scored[0] is x:
            return self._scored[1]
        return F.logsigmoid(self._step(x)[1]).sum(-1)


class InverseAutoregressiveNormal(nn.Module):
    """A diagonal Gaussian followed by ``depth`` gated inverse autoregressive steps, all given a context.

        z_0 ~ N(c loc(h), c^2 scale(h)^2),   z_t = gate_t z_{t-1} + (1 - gate_t) m_t(z_{t-1}, h)

    Sampling is parallel over dimensions; the order of dimensions is reversed from one step to the next. At the start
    every gate is near sigmoid(bias) and m near 0; c = sigmoid(bias)^-depth undoes that shrinkage, so that the whole
    starts near a plain DiagonalNormal at any depth. The features shift and scale the units of each step's first layer,
    see ``MADE``: what they shift alone makes the same form at every h, moved about.

    Args:
        net: contexts -> features h, with ``out_features``; h enters every step.
        dim: number of dimensions.
        depth: number of steps.
        hidden: widths of the hidden layers of each step's MADE; () makes a step linear.
        bias: added to the gate's logit; 2 keeps 88 % of the input at the start.
        activation: makes the nonlinearity of the MADEs.

    Raises:
        ValueError: ``depth`` is below 1, ``bias`` beyond -10 and 10, or a hidden layer narrower than ``dim``.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow, Kingma, Salimans, Jozefowicz, Chen, Sutskever,
        Welling, 2016, arXiv:1606.04934.

    Example:
        >>> q = InverseAutoregressiveNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        depth: int = 2,
        hidden: Sequence[int] = (128,),
        bias: float = 2.0,
        activation: Callable[[], nn.Module] = nn.ELU,
    ):
        super().__init__()
        count(dim=dim)
        whole(depth=depth)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}; for no flow use DiagonalNormal")
        widths(hidden=hidden)
        real(bias=bias)
        if not abs(bias) <= LIMIT:
            raise ValueError(f"bias must be within -{LIMIT} and {LIMIT}, got {bias}; 2 keeps 88 % of a step's input")
        width = out_features(net)
        self.net, self.head, self.bias = net, nn.Linear(width, 2 * dim), bias
        self.steps = nn.ModuleList(
            MADE(dim, width, hidden, reverse=bool(t % 2), activation=activation, film=True) for t in range(depth)
        )
        self.widening = (1 + math.exp(-bias)) ** depth
        if not hidden:  # no wide layer averages the start of a linear step: it has to be small by itself
            with torch.no_grad():
                for made in self.steps:
                    made.get_parameter("layers.0.weight").mul_(0.01)
                    made.get_parameter("context.weight").mul_(0.01)

    def forward(self, *context: Tensor) -> dist.Distribution:
        h = self.net(*context)
        loc, raw = self.head(h).chunk(2, dim=-1)
        flow = [InverseAutoregressive(cast(MADE, made), h, self.bias) for made in self.steps]
        base = dist.Normal(self.widening * loc, self.widening * positive(raw)).to_event(1)
        return dist.TransformedDistribution(base, flow)
