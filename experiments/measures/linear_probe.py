"""What a model's features say of labels that it never saw, or is to be free of: a linear classifier on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dlvm.distributions import FlowDensity
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.draws import posterior_means
from dlvm.models import Dequantised
from dlvm.nets import NADE, CausalTransformer, OrderedMADE, PixelCNN

FOLDS = 5
MOST = 2000  # rows whose label is told from codes
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn
GRID = 4  # side of the areas that maps of pixels are averaged over
LAST: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = {  # the layer whose input is a net's last hidden one
    OrderedMADE: lambda net: cast(OrderedMADE, net).made.layers[-1],
    PixelCNN: lambda net: cast(PixelCNN, net).features,
    CausalTransformer: lambda net: cast(CausalTransformer, net).head,
}


@torch.no_grad()
def features_of(model: nn.Module, guide: nn.Module, x: Tensor) -> Tensor:
    """What a trained pair makes of data, shape (rows, features).

    The means of q(z | x) where there are latents; otherwise the last hidden layer of the net that gives x's
    distribution, its maps averaged over 4 x 4 areas, and of a net of positions its mean over these; of a flow over grey
    levels the noise that the middle of their cells is taken to.

    Raises:
        ValueError: the net has no hidden layer that is known.
    """
    net: Any = getattr(getattr(model, "likelihood", None), "net", None)
    if isinstance(model, Dequantised) and isinstance(density := getattr(model.model, "likelihood", None), FlowDensity):
        return density.flow((x * (model.levels - 1) + 0.5) / model.levels)[0]
    if getattr(model, "prior", None) is not None:
        return posterior_means(model, guide, x)
    if isinstance(net, NADE):
        return net.inputs(x).sigmoid()
    if type(net) not in LAST:
        raise ValueError(f"model must have a net with a hidden layer that is known, got {type(net).__name__}")
    seen: list[Tensor] = []
    hook = LAST[type(net)](net).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        net(x)
    finally:
        hook.remove()
    found = seen[0]
    if isinstance(net, PixelCNN):
        found = nn.functional.adaptive_avg_pool2d(found, (min(GRID, net.height), min(GRID, net.width)))
    return found.mean(1) if isinstance(net, CausalTransformer) else found.flatten(1)


def probe(model: nn.Module, guide: nn.Module, data: Splits, most: int = 10_000) -> float | None:
    """The share of test data whose label a logistic regression on a pair's features tells; None without labels.

    It is fitted to the training data, with the penalty that tells most of the validation data.

    Args:
        model, guide: a trained pair.
        data: with labels.
        most: rows of the training data.
    """
    if any(part.labels is None for part in data):
        return None
    (x, y), (valid_x, valid_y), (test_x, test_y) = (_rows(model, guide, part, most) for part in data)
    loc, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    seen, valid, test = (((part - loc) / scale).numpy() for part in (x, valid_x, test_x))
    from sklearn.linear_model import LogisticRegression  # which --help need not wait for

    fits = [LogisticRegression(C=penalty, max_iter=200).fit(seen, y) for penalty in PENALTIES]
    best = max(fits, key=lambda fit: fit.score(valid, valid_y))
    return float(best.score(test, test_y))


class Told(NamedTuple):
    """How often a label is told from codes.

    Attributes:
        accuracy: of rows that the classifier was not fitted to.
        error: its standard error, of that many rows.
        chance: the share of the most common label, which is told without any code.
    """

    accuracy: float
    error: float
    chance: float

    @property
    def free(self) -> bool:
        """Whether no more is told than by chance, within two standard errors."""
        return self.accuracy <= self.chance + 2 * self.error


def told_by(codes: Tensor, labels: Tensor, most: int = MOST) -> Told:
    """How often a classifier tells labels from codes that it was not fitted to, beside chance.

    A logistic regression on the numbers of a code and on their products, so that what differs in mean, spread or
    correlation is found; what shows in none of them is not. In five parts, each told by what was fitted to the others.

    Returns:
        a ``Told``.

    Args:
        codes: shape (n, z_dim), such as means of q(z | x, y).
        labels: shape (n,).
        most: rows that are taken, the first.

    Raises:
        ValueError: there is one label alone, or one of so few rows that a part may lack it.

    Example:
        >>> codes = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> told_by(codes, torch.arange(200) % 2).free, told_by(codes, (codes[:, 0] > 0).long()).free
        (True, False)
    """
    codes, labels = codes[:most].double().cpu(), labels[:most].cpu()
    _, numbers = labels.unique(return_counts=True)
    if len(numbers) < 2 or int(numbers.min()) < FOLDS:
        raise ValueError(
            f"labels must be of two classes at least, with {FOLDS} rows each, got {numbers.tolist()}; nothing could be "
            "told of fewer"
        )
    from sklearn.linear_model import LogisticRegression  # which --help need not wait for
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows, columns = torch.triu_indices(codes.shape[1], codes.shape[1])
    scaled = (codes - codes.mean(0)) / codes.std(0).clamp_min(1e-12)
    features = torch.cat([scaled, scaled[:, rows] * scaled[:, columns]], 1)
    features = (features - features.mean(0)) / features.std(0).clamp_min(1e-12)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    said = cross_val_predict(LogisticRegression(C=0.1, max_iter=300), features.numpy(), labels.numpy(), cv=folds)
    accuracy = float((torch.from_numpy(said) == labels).double().mean())
    error = math.sqrt(max(accuracy * (1 - accuracy), 0.25 / len(labels)) / len(labels))
    return Told(accuracy, error, numbers.max().item() / len(labels))


def _rows(model: nn.Module, guide: nn.Module, data: Loader, most: int) -> tuple[Tensor, Tensor]:
    """Features and labels of the first rows, in the order of the batches."""
    batches = data.giving("x", "y").take(min(most, data.num_data))
    found = [(features_of(model, guide, x).double().cpu(), y.cpu()) for x, y in batches]
    features, labels = zip(*found, strict=True)
    return torch.cat(features), torch.cat(labels)
