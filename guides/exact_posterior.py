"""The guide of a model that knows its own posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.nn import PyroModule
from torch import nn


class ExactPosterior(PyroModule):
    """The posterior that a model knows, run as a guide: every importance weight is log p(x), and every gap 0.

        q(z | x) = p(z | x),   log w = log p(x)

    What a model of one's own needs for it is a method ``guide`` with the arguments of the model, as ``PPCA``,
    ``HiddenMarkov`` and ``LinearGaussianSSM`` have. The model is read, never owned: its parameters are not among the
    guide's, their gradient counts both uses, and so the ELBO's is that of log p(x) itself.

    Sites:
        those of the model's ``guide``.

    Args:
        model: whose posterior it is; the very one that is trained.

    Raises:
        TypeError: the model is no module, or has no ``guide``.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.1, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> from dlvm.inference import evaluate
        >>> from dlvm.models import LinearGaussianSSM
        >>> model, x = LinearGaussianSSM(1, 3), torch.zeros(5, 4, 3)
        >>> found = evaluate(model, ExactPosterior(model), x, num_particles=10)
        >>> abs(found.elbo - model.log_px(x).mean().item()) < 1e-4
        True
    """

    def __init__(self, model: nn.Module):
        super().__init__("guide")
        if not isinstance(model, nn.Module) or not callable(getattr(model, "guide", None)):
            got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            raise TypeError(
                f"model must be a module with a method guide, its exact posterior as a program, got {got}; take a "
                "guide of a family, as Diagonal(latents(model, x), encoder)"
            )
        self._model = (model,)  # in a tuple, so that it is no submodule

    @property
    def model(self) -> nn.Module:
        """The model that is read."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model's ``guide`` on the model's arguments."""
        posterior: Callable = self.model.guide  # type: ignore[assignment]  # a method, as the constructor has seen
        return posterior(*args, **kwargs)
