"""A state-space model of binary frames, and its guide that reads the sequence backwards."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.nets import MLP


class StateSpace(PyroModule):
    """A deep Markov model.

        p(x, z) = p(z_1) prod_t p(z_t | z_{t-1}) prod_t p(x_t | z_t)

    Sites:
        z_1..z_T: shape (batch, z_dim), real; latent.
        x_1..x_T: shape (batch, x_dim), binary; observed, or drawn where ``x=None``.

    Args:
        x_dim, z_dim: dimensions of a frame and of a state.
        hidden: width of the hidden layers.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869.
    """

    def __init__(self, x_dim: int, z_dim: int, hidden: int):
        super().__init__("model")
        self.prior = StandardNormal(z_dim)
        self.transition = DiagonalNormal(MLP(z_dim, hidden, output=nn.ReLU), z_dim)
        self.likelihood = Bernoulli(MLP(z_dim, hidden, x_dim))

    def forward(self, x: Tensor | None = None, n: int = 1, steps: int = 10) -> Tensor:
        """x, shape (batch, T, x_dim); T is ``steps`` where x is None."""
        frames, z = [], None
        with pyro.plate("data", n if x is None else len(x)):
            for t in range(steps if x is None else x.shape[1]):
                z = pyro.sample(f"z_{t + 1}", self.prior() if z is None else self.transition(z))
                seen = None if x is None else x[:, t]
                frames.append(pyro.sample(f"x_{t + 1}", self.likelihood(z), obs=seen))
        return torch.stack(frames, dim=1)


class Smoother(PyroModule):
    """A guide that knows the future.

        q(z | x) = prod_t q(z_t | z_{t-1}, h_t),   h_t = GRU(x_T, ..., x_t),   z_0 = 0

    Sites:
        z_1..z_T: as in ``StateSpace``.

    Args:
        x_dim, z_dim: dimensions of a frame and of a state.
        hidden: width of the GRU and of the layer after it.

    References:
        see ``StateSpace``.
    """

    def __init__(self, x_dim: int, z_dim: int, hidden: int):
        super().__init__("guide")
        self.encoder = nn.GRU(x_dim, hidden, batch_first=True)
        self.posterior = DiagonalNormal(MLP(hidden + z_dim, hidden, output=nn.ReLU), z_dim)
        self.register_buffer("start", torch.zeros(z_dim))

    def forward(self, x: Tensor) -> None:
        """Runs the program; x has shape (batch, T, x_dim)."""
        h = self.encoder(x.flip(1))[0].flip(1)
        z = self.start
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                z = pyro.sample(f"z_{t + 1}", self.posterior(h[:, t], z))
