"""The guide of a model that has no latent site."""

from __future__ import annotations

from typing import Any

from pyro.nn import PyroModule


class FullyObserved(PyroModule):
    """Draws nothing, beside a model that observes everything, or sums out what it does not: bounds are log p(x) itself.

        log w = log p(x)

    It stands where objectives, ``fit`` and ``evaluate`` expect a guide, and has no parameters.

    Sites: none.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 1.6, arXiv:1906.02691.

    Example:
        >>> import pyro, torch
        >>> from dlvm.distributions import StandardNormal
        >>> from dlvm.inference import evaluate
        >>> prior = StandardNormal(2)
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", prior(), obs=x)
        >>> round(evaluate(model, FullyObserved(), torch.zeros(5, 2)).log_px, 3)
        -1.838
    """

    def __init__(self) -> None:
        super().__init__("guide")

    def forward(self, *args: Any, **kwargs: Any) -> None:
        return None
