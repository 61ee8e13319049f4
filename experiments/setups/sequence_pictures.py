"""Pictures of a trained model of sequences: its draws beside data, and what it makes of sequences that it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.measures.draws import latent_sites
from dlvm.inference import reconstruct

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlvm.experiments.setups.pictures import Drawing

FEW = 3


def sequence_pictures(model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
    """The name of each picture, what draws it, and its caption."""
    yield "samples", partial(drawn, model, data), "Sequences of the test data, and draws of the model of their lengths."
    if latent_sites(model, data):
        caption = "Sequences of the test data, and E p(x | z) for z ~ q(z | x)."
        yield "reconstructions", partial(rebuilt, model, guide, data), caption


def drawn(model: nn.Module, data: Loader) -> Figure:
    """Test sequences above draws of the same lengths."""
    x, lengths = shown(data)
    with torch.no_grad():
        draws = model(n=len(x), steps=x.shape[1], lengths=lengths)
    return _figure({"data": (x, lengths), "draws": (draws, lengths)}, data, "Data, and draws of the model")


def rebuilt(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    """Test sequences above what the model makes of them."""
    x, lengths = shown(data)
    found = reconstruct(model, guide, (x, lengths))
    groups = {"data": (x, lengths), "reconstructions": (found, lengths)}
    return _figure(groups, data, "Data, and what the model makes of them")


def shown(data: Loader) -> tuple[Tensor, Tensor]:
    """A few sequences of middling length, cut to the longest of these."""
    lengths = data["lengths"]
    order = lengths.argsort(stable=True)
    start = max(0, (len(order) - FEW) // 2)
    rows = order[start : start + FEW].sort().values
    longest = int(lengths[rows].max())
    return data.x[rows, :longest], lengths[rows]


def _figure(groups: dict[str, tuple[Tensor, Tensor]], data: Loader, title: str) -> Figure:
    from dlvm.experiments.figures import sequences

    return sequences(groups, data.columns, title)
