"""What chains and hidden Markov models refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from dlvm.distributions import MarkovChain, StandardNormal
from dlvm.models import BernoulliMixture, HiddenMarkov
from refusals.case import Case

X = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]]).expand(4, 3, 2)
NOT_POTENTIALS = st.sampled_from(
    [
        None,
        3,
        "x",
        [0.0, 0.0],
        torch.zeros(()),
        torch.zeros(4),
        torch.zeros(2).long(),
        torch.zeros(0),
        torch.zeros(3, 4),
    ]
)
NOT_LENGTHS = st.sampled_from(
    [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 1, 1, 1]), torch.ones(4), torch.tensor([-1] * 4), [1] * 4, 3, "x"]
)
NOT_SEQUENCES = st.sampled_from([X[0], X[..., :1], X[None], None, 3, "x", X.double(), X[:0]])


def chain(**settings: object) -> MarkovChain:
    return MarkovChain(
        **{"initial": torch.zeros(2), "transition": torch.zeros(2, 2), "evidence": torch.zeros(4, 3, 2)} | settings
    )


def hidden() -> HiddenMarkov:
    return HiddenMarkov(BernoulliMixture(2, 2))


CHAINS = [
    *(
        Case("MarkovChain", name, lambda v, name=name: chain(**{name: v}), NOT_POTENTIALS)
        for name in ("initial", "transition", "evidence")
    ),
    Case("MarkovChain", "lengths", lambda v: chain(lengths=v), NOT_LENGTHS),
]
MODELS = [
    Case("HiddenMarkov", "components", HiddenMarkov, st.sampled_from([None, 3, BernoulliMixture, StandardNormal(2)])),
    *(
        Case(f"HiddenMarkov.{method}", "x", lambda v, method=method: getattr(hidden(), method)(v), NOT_SEQUENCES)
        for method in ("log_px", "posterior", "expected_statistics", "start_at")
    ),
    *(
        Case(f"HiddenMarkov.{method}", "lengths", lambda v, method=method: getattr(hidden(), method)(X, v), NOT_LENGTHS)
        for method in ("log_px", "posterior", "expected_statistics", "start_at", "forward")
    ),
]
