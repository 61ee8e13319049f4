"""The semi-supervised deep generative model: a class and a latent vector for each datum, some classes being known."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import StandardNormal
from dlvm.distributions.categorical import OneHotDraws
from dlvm.distributions.priors.labels import labels_of
from dlvm.models.arguments import distribution_of, fitting, size
from dlvm.nets.arguments import count, is_count, module


class M2(PyroModule):
    """A class and a latent vector beside it, which together are decoded; labels say the class of some of the data.

        p(x, y, z) = p(y) p(z) p(x | y, z),   y one-hot

    A datum with a label has y fixed by it, and its log-weight is that of log p(x, y); one without has y latent, and its
    log-weight is that of log p(x). Both may be in one batch. What is reported as log p(x) is that where no labels are
    passed.

    Sites:
        y: shape (batch, classes), one-hot; latent, and certain where there is a label.
        label: log p(y) of the labels, a factor; there where labels are passed.
        z: shape (batch, z_dim), real unless the prior says otherwise; latent.
        x: shape (batch, x_dim), the likelihood's support; observed, or drawn where ``x=None``.

    Args:
        classes: how many.
        z_dim: number of latent dimensions.
        likelihood: conditional distribution p(x | y, z), a module from y and z to a Pyro distribution.
        prior: distribution p(z), a module without inputs; ``StandardNormal(z_dim)`` unless told.
        shares: p(y), a positive number for each class; the same for all unless told.

    Raises:
        ValueError: there are fewer than two classes, ``shares`` are not positive numbers, one for each, or the prior's
            event shape is not (z_dim,); when called, a label is no class, or data have another shape.
        TypeError: a part is no module; when called, labels are no tensor.

    References:
        Semi-supervised Learning with Deep Generative Models, Kingma, Rezende, Mohamed, Welling, 2014, arXiv:1406.5298.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.5.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> model = M2(10, 2, Bernoulli(MLP(12, 16, 64)))
        >>> model(y=torch.tensor([3, 3, -1])).shape
        torch.Size([3, 64])
    """

    def __init__(
        self,
        classes: int,
        z_dim: int,
        likelihood: nn.Module,
        prior: nn.Module | None = None,
        shares: Sequence[float] | Tensor | None = None,
    ):
        super().__init__("model")
        count(z_dim=z_dim)
        module(likelihood=likelihood)
        prior = StandardNormal(z_dim) if prior is None else prior
        if (event_shape := distribution_of(prior).event_shape) != (z_dim,):
            raise ValueError(f"prior has event shape {tuple(event_shape)} where z_dim={z_dim}; make both the same")
        self.classes, self.prior, self.likelihood = classes, prior, likelihood
        self.register_buffer("logits", class_logits(classes, shares))

    def forward(self, x: Tensor | None = None, y: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            y: labels, shape (batch,), -1 or NaN where there is none; None where no datum has one.
            n: how many data to draw where neither is given.

        Returns:
            x, shape (batch, x_dim).
        """
        rows = data_count(x, y, n)
        with pyro.plate("data", rows):
            one_hot = one_of(self.logits, y, rows)
            z = pyro.sample("z", self.prior())
            likelihood = self.likelihood(one_hot, z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))


def class_logits(classes: int, shares: Sequence[float] | Tensor | None = None) -> Tensor:
    """log p(y) up to a number, shape (classes,); zeros where no shares are told."""
    if not is_count(classes, 2):
        kind = ValueError if isinstance(classes, int) else TypeError
        raise kind(f"classes must be an integer of at least 2, got {classes!r}")
    if shares is None:
        return torch.zeros(classes)
    found = torch.as_tensor(shares, dtype=torch.get_default_dtype())
    if found.shape != (classes,) or not bool((found > 0).all() and found.isfinite().all()):
        raise ValueError(f"shares must be a positive number for each of {classes} classes, got {shares}")
    return (found / found.sum()).log()


def data_count(x: Tensor | None, y: Tensor | None, n: int) -> int:
    """How many data a program is about: rows of x, labels where x is to be drawn, or n where neither is given."""
    return len(y) if x is None and isinstance(y, Tensor) and y.dim() else size(x, n)


def one_of(logits: Tensor, y: Tensor | None, rows: int) -> Tensor:
    """Draws the class of each datum where it has no label, and weighs the label where it has one; one-hot.

    Args:
        logits: of p(y), shape (classes,).
        y: labels, or None.
        rows: how many data there are.
    """
    if y is None:
        return pyro.sample("y", OneHotDraws(logits=logits))
    labels = labels_of(y, len(logits), rows)
    pyro.factor("label", labels.log_prob(logits))
    return pyro.sample("y", labels.given(logits))
