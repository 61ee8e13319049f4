"""Data given others: classes of images, a number given the rest of a row."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import is_count, module


class Conditional(PyroModule):
    """y given x, by a network; x itself is not modelled.

        p(y | x)

    There is no latent variable: log p(y | x) is exact, and what is reported as log p(x) of this model is log p(y | x).
    With ``target``, y is a column of x, given all others.

    Sites:
        y: shape (batch, *event), the likelihood's support; observed, or drawn where ``y=None`` and there is no target.

    Args:
        likelihood: conditional distribution p(y | x), a module from x (without the target) to a Pyro distribution.
        target: column of x that is y, from 0; None where y is an argument of its own.

    Raises:
        TypeError: the likelihood is no module, or ``target`` no integer.
        ValueError: ``target`` is negative; when called, x has no such column, or y not the likelihood's event shape.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, sections 1.3.1 and 1.4, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.nets import MLP
        >>> Conditional(Categorical(MLP(64, 16, 10)))(torch.zeros(5, 64)).shape
        torch.Size([5])
    """

    def __init__(self, likelihood: nn.Module, target: int | None = None):
        super().__init__("model")
        module(likelihood=likelihood)
        if target is not None and target != 0 and not is_count(target):
            kind = ValueError if isinstance(target, int) else TypeError
            raise kind(f"target must be the number of a column of x, from 0, or None, got {target!r}")
        self.likelihood, self.target = likelihood, target

    def extra_repr(self) -> str:
        return "" if self.target is None else f"target={self.target}"

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim); what is given.
            y: shape (batch, *event), or None to draw, or to take the target.

        Returns:
            y.
        """
        rows = size(x, 0)
        if self.target is not None:
            x, y = self._apart(x, y)
        with pyro.plate("data", rows):
            likelihood = self.likelihood(x)
            return pyro.sample("y", likelihood, obs=fitting(y, likelihood, "y"))

    def _apart(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """The others, and the target."""
        at = self.target or 0
        if x.dim() < 2 or at >= x.shape[1]:
            raise ValueError(f"x must have a column {at}, the target, got shape {tuple(x.shape)}; pass all columns")
        if y is not None:
            raise ValueError("y must be None where target says which column of x it is; pass x alone")
        return torch.cat([x[:, :at], x[:, at + 1 :]], dim=1), x[:, at : at + 1]
