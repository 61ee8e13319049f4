"""Semi-amortised inference: an encoder proposes, and a few gradient steps on each datum improve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Protocol

import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor

from dlvm.guides.amortized import Amortized
from dlvm.guides.sites.arguments import program
from dlvm.nets.arguments import count, real


class Differentiable(Protocol):
    """An ELBO whose loss autograd differentiates: most of Pyro's, and all of ours."""

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """-bound, a 0-d tensor."""


class Refined(PyroModule):
    """A guide whose features are those of another, moved up the bound of the very data they describe.

        h_0 = features(x),   h_{t+1} = h_t + rate d bound(x; h_t) / d h,   q(z | x) = q(z; h_n)

    It narrows the amortisation gap by n more evaluations of model and guide, in training and afterwards. The model is
    read and not trained by these steps, and is no part of this module. What noise they use is independent of z, so
    that any bound of this guide is a bound. With ``through``, gradients go through the steps to the encoder (as in
    SA-VAE); without, the encoder learns as if they had been constant shifts, at half the cost.

    Sites:
        those of ``guide``.

    Args:
        guide: an amortised guide.
        model: the Pyro program that it is a guide of.
        objective: whose bound the steps climb, ``Trace_ELBO()`` or any with a ``differentiable_loss``.
        steps: n.
        rate: step size, on the bound of each datum in nats.
        through: whether gradients go through the steps.

    Raises:
        ValueError: ``steps`` is below 1, or ``rate`` is not positive.
        TypeError: ``guide`` is no amortised guide, or needs more than its features, as a Ladder.

    References:
        Semi-Amortized Variational Autoencoders, Kim, Wiseman, Miller, Sontag, Rush, 2018, arXiv:1802.02550.
        Iterative Amortized Inference, Marino, Yue, Mandt, 2018, arXiv:1807.09356.

    Example:
        >>> from pyro.infer import Trace_ELBO
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> guide = Refined(Diagonal(latents(model, x), MLP(3, 8)), model, Trace_ELBO(), steps=2)
        >>> guide(x)["z"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        guide: Amortized,
        model: Callable,
        objective: Differentiable,
        steps: int = 5,
        rate: float = 0.1,
        through: bool = False,
    ):
        super().__init__("guide")
        if not isinstance(guide, Amortized) or type(guide).forward is not Amortized.forward:
            raise TypeError(
                f"guide must be an amortised guide that draws from its features alone, as Diagonal(...), got "
                f"{type(guide).__name__}"
            )
        program(model=model)
        if isinstance(objective, type) or not callable(getattr(objective, "differentiable_loss", None)):
            raise TypeError(
                f"objective must be an ELBO with a differentiable_loss, got {objective!r}; pass Trace_ELBO(), or one "
                "of inference"
            )
        count(steps=steps)
        real(rate=rate)
        if not 0 < rate < inf:
            raise ValueError(f"rate must be positive and finite, got {rate}; pass a step size, as 0.1")
        self.guide, self.steps, self.rate, self.through = guide, steps, rate, through
        self._read = (model, objective)  # in a tuple, so that the model is no part of this module

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        h, known = self.guide.features(*args, **kwargs), self.guide.known(*args, **kwargs)
        with poutine.block(), torch.enable_grad(), self.guide.masked(*args, **kwargs):
            for _ in range(self.steps):
                h = h - self.rate * self._slope(h, known, args, kwargs)
        with self.guide.masked(*args, **kwargs):
            return self.guide.draw(h if torch.is_grad_enabled() else h.detach(), known)

    def _slope(self, h: Tensor, known: Mapping[str, Tensor | None], args: tuple, kwargs: dict) -> Tensor:
        """d loss / d h, shape (batch, H)."""
        model, objective = self._read
        point = h if self.through and h.requires_grad else h.detach().requires_grad_()
        loss = objective.differentiable_loss(model, lambda *_, **__: self.guide.draw(point, known), *args, **kwargs)
        return torch.autograd.grad(loss, point, create_graph=self.through)[0]
