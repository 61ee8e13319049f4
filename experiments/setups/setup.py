"""What a model is to scripts, and which there are: one file in this folder each, whose name is the word for it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.guides import latents


class Setup(Protocol):
    """A model as scripts train it: a frozen dataclass whose fields are its options, all of them with defaults.

    Attributes:
        binary: whether its data are binary, so that grey levels are binarised unless told otherwise.
        nonlinearity: of its nets, and of a flow in its guide.

    Example:
        >>> named("vae")(z_dim=3).binary
        True
    """

    @property
    def binary(self) -> bool: ...

    @property
    def nonlinearity(self) -> Callable: ...

    def model(self, data: Loader) -> nn.Module:
        """A fresh p(x, z) for these data."""

    def encoder(self, data: Loader) -> nn.Module:
        """The net from x to features that a guide of this model takes."""


def fresh_pair(setup: Setup, data: Loader, family: Callable) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it, where the data lie.

    Args:
        setup: of the model.
        data: gives the width, the start, and an example to trace the model with.
        family: (latents, encoder) -> guide.
    """
    model = setup.model(data).to(data.device)
    encoder = setup.encoder(data)
    return model, family(latents(model, data.example), encoder).to(data.device)


def words() -> list[str]:
    """The words for models."""
    folder = sys.modules[__package__].__path__
    return sorted(found.name for found in iter_modules(folder) if found.name != Path(__file__).stem)


def named(word: str) -> type[Setup]:
    """The setup of a model by its word: the class in that file whose name ends in Setup.

    Raises:
        ValueError: there is no such file.
    """
    if word not in (known := words()):
        raise ValueError(f"model must be one of {', '.join(known)}, got {word!r}")
    (found,) = (kind for name, kind in vars(import_module(f"{__package__}.{word}")).items() if name.endswith("Setup"))
    return found


def num_parameters(*modules: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(math.prod(p.shape) for module in modules for p in module.parameters() if p.requires_grad)
