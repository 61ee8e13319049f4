"""What a model's features say of labels that it never saw: a linear classifier on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlvm.distributions import FlowDensity
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.draws import posterior_means
from dlvm.models import Dequantised
from dlvm.nets import NADE, CausalTransformer, OrderedMADE, PixelCNN

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


def _rows(model: nn.Module, guide: nn.Module, data: Loader, most: int) -> tuple[Tensor, Tensor]:
    """Features and labels of the first rows, in the order of the batches."""
    batches = data.giving("x", "y").take(min(most, data.num_data))
    found = [(features_of(model, guide, x).double().cpu(), y.cpu()) for x, y in batches]
    features, labels = zip(*found, strict=True)
    return torch.cat(features), torch.cat(labels)
