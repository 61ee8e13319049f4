"""Ways to learn classes from few labels, each from data to the error on test rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from dlvm.distributions import Categorical
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.data.few_labels import GIVEN, labels_repeated, with_few_labels
from dlvm.experiments.measures.draws import posterior_means
from dlvm.experiments.options.common import adam
from dlvm.experiments.options.likelihoods import LikelihoodWord
from dlvm.experiments.setups.m2 import M2Setup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal, FullyObserved
from dlvm.inference import ELBO, Enumeration, MaximumLikelihood, Objective, fit, linear, tempered
from dlvm.inference.evaluation.active_units import ACTIVE_VARIANCE
from dlvm.models import Conditional
from dlvm.nets import MLP

Way = Literal["classifier", "m1", "m2", "m1_m2"]
FEWEST_STEPS = 1000  # of a classifier, however few labels there are


@dataclass(frozen=True)
class Learning:
    """How all ways learn."""

    z_dim: int = 50
    """Latent dimensions, of M1 and beside the class."""
    hidden: tuple[int, ...] = (400, 128)
    """Hidden layers of encoders, classifiers and, in reverse, decoders; of nets on M1's features the first alone."""
    likelihood: LikelihoodWord = "bernoulli"
    """p(x | z) of M1 and p(x | y, z) of M2, as for vae."""
    labelled_share: float = 0.05
    """How large a share of the rows of M2 is to show a label, as for m2."""
    label_weight: float = 50.0
    """What the log-probability of a label under q(y | x) counts, as for m2."""
    epochs: int = 20
    """Passes over the training data, the same for all models, whose last state is kept: validation has no labels."""
    warm_up: int = 5
    """Epochs over which the weight of log q - log p rises from 0 to 1."""
    batch_size: int = 200
    lr: float = 1e-3
    """Learning rate of Adam."""
    lr_decay: float = 0.92
    """Factor on it after every epoch."""

    @property
    def setup(self) -> M2Setup:
        return M2Setup(self.z_dim, label_weight=self.label_weight, hidden=self.hidden, likelihood=self.likelihood)


def error_of(probabilities: Tensor, y: Tensor) -> float:
    """Share of rows whose most probable class is another than theirs, in per cent."""
    return 100 * (probabilities.argmax(-1) != y).double().mean().item()


def m2(how: Learning, data: Splits, labels: int, seed: int, setup: M2Setup | None = None) -> float:
    """The error of q(y | x) of M2, in per cent.

    Args:
        how: it learns.
        data: with all labels.
        labels: how many training rows show theirs; which ones, the seed says.
        seed: of labels, parameters, noise and order.
        setup: another than that of ``how``.
    """
    setup = how.setup if setup is None else setup
    shown = with_few_labels(data, labels, seed)
    train = labels_repeated(shown.train, how.labelled_share)
    pyro.set_rng_seed(seed)
    model, guide = fresh_pair(setup, train, Diagonal)
    objective = setup.aided(_warmed(how, ELBO(1, Enumeration()), train), train)
    _followed(how, model, guide, objective, train, seed)
    return 100 * setup.measures(model, guide, shown.test)["error"]


def classifier(how: Learning, data: Splits, labels: int, seed: int) -> float:
    """The error of a network that learns from the rows with a label alone, in per cent."""
    shown = with_few_labels(data, labels, seed).train
    rows = shown[GIVEN] >= 0
    known = Loader(data.train.x[rows], how.batch_size, True, data.train.dynamic, seed, more={GIVEN: shown[GIVEN][rows]})
    pyro.set_rng_seed(seed)
    classes = int(data.train["y"].max()) + 1
    net = MLP(known.x_dim, *how.hidden, classes)
    model = Conditional(Categorical(net))
    how = replace(how, epochs=max(how.epochs, math.ceil(FEWEST_STEPS / len(known))), lr_decay=1.0)
    _followed(how, model, FullyObserved(), MaximumLikelihood(), known.giving("x", GIVEN), seed)
    with torch.no_grad():
        return error_of(net(data.test.first(data.test.num_data)), data.test["y"])


def features(how: Learning, data: Splits, seed: int) -> Splits:
    """The means of q(z | x) of M1, a VAE that sees no label, as data of their own: of those units that are in use."""
    setup = VAESetup(how.z_dim, how.hidden, "relu", likelihood=how.likelihood)
    train = data.train.giving("x")
    pyro.set_rng_seed(seed)
    model, guide = fresh_pair(setup, train, Diagonal)
    _followed(how, model, guide, _warmed(how, ELBO(analytic_kl=True), train), train, seed)
    means = [posterior_means(model, guide, part.first(part.num_data)) for part in data]
    active = means[0].var(0) > ACTIVE_VARIANCE  # the others are noise, and none where all sleep
    kept = active if active.any() else ~active
    parts = zip(means, data, strict=True)
    train, valid, test = (Loader(z[:, kept], how.batch_size, labels=part["y"], seed=seed) for z, part in parts)
    return Splits(Loader(train.x, how.batch_size, True, labels=train["y"], seed=seed), valid, test)


def m1(how: Learning, found: Splits, labels: int, seed: int) -> float:
    """The error of a support vector machine on the features of M1, in per cent."""
    from sklearn.svm import SVC  # which --help need not wait for

    given = with_few_labels(found, labels, seed).train[GIVEN]
    known = given >= 0
    fitted = SVC().fit(found.train.x[known].numpy(), given[known].numpy())
    return 100 * float((fitted.predict(found.test.x.numpy()) != found.test["y"].numpy()).mean())


def m1_m2(how: Learning, found: Splits, labels: int, seed: int) -> float:
    """The error of M2 on the features of M1, real numbers under a Gaussian, in per cent."""
    setup = M2Setup(how.z_dim, label_weight=how.label_weight, hidden=how.hidden[:1], likelihood="normal")
    return m2(how, found, labels, seed, setup)


def _warmed(how: Learning, bound: Objective, train: Loader) -> Objective:
    """The bound whose latent terms count more and more."""
    return tempered(bound, linear(0.0, 1.0, steps=how.warm_up * len(train))) if how.warm_up else bound


def _followed(
    how: Learning, model: nn.Module, guide: nn.Module, objective: Objective, train: Loader, seed: int
) -> None:
    """Trains a pair, and keeps its last state."""
    decay = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=how.lr_decay)
    settings: dict[str, Any] = {"seed": seed, "progress": False, "patience": None, "engine": "captured"}
    for _ in fit(model, guide, objective, train, None, how.epochs, adam(how.lr), decay, **settings):
        pass
