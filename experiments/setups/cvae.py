"""The VAE that is given something beside z, as scripts train it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.experiments.data import Loader
from dlvm.experiments.measures.draws import posterior_means
from dlvm.experiments.measures.linear_probe import told_by
from dlvm.experiments.options.columns import named_columns, part, quadrants
from dlvm.experiments.options.common import ACTIVATIONS, ActivationWord
from dlvm.experiments.options.likelihoods import LikelihoodOption, encoder_of, likelihood_of
from dlvm.experiments.setups.pictures import together
from dlvm.experiments.setups.setup import Setup
from dlvm.inference import decode, generate, log_px
from dlvm.models import CVAE
from dlvm.nets import MLP, Classes, Joined, out_features

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlvm.experiments.setups.pictures import Drawing

ASKED, PARTICLES = 300, 20  # test data whose class is told, importance samples for each class


@dataclass(frozen=True)
class CVAESetup(Setup):
    """A VAE of data given their class, or of the rest of them given some pixels or columns."""

    z_dim: int = 8
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, in reverse of the decoder, and of a learned prior."""
    activation: ActivationWord = "tanh"
    """Nonlinearity of encoder, decoder and prior."""
    likelihood: LikelihoodOption = "bernoulli"
    given: Literal["class", "quadrants", "columns"] = "class"
    """What y is: class, the label of each row, as a digit's or the batch of a cell; quadrants of images; or columns.
    Quadrants and columns are a part of x, and the rest of it is modelled."""
    quadrants: Literal[1, 2, 3] = 1
    """Of given quadrants: 1, the lower left; 2, the left half; 3, all but the upper right."""
    given_columns: tuple[str, ...] = ()
    """Names of given columns, or their numbers from 0 where they have no names."""
    prior: Literal["learned", "standard"] = "learned"
    """p(z | y): learned, a Gaussian by a net of y; standard, N(0, I) whatever y, so that z is to say nothing of y."""

    reported: ClassVar[str] = "log p(x | y)"
    exact: ClassVar[str] = "the bound on log p(x | y), where q is Gaussian: the KL in closed form"
    command: ClassVar[str] = "--data digits"
    encoder_layers = decoder_layers = "hidden"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    @property
    def nonlinearity(self) -> Callable:
        return ACTIVATIONS[self.activation]

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", "y") if self.given == "class" else ("x",)

    def model(self, data: Loader) -> CVAE:
        """A fresh p(z | y) p(x | z, y)."""
        seen = self.seen(data)
        prior = None if self.prior == "standard" else DiagonalNormal(self._net(self._front(data)), self.z_dim)
        net = self._net(MLP(self.z_dim), self._front(data))
        likelihood = likelihood_of(self.likelihood, net, data if seen is None else part(data, ~seen))
        return CVAE(self.z_dim, likelihood, prior, seen)

    def encoder(self, data: Loader) -> nn.Module:
        """From x and y to the features of a guide; from the whole of x, where y is a part of it."""
        act = self.nonlinearity
        if self.given != "class":
            return encoder_of(self.likelihood, data, lambda dim: MLP(dim, *self.hidden, activation=act))
        fronts = [encoder_of(self.likelihood, data, MLP), self._front(data)]
        return Joined(MLP(sum(map(out_features, fronts)), *self.hidden, activation=act), fronts)

    def seen(self, data: Loader) -> Tensor | None:
        """Which columns are given; None where y is the class."""
        if self.given == "class":
            return None
        found = (
            quadrants(data, self.quadrants) if self.given == "quadrants" else named_columns(data, self.given_columns)
        )
        return found.to(data.device)

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """Where y is the class: how often Bayes' rule tells it, all classes alike, and how often z still does.

        accuracy: of argmax_y log p(x | y), for a few data; y from z: that of a classifier of the codes' means, and
        chance, the share of the most common class.
        """
        if self.given != "class":
            return {}
        args = together(data, data.num_data)
        told = told_by(posterior_means(model, guide, args), args[1])
        return {"accuracy": accuracy(model, guide, data), "y from z": told.accuracy, "chance": told.chance}

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """What is made of classes, or of the part that is seen."""
        if data.image_shape is None:
            return
        if self.given == "class":
            yield (
                "samples",
                partial(_by_class, model, data),
                "Means of p(x | z, y), a row for each class, z ~ p(z | y).",
            )
        else:
            yield "samples", partial(_completed, model, data), "What is seen, three completions of it, and the data."

    def _front(self, data: Loader) -> nn.Module:
        """What sees y."""
        if (seen := self.seen(data)) is None:
            names = data.label_names
            return Classes(int(data["y"].max()) + 1 if names is None else len(names))
        return encoder_of(self.likelihood, part(data, seen), MLP)

    def _net(self, *fronts: nn.Module) -> nn.Module:
        """Hidden layers of all that fronts see."""
        act = self.nonlinearity
        layers = (sum(map(out_features, fronts)), *self.hidden[::-1])
        return Joined(MLP(*layers, activation=act, output=act if self.hidden else nn.Identity), fronts)


def accuracy(model: nn.Module, guide: nn.Module, data: Loader, most: int = ASKED, particles: int = PARTICLES) -> float:
    """The share of the first rows whose class has the highest log p(x | y), estimated by importance sampling.

    Args:
        model, guide: a trained pair of x and y.
        data: with labels.
        most: rows.
        particles: of each estimate.
    """
    x, y = together(data, most)
    classes = int(data["y"].max()) + 1
    each = [log_px(model, guide, (x, torch.full_like(y, k)), particles).log_px for k in range(classes)]
    return (torch.stack(each).argmax(0) == y).double().mean().item()


def _by_class(model: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import samples

    classes = int(data["y"].max()) + 1
    y = torch.arange(classes, device=data.device).repeat_interleave(classes)
    z = generate(model, len(y), given={"y": y})["z"]
    means = decode(model, {"z": z, "y": y})
    title, note = (
        "What the model makes of each class",
        "Rows: classes, from 0. Means of p(x | z, y) for z drawn from p(z | y).",
    )
    return samples({"given the class": means}, data.image_shape, title=title, note=note)


def _completed(model: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import completions

    return completions({"": completed(cast(CVAE, model), data)}, data.image_shape)


def completed(model: CVAE, data: Loader, most: int = 8, draws: int = 3) -> dict[str, Tensor]:
    """What is seen of the first rows (NaN elsewhere), means of p(x | z, y) for some z ~ p(z | y), and the rows."""
    x = data.first(most)
    y, nothing = x[:, model.seen], x.new_full((len(x), len(model.left)), torch.nan)
    found = {"seen": model.whole(nothing, y)}
    for k in range(draws):
        z = generate(model, len(y), given={"y": y}, seed=k)["z"]
        found[f"completed {k + 1}"] = model.whole(decode(model, {"z": z, "y": y}), y)
    return found | {"data": x}
