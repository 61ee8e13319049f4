"""Counts of known batches, with a class that some labels tell: a semi-supervised model of single cells."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.models.arguments import fitting
from dlvm.models.m2 import class_logits, data_count, one_of
from dlvm.nets.arguments import count, module


class SCANVI(PyroModule):
    """A class, a latent vector given it, and a size, from which counts are drawn in a batch of measurements.

        p(x, y, z, l | b) = p(y) p(z | y) p(l | b) p(x | z, b, l),   y one-hot

    b, the batch (a laboratory, a day, a donor), is given and has no distribution: what is reported as log p(x) is
    log p(x | b). Since p(z | y) knows nothing of b, z is to say of a datum what batches do not change. A datum with a
    label has y fixed by it, and its log-weight is that of log p(x, y | b); one without has y latent. Both may be in one
    batch of data. The published model has a second latent vector beneath z, which makes p(z | y) a mixture; here it is
    what ``prior`` says, one Gaussian for each class as a rule.

    A guide is ``Labelled(Diagonal(latents(model, x, y, b), encoder))``, whose encoder is called with x and b:
    ``Joined(MLP(100 + 3, 64), [MLP(100), Classes(3)])``.

    Sites:
        y: shape (batch, classes), one-hot; latent, and certain where there is a label.
        label: log p(y) of the labels, a factor; there where labels are passed.
        z: shape (batch, z_dim), real; latent.
        library: shape (batch,), positive; latent, and there where the model has ``library``.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        classes: how many.
        z_dim: number of latent dimensions.
        likelihood: conditional distribution p(x | z, b, l), a module called as ``likelihood(z, b, total=l)``, as
            ``NegativeBinomial(Joined(MLP(z_dim + 3, 64), [MLP(z_dim), Classes(3)]), 100)``; without what the model
            has not.
        prior: conditional distribution p(z | y), a module from a one-hot y, as ``DiagonalNormal(MLP(classes), z_dim)``.
        library: conditional distribution p(l | b) of one positive number, as ``LibrarySize``; None for none.
        shares: p(y), a positive number for each class; the same for all unless told.

    Raises:
        ValueError: there are fewer than two classes, or ``shares`` are not positive numbers, one for each; when called,
            a label is no class, there is not one batch number for each datum, the prior's events are not of z_dim
            numbers, or data have another shape.
        TypeError: a part is no module; when called, labels or batches are no tensor.

    References:
        Probabilistic harmonization and annotation of single-cell transcriptomics data with deep generative models, Xu,
            Lopez, Mehlman, Regier, Jordan, Yosef, 2021, Molecular Systems Biology 17.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.5.1, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> from dlvm.distributions import DiagonalNormal, LibrarySize, NegativeBinomial
        >>> from dlvm.nets import MLP, Classes, Joined
        >>> likelihood = NegativeBinomial(Joined(MLP(2 + 3, 8), [MLP(2), Classes(3)]), 20)
        >>> library = LibrarySize(torch.full((3,), 5.0), torch.full((3,), 0.2))
        >>> model = SCANVI(4, 2, likelihood, DiagonalNormal(MLP(4), 2), library)
        >>> model(y=torch.tensor([3, -1]), b=torch.tensor([0, 2])).shape
        torch.Size([2, 20])
    """

    def __init__(
        self,
        classes: int,
        z_dim: int,
        likelihood: nn.Module,
        prior: nn.Module,
        library: nn.Module | None = None,
        shares: Sequence[float] | Tensor | None = None,
    ):
        super().__init__("model")
        count(z_dim=z_dim)
        module(likelihood=likelihood, prior=prior, **({} if library is None else {"library": library}))
        self.classes, self.z_dim = classes, z_dim
        self.likelihood, self.prior, self.library = likelihood, prior, library
        self.register_buffer("logits", class_logits(classes, shares))

    def forward(self, x: Tensor | None = None, y: Tensor | None = None, b: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            y: labels, shape (batch,), -1 or NaN where there is none; None where no datum has one.
            b: which batch each datum is from, shape (batch,), from 0; None for a model of one alone.
            n: how many data to draw where x, y and b are None, or b has one row.

        Returns:
            x, shape (batch, x_dim).
        """
        rows = data_count(x, y, n)
        if b is not None:
            rows, b = beside(b, rows, x is None and y is None)
        given = () if b is None else (b,)
        with pyro.plate("data", rows):
            one_hot = one_of(self.logits, y, rows)
            z = pyro.sample("z", self._prior(one_hot))
            total = {} if self.library is None else {"total": pyro.sample("library", self.library(*given))}
            likelihood = self.likelihood(z, *given, **total)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def _prior(self, y: Tensor) -> dist.TorchDistribution:
        made: dist.TorchDistribution = self.prior(y)
        if made.event_shape != (self.z_dim,):
            raise ValueError(
                f"prior makes events of {tuple(made.event_shape)} where z_dim={self.z_dim}; make both the same, and "
                "declare dimensions with to_event(1)"
            )
        return made


def beside(b: Tensor, rows: int, free: bool) -> tuple[int, Tensor]:
    """How many data there are, and the batch of each.

    Args:
        b: batches.
        rows: how many data are asked for.
        free: whether b may say how many, or be one for all.
    """
    if not isinstance(b, Tensor):
        raise TypeError(f"b must be a tensor of batches, one for each datum, got {type(b).__name__}; pass torch.tensor")
    if b.dim() == 1 and len(b) and free and 1 in (rows, len(b)):
        rows = max(rows, len(b))
        b = b.expand(rows)
    if b.shape != (rows,):
        raise ValueError(
            f"b must have one batch for each of {rows} data, as x and y do, shape ({rows},), got {tuple(b.shape)}; "
            "pass the number of each datum's batch"
        )
    return rows, b
