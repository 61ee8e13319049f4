"""Classes from few labels, as scripts train them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.data.few_labels import GIVEN, labels_repeated, with_few_labels
from dlvm.experiments.measures.predictions import classified
from dlvm.experiments.options.common import ActivationWord
from dlvm.experiments.options.likelihoods import LikelihoodWord
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Labelled
from dlvm.inference import Objective, encode, supervised
from dlvm.models import M2


@dataclass(frozen=True)
class M2Setup(Setup):
    """A class and a latent vector beside it, learnt from few labels; for data with labels, most of which are hidden."""

    z_dim: int = 50
    """Latent dimensions beside the class."""
    labels: int = 100
    """How many training rows keep their label, as many of each class; validation and test rows show none."""
    labels_seed: int = 0
    """Which rows these are."""
    labelled_share: float = 0.05
    """How large a share of training rows is to show a label: where there are fewer, these come again and again."""
    label_weight: float = 50.0
    """What the log-probability of a label under the guide's q(y | x) counts in training; 0 for nothing. The bound that
    is reported knows nothing of it."""
    hidden: tuple[int, ...] = (400, 128)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    activation: ActivationWord = "relu"
    """Between them."""
    likelihood: LikelihoodWord = "bernoulli"
    """p(x | y, z), as for vae."""

    defaults: ClassVar = {"estimator": "enumeration", "score_all": False}
    encoder_layers = decoder_layers = "hidden"
    exact: ClassVar[str] = "the sum over the class, in bound and gradient, under --estimator enumeration"
    command: ClassVar[str] = "--data mnist --labels 3000 --batch-size 200 --epochs 44 --lr-decay 0.95"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    def shown(self, data: Splits) -> Splits:
        """Labels beside x for training alone, and few of them."""
        found = with_few_labels(data, self.labels, self.labels_seed)
        return found._replace(train=labels_repeated(found.train, self.labelled_share))

    def model(self, data: Loader) -> M2:
        """A fresh p(y) p(z) p(x | y, z)."""
        classes = int(data["y"].max()) + 1 if data.label_names is None else len(data.label_names)
        net = VAESetup(self.z_dim + classes, self.hidden, self.activation, likelihood=self.likelihood)
        return M2(classes, self.z_dim, net.decoder(data))

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return VAESetup(self.z_dim, self.hidden, self.activation, likelihood=self.likelihood).encoder(data)

    def completed(self, guide: nn.Module) -> nn.Module:
        """The guide shown labels."""
        return Labelled(guide)

    def aided(self, objective: Objective, data: Loader) -> Objective:
        """With the classification loss."""
        return supervised(objective, self.label_weight) if bool((data[GIVEN] >= 0).any()) else objective

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """How often q(y | x) is wrong about the class, and how honest its probabilities are."""
        x, y = data.first(data.num_data), data["y"]
        found = classified(encode(model, guide, (x, None), num_particles=2)["y"].probabilities.cpu(), y.cpu())
        return {"error": 1 - found.accuracy, "calibration error": found.ece}
