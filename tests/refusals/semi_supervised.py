"""What M2, and a guide that is shown labels, refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from dlvm.distributions import Bernoulli, DiagonalNormal, LibrarySize, Poisson
from dlvm.guides import Diagonal, Labelled, latents
from dlvm.models import M2, SCANVI
from dlvm.nets import MLP, Classes, Joined
from refusals.case import NOT_COUNTS, Case
from refusals.nets import NOT_MODULES

LIKELIHOOD, X = Bernoulli(MLP(5, 4)), torch.zeros(5, 4)
MODEL = M2(3, 2, LIKELIHOOD)
GUIDE = Labelled(Diagonal(latents(MODEL, X), MLP(4, 3)))
NOT_LABELS = st.sampled_from(
    [torch.tensor(v) for v in ([0, 1, 2, 3, 0], [0, 1, -2, 0, 0], [0.5] * 5, [0, 1], [[0]], 0, [True] * 5, [1j] * 5)]
    + [torch.zeros(5, 2), torch.full((5, 3), 0.5), torch.full((5,), torch.inf), [0, 1, 2, 0, 0], 3, "labels", object()]
)
NOT_SHARES = st.sampled_from(
    [[1.0, 2.0], [1.0, -1.0, 1.0], [0, 1, 1], torch.zeros(3), torch.full((3,), torch.nan), [[1, 1, 1]], 1.0, torch.inf]
)
RATES, PRIOR = Poisson(Joined(MLP(4, 3), [MLP(2), Classes(2)]), 4), DiagonalNormal(MLP(3), 2)
B, LOC = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([3.0, 4.0])
COUNTED = SCANVI(3, 2, RATES, PRIOR, LibrarySize(LOC, LOC))
NOT_BATCHES = st.sampled_from(
    [torch.tensor(v) for v in ([0, 1, 2, 0, 0], [0, 1, -1, 0, 0], [0.5] * 5, [0, 1], [[0]] * 5, 0)]
    + [torch.full((5,), torch.nan), [0, 1, 1, 0, 1], 3, "batches", None, object()]
)
NOT_NUMBERED = st.sampled_from([torch.tensor([0, 2]), torch.tensor([-1.0]), torch.full((5,), torch.nan), [0], 3, None])
NOT_SIZES = st.sampled_from([torch.zeros(0), torch.zeros(2, 2), torch.tensor([1.0, torch.nan]), 3, None, [1.0, 2.0]])
NOT_SPREADS = st.sampled_from([torch.zeros(2), torch.ones(3), torch.tensor([1.0, torch.inf]), -LOC, 3, None])
NOT_COUNTED = st.sampled_from([torch.zeros(3, 2), torch.tensor([[1.0], [0.0]]), None, 3, [[1.0]]])


def models(not_priors: st.SearchStrategy, of_other_shape: st.SearchStrategy, not_data: st.SearchStrategy) -> list[Case]:
    """Of the model, by what none of the models takes."""
    return [
        Case("M2", "classes", lambda v: M2(v, 2, LIKELIHOOD), st.one_of(NOT_COUNTS, st.just(1))),
        Case("M2", "z_dim", lambda v: M2(3, v, LIKELIHOOD), NOT_COUNTS),
        Case("M2", "likelihood", lambda v: M2(3, 2, v), NOT_MODULES),
        Case("M2", "prior", lambda v: M2(3, 2, LIKELIHOOD, v), st.one_of(not_priors, of_other_shape)),
        Case("M2", "shares", lambda v: M2(3, 2, LIKELIHOOD, shares=v), NOT_SHARES),
        Case("M2.forward", "x", MODEL, not_data),
        Case("M2.forward", "y", lambda v: MODEL(X, v), NOT_LABELS),
        Case("M2.forward", "n", lambda v: MODEL(n=v), NOT_COUNTS),
        Case("SCANVI", "classes", lambda v: SCANVI(v, 2, RATES, PRIOR), st.one_of(NOT_COUNTS, st.just(1))),
        Case("SCANVI", "z_dim", lambda v: SCANVI(3, v, RATES, PRIOR), NOT_COUNTS),
        Case("SCANVI", "likelihood", lambda v: SCANVI(3, 2, v, PRIOR), NOT_MODULES),
        Case("SCANVI", "prior", lambda v: SCANVI(3, 2, RATES, v), NOT_MODULES),
        Case("SCANVI", "library", lambda v: SCANVI(3, 2, RATES, PRIOR, v), NOT_MODULES.filter(lambda v: v is not None)),
        Case("SCANVI", "shares", lambda v: SCANVI(3, 2, RATES, PRIOR, shares=v), NOT_SHARES),
        Case("SCANVI.forward", "x", lambda v: COUNTED(v, b=B), not_data),
        Case("SCANVI.forward", "y", lambda v: COUNTED(X, v, B), NOT_LABELS),
        Case("SCANVI.forward", "b", lambda v: COUNTED(X, None, v), NOT_BATCHES, "batch"),
        Case("SCANVI.forward", "n", lambda v: COUNTED(b=B[:1], n=v), NOT_COUNTS),
    ]


DISTRIBUTIONS = [
    Case("LibrarySize", "loc", lambda v: LibrarySize(v, LOC), NOT_SIZES),
    Case("LibrarySize", "scale", lambda v: LibrarySize(LOC, v), NOT_SPREADS),
    Case("LibrarySize.of", "x", LibrarySize.of, NOT_COUNTED),
    Case("LibrarySize.forward", "batch", LibrarySize(LOC, LOC), NOT_NUMBERED),
]
GUIDES = [
    Case("Labelled", "guide", Labelled, NOT_MODULES),
    Case("Labelled", "site", lambda v: Labelled(GUIDE.guide, v), st.sampled_from([None, 3, ("y",), True, b"y"])),
    Case("Labelled.forward", "y", lambda v: GUIDE(X, v), NOT_LABELS),
    Case("Labelled.forward", "y", lambda v: Labelled(GUIDE.guide, "z")(X, v), st.just(torch.zeros(5)), "one-hot"),
]
