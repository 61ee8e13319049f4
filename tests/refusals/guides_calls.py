"""What guides refuse when they are called: data, values of sites, and what encoders and functions return."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides import (
    IAF,
    Amortized,
    Augmented,
    Chain,
    Diagonal,
    FullRank,
    HamiltonianModel,
    Joint,
    Latent,
    Local,
    Plate,
)
from refusals.case import Case
from refusals.guides_parts import SITES, encoder
from refusals.pairs import GUIDE, MODEL, X

CLASSES = {"y": Latent(torch.Size([]), dist.Categorical(torch.ones(3)).support, position=1), "z": SITES["z"]}
CLASSED = Diagonal(CLASSES, encoder())
GUIDES = [GUIDE, FullRank(SITES, encoder()), IAF(SITES, encoder()), Joint(SITES, encoder()), Chain(SITES, encoder())]
LOCAL = Local(SITES, len(X), index=lambda x, index: index)
WHOLE = Local(SITES, len(X))
FULL = Diagonal({"z": Latent((2,), plates=(Plate(size=5),))}, encoder())

NOT_BATCHES = st.sampled_from(
    [X[:, :3], X[:, :0], torch.zeros(6, 5), torch.zeros(4, 6), X.double(), X.half(), X.to(torch.complex64), X[None]]
    + [X[0], torch.tensor(1.0), torch.zeros(()), X[:0], 3, "x", [1, 2], X.numpy(), X.tolist(), object(), {"x": X}, None]
)
NOT_LABELS = st.sampled_from(
    [3, "y", [0, 1], torch.tensor(1), torch.zeros(6, 1), torch.zeros(5), torch.zeros(7), torch.zeros(1), X, X[:0, 0]]
)
NOT_VALUES = st.sampled_from([torch.zeros(6, 3), torch.zeros(6), torch.zeros(5, 2), torch.zeros(1, 2), 3, "z", [X]])
NOT_NUMBERS_OF_DATA = st.sampled_from(
    [None, 3, [0, 1], torch.zeros(6), torch.arange(7), torch.arange(6) - 1, torch.arange(6)[:, None], X > 0]
    + [torch.tensor(2), "x", torch.tensor([10**9]), torch.tensor([], dtype=torch.int64)]
)


class Returning(nn.Module):
    """An encoder that returns whatever it is told to."""

    out_features = 6

    def __init__(self, value: object):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


def present(value: object):
    return Amortized(SITES, encoder(), DiagonalNormal, present=lambda x: value)(X)


RETURNED = st.sampled_from([None, 3, X, X[0], (X,), "h", torch.zeros(6, 6, 6), torch.zeros(0, 6), {"h": X}, [X]])
NAMES = st.sampled_from([None, 3, "z", ["w"], {"z": 1, "y": 2}, (n for n in "z"), iter(["z"]), X, True, [None, 3]])
NO_DATA = st.sampled_from([{"x": None}, {}])
MODELS = [Augmented(MODEL, SITES, encoder(), 1), HamiltonianModel(MODEL, SITES, encoder())]
CASES = [
    *(Case(f"{type(g).__name__}.forward", "x", lambda v, g=g: g(v), NOT_BATCHES, " ") for g in GUIDES),
    Case(
        "Local.forward",
        "x",
        WHOLE,
        st.sampled_from([X[:5], X[:0], torch.zeros(7, 4), 3, torch.tensor(1.0), object()]),
        "data",
    ),
    Case("Local.forward", "index", lambda v: LOCAL(X, v), NOT_NUMBERS_OF_DATA, "index"),
    Case("Diagonal.forward", "x", FULL, st.sampled_from([X, X.repeat(5, 1)]), "plate 'data'"),
    Case("Diagonal.forward", "y", lambda v: CLASSED(X, v), NOT_LABELS, "'y'"),
    Case("Diagonal.forward", "y", lambda v: CLASSED(X, y=v), NOT_LABELS, "'y'"),
    Case("Diagonal.forward", "z", lambda v: GUIDE(X, z=v), NOT_VALUES, "'z'"),
    Case("Joint.forward", "z", lambda v: GUIDES[3](X, z=v), st.one_of(NOT_VALUES, st.just(torch.zeros(6, 2))), "'z'"),
    Case("Amortized.forward", "encoder", lambda v: Diagonal(SITES, Returning(v))(X), RETURNED),
    Case("Amortized.forward", "present", present, NAMES),
    *(
        Case(f"{type(model).__name__}.forward", "x", lambda v, model=model: model(**v), NO_DATA, "needs data")
        for model in MODELS
    ),
]
