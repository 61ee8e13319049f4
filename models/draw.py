"""DRAW: an image that is drawn step by step on a canvas."""

from __future__ import annotations

from functools import partial

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import StandardNormal
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count, module, out_features
from dlvm.nets.sequences.recurrent import LSTMCell


class DRAW(PyroModule):
    """A canvas to which each of T steps adds what a recurrent net makes of a latent vector.

        p(x, z_1, ..., z_T) = prod_t N(z_t; 0, I) p(x | c_T),
        h_t = LSTM(z_t, h_(t-1)),   c_t = c_(t-1) + write(h_t),   h_0 and c_0 learned

    The T latent vectors are sites of their own, since what a guide has to know of z_t is the canvas that those before
    have left. At each of them the model says, by ``infer={"state": h_(t-1), "mean": E p(x | c_(t-1))}``, how far it
    has come; the mean is a function without arguments, which costs nothing until a guide asks. ``Feedback`` reads both.

    Sites:
        z_1, ..., z_T: shape (batch, z_dim), real; latent.
        x: the likelihood's shape and support; observed, or drawn where ``x=None``.

    Args:
        likelihood: p(x | c_T), a module from the canvas, shape (*batch, write.out_features), to a Pyro distribution.
        write: the net from h_t, shape (*batch, width), to what is added to the canvas; ``Write``, or a linear layer.
        z_dim: numbers of each latent vector.
        steps: T.
        width: of h_t.
        start: shape (write.out_features,), the canvas c_0 that training starts from; zeros unless told.

    Raises:
        ValueError: a number is below 1, or ``start`` has another shape.
        TypeError: likelihood or write is no module, write has no ``out_features``, a number is no integer, or ``start``
            no tensor.

    References:
        DRAW: A Recurrent Neural Network For Image Generation, Gregor, Danihelka, Graves, Rezende, Wierstra, 2015,
            arXiv:1502.04623.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP, Write
        >>> model = DRAW(Bernoulli(MLP(64)), Write(16, (8, 8), size=3), z_dim=4, steps=5, width=16)
        >>> model(n=3).shape
        torch.Size([3, 64])
    """

    def __init__(
        self,
        likelihood: nn.Module,
        write: nn.Module,
        z_dim: int = 10,
        steps: int = 10,
        width: int = 128,
        start: Tensor | None = None,
    ):
        super().__init__("model")
        module(likelihood=likelihood, write=write)
        count(z_dim=z_dim, steps=steps, width=width)
        self.prior, self.cell = StandardNormal(z_dim), LSTMCell(z_dim, width)
        self.write, self.likelihood, self.steps = write, likelihood, steps
        try:
            self.start = nn.Parameter(torch.zeros(out_features(write)))
        except TypeError as error:
            raise TypeError(f"write is no net from states to canvases: {error}") from None
        if start is not None:
            if not isinstance(start, Tensor):
                raise TypeError(f"start must be a tensor, got {type(start).__name__}; pass torch.logit(train.mean)")
            if start.shape != self.start.shape or not bool(start.isfinite().all()):
                got = "other numbers" if start.shape == self.start.shape else tuple(start.shape)
                raise ValueError(f"start must be finite and have shape {tuple(self.start.shape)}, got {got}")
            with torch.no_grad():
                self.start.copy_(start)

    def extra_repr(self) -> str:
        return f"steps={self.steps}"

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        h, c = self.cell.start()
        canvas: Tensor = self.start
        with pyro.plate("data", size(x, n)):
            for step in range(1, self.steps + 1):
                said = {"state": h, "mean": partial(self.mean, canvas)}
                z = pyro.sample(f"z_{step}", self.prior(), infer=said)  # type: ignore[arg-type]  # any words may stand there
                h, c = self.cell(z, (h, c))
                canvas = canvas + self.write(h)
            likelihood = self.likelihood(canvas)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def mean(self, canvas: Tensor) -> Tensor:
        """E p(x | canvas), shape (*batch, x_dim)."""
        return self.likelihood(canvas).mean
