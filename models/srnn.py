"""The stochastic recurrent neural network: a state space on top of a recurrent net of the data."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.distributions.sequences.steps import State
from dlvm.models.interleaved import Interleaved, beside, moved
from dlvm.nets import MLP
from dlvm.nets.arguments import count


class SRNN(Interleaved):
    """A recurrent net reads the data before each step, and a Markov chain of latent vectors lies on top of it.

        p(x, z) = prod_t p(z_t | z_t-1, d_t) p(x_t | z_t, d_t),   d_t+1 = GRU(d_t; x_t),   d_1 = 0, z_0 = 0

    What is certain, d, and what is not, z, are kept apart. Sites take turns, since p(z_t) depends on x_1..x_t-1. The
    guide of the paper is ``Sequential`` with an encoder that reads both ways: q(z_t | z_t-1, x_1..x_T).

    Sites:
        z_1, ..., z_T: shape (batch, z_dim), real; latent.
        x_1, ..., x_T: shape (batch, x_dim), each drawn after its z; observed, or drawn where ``x=None``.

    Args:
        z_dim: latent dimensions of a step.
        x_dim: number of observed variables.
        hidden: width of d.
        likelihood: p(x_t | z_t, d_t), a module of (*batch, z_dim + hidden), z_t and d_t side by side, that returns a
            distribution of event shape (x_dim,), as ``Bernoulli(MLP(z_dim + hidden, 64, x_dim))``.

    Raises:
        TypeError: a number is no integer, or ``likelihood`` no module that returns a distribution of such vectors.
        ValueError: a number is below 1, or p(x_t) has another shape; when called, a number of x is missing, or x
            has another shape.

    References:
        Sequential Neural Models with Stochastic Layers, Fraccaro, Sonderby, Paquet, Winther, 2016, arXiv:1605.07571.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> SRNN(2, 3, 8, Bernoulli(MLP(10, 3)))(n=5, steps=7).shape
        torch.Size([5, 7, 3])
    """

    def __init__(self, z_dim: int, x_dim: int, hidden: int, likelihood: nn.Module):
        count(z_dim=z_dim, hidden=hidden)
        super().__init__(z_dim, x_dim, hidden, likelihood, z_dim + hidden)
        self.prior = DiagonalNormal(MLP(z_dim + hidden, hidden), z_dim)
        self.cell = nn.GRUCell(x_dim, hidden)

    def begin(self, rows: int) -> State:
        weight = self.cell.weight_hh
        return weight.new_zeros(rows, self.hidden), weight.new_zeros(rows, self.z_dim)

    def z_given(self, state: State) -> TorchDistribution:
        certain, last = state
        return self.prior(beside(last, certain))

    def x_given(self, state: State, z: Tensor) -> TorchDistribution:
        return self.likelihood(beside(z, state[0]))

    def after(self, state: State, z: Tensor, x: Tensor) -> State:
        certain = state[0]
        return moved(self.cell, x.expand(*certain.shape[:-1], x.shape[-1]), certain), z
