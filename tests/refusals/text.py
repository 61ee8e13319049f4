"""What sentences, and the nets and models of them, refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import Sentences
from dlvm.models import LanguageModel, SentenceVAE
from dlvm.nets import GRU, MLP, CausalGRU, CausalTCN, CausalTransformer, Embedded
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case

X, LENGTHS = torch.tensor([[1, 2, 2], [1, 0, 0]]), torch.tensor([3, 2])
NOT_TOKENS = st.sampled_from([None, 3, "x", [[1, 2]], X.float(), X > 1, X - 2, X + 9, torch.tensor(1), X[:, :0]])
NOT_WHOLE = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 2.5, -1]))
NOT_NETS = st.sampled_from([None, 3, CausalGRU, nn.Identity(), MLP(3, 3), CausalTransformer(3, 3, width=4)])
NOT_LENGTHS = st.sampled_from(
    [torch.tensor([0, 2]), torch.tensor([4, 2]), torch.ones(2), torch.tensor([3]), torch.tensor([3, 3]), [3, 2], 3, "x"]
)


def plain() -> Sentences:
    return Sentences(CausalGRU(3, 4))


def given() -> Sentences:
    return Sentences(CausalGRU(3, 4, context=2), MLP(2, 2))


MODELS_OF = {"LanguageModel": lambda: LanguageModel(plain()), "SentenceVAE": lambda: SentenceVAE(2, given())}
NETS = [
    *(
        Case(
            make.__name__,
            name,
            lambda v, make=make, name=name: make(**{"tokens": 3, "width": 4} | {name: v}),
            NOT_COUNTS,
        )
        for make in (CausalGRU, CausalTCN)
        for name in ("tokens", "width", "layers")
    ),
    Case("CausalTCN", "size", lambda v: CausalTCN(3, 4, size=v), st.one_of(NOT_COUNTS, st.just(1))),
    *(
        Case(make.__name__, "context", lambda v, make=make: make(3, 4, context=v), NOT_WHOLE)
        for make in (CausalGRU, CausalTCN)
    ),
    *(
        Case(f"{make.__name__}.forward", "value", lambda v, make=make: make(3, 4)(v), NOT_TOKENS)
        for make in (CausalGRU, CausalTCN)
    ),
    *(
        Case(
            f"{make.__name__}.forward",
            "context",
            lambda v, make=make: make(3, 4, context=2)(X, v),
            st.sampled_from([None, 3, torch.zeros(2, 3)]),
        )
        for make in (CausalGRU, CausalTCN)
    ),
    Case("Embedded", "net", lambda v: Embedded(v, 3), st.sampled_from([None, 3, GRU, nn.Identity(), nn.ReLU()])),
    Case("Embedded", "tokens", lambda v: Embedded(GRU(2, 2), v), NOT_COUNTS),
    Case("Embedded.forward", "x", lambda v: Embedded(GRU(2, 2), 3)(v), NOT_TOKENS, named="value"),
]
DISTRIBUTIONS = [
    Case("Sentences", "net", Sentences, NOT_NETS),
    Case("Sentences", "decoder", lambda v: Sentences(CausalGRU(3, 4), v), st.sampled_from([3, "x", MLP, X])),
    Case("Sentences", "end", lambda v: Sentences(CausalGRU(3, 4), end=v), st.sampled_from([-1, 3, 2.5, "x", True])),
    Case(
        "Sentences",
        "drop",
        lambda v: Sentences(CausalGRU(3, 4), drop=v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, -0.1, 1, 1.5])),
    ),
    Case(
        "Sentences",
        "start",
        lambda v: Sentences(CausalGRU(3, 4), start=v),
        st.sampled_from([3, "x", torch.zeros(4), torch.zeros(1, 3)]),
    ),
    Case("Sentences.forward", "context", lambda v: plain()(v, steps=3), st.just(torch.zeros(2))),
    Case("Sentences.forward", "steps", lambda v: plain()(steps=v), NOT_COUNTS),
    Case(
        "Sentences.forward",
        "lengths",
        lambda v: plain()(steps=3, lengths=v),
        st.sampled_from([torch.tensor([0, 2]), torch.tensor([4, 2]), torch.ones(2), [3, 2], 3, "x"]),
    ),
]
MODELS = [
    Case("LanguageModel", "likelihood", LanguageModel, st.sampled_from([None, 3, Sentences, MLP(2, 2), given()])),
    Case("LanguageModel", "steps", lambda v: LanguageModel(plain(), v), NOT_COUNTS),
    Case("SentenceVAE", "z_dim", lambda v: SentenceVAE(v, given()), NOT_COUNTS),
    Case("SentenceVAE", "likelihood", lambda v: SentenceVAE(2, v), st.sampled_from([None, 3, Sentences, plain()])),
    Case("SentenceVAE", "prior", lambda v: SentenceVAE(2, given(), v), st.sampled_from([3, "x", MLP(2, 2), nn.ReLU()])),
    Case("SentenceVAE", "steps", lambda v: SentenceVAE(2, given(), steps=v), NOT_COUNTS),
    *(
        Case(
            f"{kind}.forward",
            "x",
            lambda v, make=make: make()(v),
            st.sampled_from([3, "x", [[1, 2]], X.float(), X > 1, X - 2, X + 9, torch.tensor(1), X[0], X[:0], X[None]]),
        )
        for kind, make in MODELS_OF.items()
    ),
    *(
        Case(
            f"{kind}.forward",
            name,
            lambda v, make=make, name=name: make()(**{name: v}),
            NOT_COUNTS.filter(lambda v: v is not None),
        )
        for kind, make in MODELS_OF.items()
        for name in ("n", "steps")
    ),
    *(
        Case(f"{kind}.forward", "lengths", lambda v, make=make: make()(X, v), NOT_LENGTHS)
        for kind, make in MODELS_OF.items()
    ),
]
