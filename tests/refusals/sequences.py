"""What chains and hidden Markov models refuse."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import (
    Bernoulli,
    ConditionalChain,
    EachStep,
    FactorialChain,
    GatedTransition,
    GaussianChain,
    MarkovChain,
    StandardNormal,
)
from dlvm.models import (
    SRNN,
    STORN,
    VRNN,
    AutoregressiveHMM,
    BernoulliMixture,
    DeepMarkov,
    FactorialHMM,
    HiddenMarkov,
    LinearGaussianSSM,
    OrnsteinUhlenbeck,
    SwitchingSSM,
)
from dlvm.nets import MLP, SwitchingDiagonal
from refusals.case import NOT_COUNTS, Case

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
NOT_STEPS = [None, 3, dist.Normal(torch.zeros(4, 2), 1.0), dist.Normal(torch.zeros(5, 2), 1.0).to_event(1)]
NOT_INPUTS = st.sampled_from([3, "x", torch.zeros(2), torch.zeros(4, 2, 5), torch.zeros(4, 3, 5).long()])
RISING = torch.arange(3.0).expand(4, 3)
NOT_TIMES = st.sampled_from([3, "x", RISING[0], RISING[:2], RISING[:, :2], -RISING, 0 * RISING, RISING.long()])
PATH = torch.eye(2)[torch.zeros(4, 3, dtype=torch.long)]
NOT_LIKELIHOODS = st.sampled_from([None, 3, "x", StandardNormal(2), SwitchingDiagonal(2, 2), Bernoulli(MLP(2, 2))])
NOT_MIXTURES = st.sampled_from([None, 3, BernoulliMixture, StandardNormal(2), BernoulliMixture(3, 2)])
NOT_SEQUENCES = st.sampled_from([X[0], X[..., :1], X[None], None, 3, "x", X.double(), X[:0]])


NOT_NETS = st.sampled_from([None, 3, "net", nn.ReLU, lambda z: z, X])


def chain(**settings: object) -> MarkovChain:
    return MarkovChain(
        **{"initial": torch.zeros(2), "transition": torch.zeros(2, 2), "evidence": torch.zeros(4, 3, 2)} | settings
    )


def states(**settings: object) -> GaussianChain:
    one = torch.eye(2).expand(4, 3, 2, 2)
    return GaussianChain(**{"linear": torch.zeros(4, 3, 2), "precision": one, "coupling": 0 * one[:, 1:]} | settings)


def walk(**settings: object) -> ConditionalChain:
    start = torch.zeros(4, 2)
    return ConditionalChain(
        **{"step": lambda z: dist.Normal(z, 1.0).to_event(1), "start": start, "steps": 3} | settings
    )


def factors(**settings: object) -> FactorialChain:
    made = {"initial": torch.zeros(2, 2), "transition": torch.zeros(2, 2, 2), "evidence": torch.zeros(4, 3, 2, 2)}
    return FactorialChain(**made | settings)


def deep() -> DeepMarkov:
    return DeepMarkov(2, Bernoulli(MLP(2, 2)))


def hidden() -> HiddenMarkov:
    return HiddenMarkov(BernoulliMixture(2, 2))


def autoregressive(**settings: object) -> AutoregressiveHMM:
    made = {"states": 2, "x_dim": 2, "likelihood": Bernoulli(SwitchingDiagonal(2, 2))}
    return AutoregressiveHMM(**made | settings)


def walking() -> OrnsteinUhlenbeck:
    return OrnsteinUhlenbeck(1, 2)


def factorial() -> FactorialHMM:
    return FactorialHMM(2, 2, BernoulliMixture(4, 2))


OF_SEQUENCES = {
    "HiddenMarkov": (hidden, ("log_px", "posterior", "expected_statistics", "start_at")),
    "AutoregressiveHMM": (autoregressive, ("log_px", "posterior")),
    "FactorialHMM": (factorial, ("log_px", "posterior", "expected_statistics", "start_at")),
    "OrnsteinUhlenbeck": (walking, ("log_px", "posterior")),
    "LinearGaussianSSM": (
        lambda: LinearGaussianSSM(1, 2),
        ("log_px", "posterior", "expected_statistics", "filtered", "stepwise"),
    ),
}
CHAINS = [
    *(
        Case("MarkovChain", name, lambda v, name=name: chain(**{name: v}), NOT_POTENTIALS)
        for name in ("initial", "transition", "evidence")
    ),
    *(
        Case("GaussianChain", name, lambda v, name=name: states(**{name: v}), NOT_POTENTIALS)
        for name in ("linear", "precision", "coupling")
    ),
    Case("ConditionalChain", "step", lambda v: walk(step=v).sample(), st.sampled_from([None, 3, "x", dist.Normal])),
    Case("ConditionalChain", "step", lambda v: walk(step=lambda z: v).sample(), st.sampled_from(NOT_STEPS)),
    Case("ConditionalChain", "start", lambda v: walk(start=v), st.sampled_from([None, 3, "x", torch.zeros(()), [0.0]])),
    Case("ConditionalChain", "steps", lambda v: walk(steps=v), NOT_COUNTS),
    Case("ConditionalChain", "inputs", lambda v: walk(inputs=v), NOT_INPUTS),
    Case("ConditionalChain", "lengths", lambda v: walk(lengths=v), NOT_LENGTHS),
    Case("EachStep", "steps", EachStep, st.sampled_from([None, 3, dist.Normal, dist.Normal(0.0, 1.0)])),
    Case("EachStep", "lengths", lambda v: EachStep(dist.Normal(X, 1.0).to_event(1), v), NOT_LENGTHS),
    *(
        Case("FactorialChain", name, lambda v, name=name: factors(**{name: v}), NOT_POTENTIALS)
        for name in ("initial", "transition", "evidence")
    ),
    Case("FactorialChain", "lengths", lambda v: factors(lengths=v), NOT_LENGTHS),
    Case("GatedTransition", "z_dim", GatedTransition, NOT_COUNTS),
    Case("GatedTransition", "hidden", lambda v: GatedTransition(2, v), NOT_COUNTS),
    Case("GaussianChain", "lengths", lambda v: states(lengths=v), NOT_LENGTHS),
    Case("MarkovChain", "lengths", lambda v: chain(lengths=v), NOT_LENGTHS),
]
RECURRENT = {"VRNN": (VRNN, 8), "SRNN": (SRNN, 6), "STORN": (STORN, 4)}


def recurrent(kind: str, **settings: object) -> nn.Module:
    make, width = RECURRENT[kind]
    return make(**{"z_dim": 2, "x_dim": 2, "hidden": 4, "likelihood": Bernoulli(MLP(width, 2))} | settings)


OF_RECURRENT = [
    *(
        Case(kind, name, lambda v, k=kind, n=name: recurrent(k, **{n: v}), NOT_COUNTS)
        for kind in RECURRENT
        for name in ("z_dim", "x_dim", "hidden")
    ),
    *(Case(kind, "likelihood", lambda v, k=kind: recurrent(k, likelihood=v), NOT_NETS) for kind in RECURRENT),
    *(
        Case(f"{kind}.forward", "x", lambda v, k=kind: recurrent(k)(v), NOT_SEQUENCES.filter(lambda v: v is not None))
        for kind in RECURRENT
    ),
    *(Case(f"{kind}.forward", "lengths", lambda v, k=kind: recurrent(k)(X, v), NOT_LENGTHS) for kind in RECURRENT),
]
MODELS = [
    *OF_RECURRENT,
    Case("DeepMarkov", "z_dim", lambda v: DeepMarkov(v, StandardNormal(2)), NOT_COUNTS),
    Case("DeepMarkov", "likelihood", lambda v: DeepMarkov(2, v), NOT_NETS),
    Case(
        "DeepMarkov",
        "transition",
        lambda v: DeepMarkov(2, StandardNormal(2), v),
        NOT_NETS.filter(lambda v: v is not None),
    ),
    Case("DeepMarkov.forward", "x", lambda v: deep()(v), st.sampled_from([X[0], X[..., :1], X[None], 3, "x", X[:0]])),
    Case("DeepMarkov.forward", "lengths", lambda v: deep()(X, v), NOT_LENGTHS),
    Case("HiddenMarkov", "components", HiddenMarkov, st.sampled_from([None, 3, BernoulliMixture, StandardNormal(2)])),
    Case("AutoregressiveHMM", "states", lambda v: autoregressive(states=v), NOT_COUNTS),
    Case("AutoregressiveHMM", "x_dim", lambda v: autoregressive(x_dim=v), NOT_COUNTS),
    Case("AutoregressiveHMM", "likelihood", lambda v: autoregressive(likelihood=v), NOT_LIKELIHOODS),
    Case("FactorialHMM", "chains", lambda v: FactorialHMM(v, 2, BernoulliMixture(4, 2)), NOT_COUNTS),
    Case("FactorialHMM", "states", lambda v: FactorialHMM(2, v, BernoulliMixture(4, 2)), NOT_COUNTS),
    Case("FactorialHMM", "components", lambda v: FactorialHMM(2, 2, v), NOT_MIXTURES),
    Case("OrnsteinUhlenbeck", "z_dim", lambda v: OrnsteinUhlenbeck(v, 2), NOT_COUNTS),
    Case("OrnsteinUhlenbeck", "x_dim", lambda v: OrnsteinUhlenbeck(2, v), NOT_COUNTS),
    *(
        Case(f"OrnsteinUhlenbeck.{method}", "times", lambda v, m=method: getattr(walking(), m)(X, None, v), NOT_TIMES)
        for method in ("log_px", "posterior", "forward")
    ),
    Case("SwitchingSSM", "states", lambda v: SwitchingSSM(v, 2, 2), NOT_COUNTS),
    Case("SwitchingSSM", "z_dim", lambda v: SwitchingSSM(2, v, 2), NOT_COUNTS),
    Case("SwitchingSSM", "x_dim", lambda v: SwitchingSSM(2, 2, v), NOT_COUNTS),
    Case("SwitchingSSM.log_px_given", "x", lambda v: SwitchingSSM(2, 1, 2).log_px_given(v, PATH), NOT_SEQUENCES),
    Case("LinearGaussianSSM", "z_dim", lambda v: LinearGaussianSSM(v, 2), NOT_COUNTS),
    Case("LinearGaussianSSM", "x_dim", lambda v: LinearGaussianSSM(2, v), NOT_COUNTS),
    *(
        Case(f"{kind}.{method}", "x", lambda v, make=make, method=method: getattr(make(), method)(v), NOT_SEQUENCES)
        for kind, (make, methods) in OF_SEQUENCES.items()
        for method in methods
    ),
    *(
        Case(
            f"{kind}.{method}",
            "lengths",
            lambda v, make=make, method=method: getattr(make(), method)(X, v),
            NOT_LENGTHS,
        )
        for kind, (make, methods) in OF_SEQUENCES.items()
        for method in (*methods, "forward")
    ),
]
