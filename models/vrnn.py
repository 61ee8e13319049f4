"""The variational recurrent neural network: a VAE at each step, all of them tied by one recurrent state."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.distributions.sequences.steps import State
from dlvm.models.interleaved import Interleaved, beside, moved
from dlvm.nets import MLP
from dlvm.nets.arguments import count


class VRNN(Interleaved):
    """A latent vector at each step, whose prior a recurrent net makes of all before it, and which enters that net.

        p(x, z) = prod_t p(z_t | h_t-1) p(x_t | z_t, h_t-1),   h_t = GRU(h_t-1; f(x_t), g(z_t)),   h_0 = 0

    Sites take turns, since p(z_t) depends on x_1..x_t-1. The guide of the paper reads h_t-1, which holds all draws
    before; ``Sequential`` has the last draw and a recurrent net of its own.

    Sites:
        z_1, ..., z_T: shape (batch, z_dim), real; latent.
        x_1, ..., x_T: shape (batch, x_dim), each drawn after its z; observed, or drawn where ``x=None``.

    Args:
        z_dim: latent dimensions of a step.
        x_dim: number of observed variables.
        hidden: width of h, and of the nets f and g.
        likelihood: p(x_t | z_t, h_t-1), a module of (*batch, 2 hidden), g(z_t) and h_t-1 side by side, that returns a
            distribution of event shape (x_dim,), as ``Bernoulli(MLP(2 * hidden, 64, x_dim))``.

    Raises:
        TypeError: a number is no integer, or ``likelihood`` no module that returns a distribution of such vectors.
        ValueError: a number is below 1, or p(x_t) has another shape; when called, a number of x is missing, or x
            has another shape.

    References:
        A Recurrent Latent Variable Model for Sequential Data, Chung, Kastner, Dinh, Goel, Courville, Bengio, 2015,
            arXiv:1506.02216.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> VRNN(2, 3, 8, Bernoulli(MLP(16, 3)))(n=5, steps=7).shape
        torch.Size([5, 7, 3])
    """

    def __init__(self, z_dim: int, x_dim: int, hidden: int, likelihood: nn.Module):
        count(z_dim=z_dim, hidden=hidden)
        super().__init__(z_dim, x_dim, hidden, likelihood, 2 * hidden)
        self.prior = DiagonalNormal(MLP(hidden, hidden), z_dim)
        self.of_x, self.of_z = MLP(x_dim, hidden), MLP(z_dim, hidden)
        self.cell = nn.GRUCell(2 * hidden, hidden)

    def begin(self, rows: int) -> State:
        return self.cell.weight_hh.new_zeros(rows, self.hidden)

    def z_given(self, state: State) -> TorchDistribution:
        return self.prior(state)

    def x_given(self, state: State, z: Tensor) -> TorchDistribution:
        return self.likelihood(beside(self.of_z(z), state))

    def after(self, state: State, z: Tensor, x: Tensor) -> State:
        return moved(self.cell, beside(self.of_x(x), self.of_z(z)), state)
