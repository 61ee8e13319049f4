"""The same steps for everyone: epochs of the ELBO whose log q - log p counts more and more, the same for each pair."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.common import adam
from dlvm.inference import ELBO, NonFinite, Objective, fit, linear, tempered


@dataclass(frozen=True)
class StepsOptions:
    """How long each pair is trained."""

    epochs: int = 60
    """Passes over the training data, the same for all; the parameters of the best validation bound are kept."""
    warm_up: int = 10
    """Epochs over which the weight of log q - log p rises from 0 to 1."""
    lr: float = 1e-3
    """Learning rate of Adam."""

    def objective(self, train: Loader) -> Objective:
        """The ELBO, after its warm-up."""
        steps = self.warm_up * len(train)
        return tempered(ELBO(), linear(0.0, 1.0, steps=steps)) if steps else ELBO()


class Course:
    """How the training of one pair went.

    Args:
        config: how many epochs, the warm-up and the learning rate.
        seed: of the order of data and of draws.

    Attributes:
        history: the record of each epoch.
        error: what ended it before its time; None where nothing did.
    """

    def __init__(
        self, config: StepsOptions, model: nn.Module, guide: nn.Module, train: Loader, valid: Loader, seed: int
    ):
        self.history: list[dict] = []
        self.error: str | None = None
        settings: dict[str, Any] = {"seed": seed, "progress": False, "patience": config.epochs, "engine": "captured"}
        optimizer, objective = adam(config.lr), config.objective(train)
        try:
            for epoch in fit(model, guide, objective, train, valid, config.epochs, optimizer, **settings):
                self.history.append(asdict(epoch))
        except NonFinite as error:
            self.error = str(error)
        self._steps = len(train)

    @property
    def ms_per_step(self) -> float:
        """Milliseconds of a step, over all epochs."""
        return 1000 * fmean(record["seconds"] for record in self.history) / self._steps


def check_warm_up(epochs: int, warm_up: int) -> None:
    """Raises ValueError where no epoch is left behind the warm-up."""
    if not 0 <= warm_up < epochs:
        raise ValueError(
            f"warm_up (--warm-up) must be from 0 to below epochs={epochs}, got {warm_up}; pass fewer, or more --epochs"
        )
