"""A density of real numbers as a model of grey levels."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from dlvm.distributions.likelihoods.dequantised import CellLevels, CellNoise, Cells
from dlvm.distributions.likelihoods.greys import checked_levels
from dlvm.nets.arguments import module


class Dequantised(PyroModule):
    """Any model of real numbers from 0 to 1, made one of grey levels k / (levels - 1) by noise within their cells.

        p(x, u, z) = p(z) p(y | z) / levels^D,   y = (k + u) / levels,   x = k / (levels - 1),   0 <= u_d <= 1

    The noise u is latent, and its guide dequantises: ``Dequantiser`` with uniform noise, or with a learned one.
    Either bound is one on the log-probability of the levels, P(x) = int over u of p(x, u), with nothing to be added:

        E_q [ log p(x, u, z) - log q(u, z | x) ] <= log P(x)

    so that nats are of a probability, bits per dimension are -log_px / (D log 2), and more particles close the gap.
    What a density has outside of [0, 1] is lost, and probabilities then sum to less than 1. Where u is not drawn by
    the model but given, x is drawn anew from P(x | z).

    Sites:
        those of the model but x;
        u: shape of x, from 0 to 1; latent, and last.
        x: 0, 1 / (levels - 1), ..., 1; observed, or drawn where ``x=None``.

    Args:
        model: with the site x, and the signature model(x=None, n=1), as ``VAE``.
        levels: how many grey levels there are, 256 for 8 bits.

    Raises:
        ValueError: ``levels`` is below 2; when called, the model has a site u, or data are no such levels.
        TypeError: ``model`` is no module.

    References:
        A Note on the Evaluation of Generative Models, Theis, van den Oord, Bethge, 2016, arXiv:1511.01844.
        Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design, Ho,
            Chen, Srinivas, Duan, Abbeel, 2019, arXiv:1902.00275.

    Example:
        >>> import torch
        >>> from dlvm.distributions import Normal
        >>> from dlvm.models import VAE
        >>> from dlvm.nets import MLP
        >>> model = Dequantised(VAE(2, Normal(MLP(2, 8), 3)), levels=17)
        >>> (model(n=5) * 16).frac().abs().max()
        tensor(0.)
    """

    def __init__(self, model: nn.Module, levels: int = 256):
        super().__init__("model")
        module(model=model)
        self.levels = checked_levels(levels)
        self.model = model

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, of the same shape.
        """
        with _InCells(self.levels):
            return self.model(x, n)


class _InCells(Messenger):
    """Puts the noise before the site x, and the levels in the place of its density."""

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x":
            cells = Cells(msg["fn"], self.levels)
            msg["fn"] = CellLevels(cells, pyro.sample("u", CellNoise(cells)))
