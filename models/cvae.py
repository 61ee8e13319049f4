"""The VAE that is given something beside z: a class, a vector, or a part of the data."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import StandardNormal
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count, module


class CVAE(PyroModule):
    """A latent vector per datum, decoded by a network that sees what is given as well.

        p(x, z | y) = p(z | y) p(x | z, y)

    y has no distribution: what is reported as log p(x) of this model is log p(x | y). With ``seen``, y is a part of x,
    as known pixels, and x the rest. A guide is any that ``latents(model, x, y)`` makes, whose encoder takes both, as
    ``Joined(MLP(784 + 10, 200), [MLP(784), Classes(10)])``; with ``seen`` it takes whole rows of x.

    Sites:
        z: shape (batch, z_dim), real unless the prior says otherwise; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``. With ``seen``, the
            columns that are not.

    Args:
        z_dim: number of latent dimensions.
        likelihood: conditional distribution p(x | z, y), a module from (z, y), as
            ``Bernoulli(Joined(MLP(z_dim + 10, 200, 784), [MLP(z_dim), Classes(10)]))``.
        prior: conditional distribution p(z | y), a module from y, as ``DiagonalNormal(Joined(MLP(10, 50),
            [Classes(10)]), z_dim)``; N(0, I) whatever y unless told.
        seen: shape (x_dim,), bools: which columns of x are y; None where y is an argument of its own.

    Raises:
        ValueError: ``seen`` marks no column, or all; when called, y is not there or has not one row per datum, the
            prior's event shape is not (z_dim,), or data do not have the likelihood's.
        TypeError: likelihood or prior is no module, or ``seen`` no vector of bools.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models, Sohn, Lee, Yan, 2015,
            Advances in Neural Information Processing Systems 28.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 1.3.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP, Classes, Joined
        >>> model = CVAE(2, Bernoulli(Joined(MLP(2 + 10, 16, 64), [MLP(2), Classes(10)])))
        >>> model(y=torch.tensor([3]), n=5).shape  # five images of a three
        torch.Size([5, 64])
    """

    def __init__(self, z_dim: int, likelihood: nn.Module, prior: nn.Module | None = None, seen: Tensor | None = None):
        super().__init__("model")
        count(z_dim=z_dim)
        module(likelihood=likelihood, **({} if prior is None else {"prior": prior}))
        if seen is not None and (not isinstance(seen, Tensor) or seen.dtype != torch.bool or seen.dim() != 1):
            raise TypeError(f"seen must be bools of shape (x_dim,) or None, got {seen!r}; write torch.arange(64) < 32")
        if seen is not None and not 0 < int(seen.sum()) < len(seen):
            raise ValueError(
                f"seen must mark some columns and leave some, got {int(seen.sum())} of {len(seen)}; without any given "
                "the model is a VAE"
            )
        self.z_dim, self.likelihood = z_dim, likelihood
        self.prior = _Whatever(z_dim) if prior is None else prior
        places = (None, None) if seen is None else (seen.nonzero()[:, 0], (~seen).nonzero()[:, 0])
        self.register_buffer("seen", places[0])
        self.register_buffer("left", places[1])

    def forward(self, x: Tensor | None = None, y: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            y: shape (batch, ...), what is given; None where it is a part of x.
            n: how many data to draw where x is None: as many as y has rows, or any number for y of one row.

        Returns:
            x, shape (batch, x_dim); with ``seen``, the columns that are not.
        """
        rows = size(x, n)
        x, y = self._apart(x, y)
        if x is None and 1 in (n, len(y)):
            rows = max(n, len(y))
            y = y.expand(rows, *y.shape[1:])
        if len(y) != rows:
            raise ValueError(
                f"y must have one row for each datum of x, got {len(y)} for {rows}; pass as many, or one and n to draw"
            )
        with pyro.plate("data", rows):
            z = pyro.sample("z", self._prior(y))
            likelihood = self.likelihood(z, y)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def whole(self, x: Tensor, y: Tensor) -> Tensor:
        """Rows of all columns, of those that were drawn and those that were given.

        Args:
            x: shape (..., columns that were not seen).
            y: shape (..., columns that were).

        Returns:
            shape (..., x_dim).
        """
        if self.seen is None:
            raise ValueError("x is whole where y is an argument of its own; use it as it is")
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise TypeError(
                f"x and y must be tensors, got {type(x).__name__} and {type(y).__name__}; see torch.as_tensor"
            )
        if (x.shape[-1:], y.shape[-1:]) != ((len(self.left),), (len(self.seen),)):
            raise ValueError(
                f"x and y must have {len(self.left)} and {len(self.seen)} columns, got shapes {tuple(x.shape)} and "
                f"{tuple(y.shape)}; pass what was drawn, and what was given"
            )
        return torch.cat([x, y.to(x).expand(*x.shape[:-1], -1)], -1)[..., torch.cat([self.left, self.seen]).argsort()]

    def _apart(self, x: Tensor | None, y: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """x and y, each a tensor of its own."""
        if self.seen is not None and x is not None:
            if y is not None:
                raise ValueError("y must be None where seen says which columns of x it is; pass whole rows of x alone")
            width = len(self.seen) + len(self.left)
            if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != width:
                got: object = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(
                    f"x must have all {width} columns, seen ones too, got {got}; pass shape (batch, {width})"
                )
            return x.index_select(1, self.left), x.index_select(1, self.seen)
        if not isinstance(y, Tensor) or not y.dim() or not len(y):
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"y must be a tensor with one row per datum, got {got}: p(x | y) is of data given y; pass model(x, y), "
                'model(y=y) to draw, or generate(model, n, given={"y": y})'
            )
        if self.seen is not None and y.shape[1:] != self.seen.shape:
            raise ValueError(f"y must have shape (batch, {len(self.seen)}), the seen columns, got {tuple(y.shape)}")
        return x, y

    def _prior(self, y: Tensor) -> dist.TorchDistribution:
        made: dist.TorchDistribution = self.prior(y)
        if made.event_shape != (self.z_dim,) or made.batch_shape not in ((), y.shape[:1]):
            raise ValueError(
                f"prior makes a batch of {tuple(made.batch_shape)} and events of {tuple(made.event_shape)} where "
                f"({len(y)},) and ({self.z_dim},) are needed; declare dimensions with to_event(1)"
            )
        return made


class _Whatever(StandardNormal):
    """N(0, I), whatever is given."""

    def forward(self, y: Tensor) -> dist.Distribution:  # type: ignore[override]  # a conditional distribution
        return super().forward()
