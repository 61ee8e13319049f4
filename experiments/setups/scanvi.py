"""Counts of several batches with few labels, as scripts train them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal, LibrarySize
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.data.few_labels import GIVEN, labels_repeated, with_few_labels
from dlvm.experiments.measures.linear_probe import told_by
from dlvm.experiments.measures.predictions import classified
from dlvm.experiments.options.common import ACTIVATIONS, ActivationWord
from dlvm.experiments.options.likelihoods import encoder_of, likelihood_of
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.guides import Labelled
from dlvm.inference import Objective, encode, supervised
from dlvm.models import SCANVI
from dlvm.nets import MLP, Classes, Joined, out_features

BATCH = "b"


@dataclass(frozen=True)
class SCANVISetup(Setup):
    """Counts of several batches, with a class that few labels tell and a latent vector that is to be free of the batch;
    for data with labels and an array b of batches beside x."""

    z_dim: int = 10
    """Latent dimensions, beside the class and the size."""
    labels: int = 50
    """How many training rows keep their label, as many of each class; validation and test rows show none."""
    labels_seed: int = 0
    """Which rows these are."""
    unlabelled: bool = True
    """Train on rows without a label, too; without them the same model shows what they are worth."""
    labelled_share: float = 0.05
    """How large a share of training rows is to show a label, as for m2."""
    label_weight: float = 50.0
    """What the log-probability of a label under the guide's q(y | x) counts in training; 0 for nothing. The bound that
    is reported knows nothing of it."""
    hidden: tuple[int, ...] = (128,)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    activation: ActivationWord = "relu"
    """Between them."""
    likelihood: Literal["negative_binomial", "zero_inflated", "poisson"] = "negative_binomial"
    """p(x | z, b, l), as for vae, with rates that are multiples of the size l."""

    defaults: ClassVar = {"estimator": "enumeration", "score_all": False}
    encoder_layers = decoder_layers = "hidden"
    inputs = ("x", GIVEN, BATCH)
    reported: ClassVar[str] = "log p(x | b)"
    exact: ClassVar[str] = "the sum over the class, in bound and gradient, under --estimator enumeration"
    command: ClassVar[str] = "--data cells --labels 15 --lr 3e-3 --warm-up 10 --epochs 40 --patience None"

    @property
    def nonlinearity(self) -> Callable:
        return ACTIVATIONS[self.activation]

    def shown(self, data: Splits) -> Splits:
        """Labels and batches beside x; few labels for training, and none for the others."""
        for part in data:
            if BATCH not in part.rows.names:
                raise ValueError(
                    f"data {part.name!r} must say which batch each row is from, got no array {BATCH!r} of numbers from "
                    f"0; add one to the .npz, or more={{'{BATCH}': batches}}"
                )
        shown = with_few_labels(data, self.labels, self.labels_seed, (BATCH,))
        train = labels_repeated(shown.train, self.labelled_share) if self.unlabelled else _labelled(shown.train)
        shown = shown._replace(train=train)
        known = int(_batches(shown.train[BATCH]).max())
        for part in data[1:]:
            if int(_batches(part[BATCH]).max()) > known:
                raise ValueError(
                    f"{BATCH} must hold batches that training data have, 0 to {known}, got {int(part[BATCH].max())} in "
                    "validation or test data; leave those rows out"
                )
        return shown

    def model(self, data: Loader) -> SCANVI:
        """A fresh p(y) p(z | y) p(l | b) p(x | z, b, l)."""
        check_whole(data)
        classes = int(data["y"].max()) + 1 if data.label_names is None else len(data.label_names)
        batches = int(data[BATCH].max()) + 1
        act = self.nonlinearity
        decoder = MLP(
            self.z_dim + batches, *self.hidden[::-1], activation=act, output=act if self.hidden else nn.Identity
        )
        likelihood = likelihood_of(self.likelihood, Joined(decoder, [MLP(self.z_dim), Classes(batches)]), data)
        library = LibrarySize.of(data.x, data[BATCH], batches)
        return SCANVI(classes, self.z_dim, likelihood, DiagonalNormal(MLP(classes), self.z_dim), library)

    def encoder(self, data: Loader) -> nn.Module:
        """From x and its batch to the features of a guide."""
        fronts = [encoder_of(self.likelihood, data, MLP), Classes(int(data[BATCH].max()) + 1)]
        return Joined(MLP(sum(map(out_features, fronts)), *self.hidden, activation=self.nonlinearity), fronts)

    def completed(self, guide: nn.Module) -> nn.Module:
        """The guide shown labels."""
        return Labelled(guide)

    def aided(self, objective: Objective, data: Loader) -> Objective:
        """With the classification loss."""
        return supervised(objective, self.label_weight) if bool((data[GIVEN] >= 0).any()) else objective

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """How often q(y | x) is wrong about the class, how honest it is, and how often z tells the batch.

        batch from z: how often a classifier of a draw of z tells it; chance, the share of the largest batch.
        """
        found = encode(model, guide, (data.first(data.num_data), None, data[BATCH]), num_particles=20)
        said = classified(found["y"].probabilities.cpu(), data["y"].cpu())
        told = told_by(found["z"].draws[0], data[BATCH])  # means of a number that sleeps are told apart by nothing
        rates = {"error": 1 - said.accuracy, "calibration error": said.ece}
        return rates | {"batch from z": told.accuracy, "chance": told.chance}


def _labelled(data: Loader) -> Loader:
    """The rows that show a label.

    Raises:
        ValueError: none does.
    """
    known = data[GIVEN] >= 0
    if not bool(known.any()):
        raise ValueError("labels must be at least 1 without unlabelled rows, got 0: nothing is left; add --unlabelled")
    kept = Loader.of(data.rows.select(known), data.batch_size, data.shuffle, data.dynamic, data.seed)
    return kept.giving(*data.given)


def _batches(b: Tensor) -> Tensor:
    """b, if it holds whole numbers from 0."""
    if b.dim() != 1 or bool((b.double() != b.double().round()).any()) or b.min() < 0:
        raise ValueError(f"{BATCH} must hold one whole number from 0 for each row, got {b}; number the batches")
    return b
