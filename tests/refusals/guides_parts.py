"""What is no spec, encoder, family or widths of a guide, and a small one of each."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import DiagonalNormal, LowRankNormal
from dlvm.guides import Diagonal, Latent, Plate
from dlvm.nets import MLP
from refusals.case import NOT_DATA
from refusals.pairs import GUIDE, MODEL, X

SITES = {"z": Latent(torch.Size([2]))}


def encoder() -> MLP:
    return MLP(4, 6)


def twice(plate: Plate) -> dict[str, Latent]:
    """Two sites, each in a plate of its own."""
    return {"z": Latent((2,)), "y": Latent((2,), plates=(plate,))}


NOT_SPECS = st.one_of(
    NOT_DATA,
    st.sampled_from([None, {}, [], "z", ["z"], [("z", SITES["z"])], SITES.items(), set(), MODEL, GUIDE, X, Latent]),
    st.sampled_from([{"z": None}, {"z": (2,)}, {"z": 2}, {"z": Latent}, {"z": X}, {3: SITES["z"]}, {"z": Plate()}]),
    st.sampled_from([{"z": Latent(2)}, {"z": Latent((2,), None)}, {None: SITES["z"]}, {"z": Latent((0,))}]),
)
MISMATCHED = st.sampled_from([Plate("rows"), Plate(size=5), Plate(dim=-2)]).map(twice)
NOT_ENCODERS = st.sampled_from(
    [None, 3, "MLP", X, len, lambda x: x, MLP, nn.Linear, nn.Sequential(nn.Linear(4, 6)), nn.ReLU(), MODEL, GUIDE, []]
    + [SimpleNamespace(out_features=3), SimpleNamespace(out_features=True), {"out_features": 3}]
)
NOT_FAMILIES = st.sampled_from(
    [None, 3, "Diagonal", [], X, nn.Linear(2, 2), DiagonalNormal(MLP(4, 6), 2), dist.Normal, dist.Normal(0.0, 1.0)]
    + [Diagonal, GUIDE, MODEL, dict, int, object(), nn.ReLU, nn.Linear]
    + [lambda: None, lambda net, dim: None, lambda net, dim: dist.Normal(0.0, 1.0), lambda net: net]
    + [partial(LowRankNormal, rank="3"), partial(DiagonalNormal, scale=3)]
)
NOT_WIDTHS = st.sampled_from(
    ["64", b"64", (0,), (-1,), (2.5,), (None,), ("64",), (True,), {64}, {64: 1}.values(), torch.tensor([64]), 2.5]
    + [(64, 0), ((64,),), object(), nn.ReLU, iter((64,))]
)
NOT_HIDDEN = st.one_of(NOT_WIDTHS, st.just(64))
