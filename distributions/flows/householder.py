"""The Householder flow, conditioned on a context: a Gaussian whose axes are turned by reflections."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.distributions.flows.base import Flow, OneWay


def reflected(y: Tensor, v: Tensor) -> Tensor:
    """(I - 2 v v' / |v|^2) y, for y and v of shape (*batch, D) that broadcast."""
    n = F.normalize(v, dim=-1)
    return y - 2 * (n * y).sum(-1, keepdim=True) * n


class Householder(OneWay):
    """A step that reflects the space at the hyperplane orthogonal to v, and is its own inverse.

        z = (I - 2 v v' / |v|^2) y,   log |det dz/dy| = 0

    Args:
        v: shape (*batch, D), not zero.
    """

    def push(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return reflected(y, *self.parameters), y.new_zeros(y.shape[:-1])

    def _inverse(self, z: Tensor) -> Tensor:
        return reflected(z, *self.parameters)


class HouseholderStep(nn.Module):
    """Features h -> Householder, its vector linear in h."""

    def __init__(self, width: int, dim: int, t: int = 0):
        super().__init__()
        self.linear = nn.Linear(width, dim)

    def forward(self, h: Tensor) -> Householder:
        return Householder(self.linear(h))


class HouseholderNormal(Flow):
    """A diagonal Gaussian followed by ``depth`` reflections, all given a context: a Gaussian with turned axes.

        q(z | h) = N(z; Q(h) loc(h), Q(h) diag(scale(h)^2) Q(h)'),   Q = H_T ... H_1
        H_t = I - 2 v_t(h) v_t(h)' / |v_t(h)|^2

    dim - 1 reflections are enough for any covariance. They start in pairs which undo each other; where depth is odd,
    one is left over.

    Args:
        net, dim, depth: see ``Flow``.

    Raises:
        ValueError: ``depth`` is below 1.

    References:
        Improving Variational Auto-Encoders using Householder Flow, Tomczak, Welling, 2016, arXiv:1611.09630.

    Example:
        >>> import torch
        >>> q = HouseholderNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4))
        >>> q.log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, dim: int, depth: int = 4):
        super().__init__(net, dim, depth, HouseholderStep)
        for first, second in zip(self.steps[0::2], self.steps[1::2], strict=False):
            second.load_state_dict(first.state_dict())
