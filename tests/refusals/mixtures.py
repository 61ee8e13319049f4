"""What mixtures refuse, and EM."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import strategies as st

from dlvm.distributions import Bernoulli, StandardNormal
from dlvm.inference import fit_em
from dlvm.models import GMVAE, BernoulliMixture, CategoricalMixture, FactorAnalysers, GaussianMixture, PoissonMixture
from dlvm.nets import MLP
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.nets import NOT_MODULES
from refusals.odd_pairs import SAID

X = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
LIKELIHOOD = Bernoulli(MLP(2, 4))
NOT_BATCHES = st.sampled_from(
    [3, 2.5, iter([(X,)]), object(), [], (), X[:0], X / 0, X[:, :3], [(X[:, :3],)], [X, X[:, :2]]]
)
NOT_ROWS = st.sampled_from(
    [X[:, :3], X[0], X[:0], X[None], X.double(), X.long(), torch.where(X == 1, torch.nan, X), X / 0, None, 3, "x"]
)
NOT_LEAST = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, -0.1]))
MIXTURES = {
    "BernoulliMixture": BernoulliMixture,
    "CategoricalMixture": partial(CategoricalMixture, classes=2),
    "FactorAnalysers": partial(FactorAnalysers, z_dim=2),
    "GaussianMixture": GaussianMixture,
    "PoissonMixture": PoissonMixture,
}
CASES = [
    *(Case(n, "components", lambda v, make=m: make(v, 4), NOT_COUNTS) for n, m in MIXTURES.items()),
    *(Case(n, "x_dim", lambda v, make=m: make(2, v), NOT_COUNTS) for n, m in MIXTURES.items()),
    *(
        Case(f"{n}.{method}", "x", lambda v, make=m, method=method: getattr(make(2, 4), method)(v), NOT_ROWS)
        for n, m in MIXTURES.items()
        for method in ("log_px", "posterior", "log_joint", "guide", "start_at", "expected_statistics")
    ),
    Case(
        "GaussianMixture",
        "covariance",
        lambda v: GaussianMixture(2, 4, v),
        st.sampled_from(["diag", "", None, 3, "Full", [], ("full",)]),
    ),
    Case(
        "GaussianMixture",
        "reg_covar",
        lambda v: GaussianMixture(2, 4, reg_covar=v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, -1e-6, -1])),
    ),
    Case("CategoricalMixture", "classes", lambda v: CategoricalMixture(2, 4, v), NOT_COUNTS),
    Case("CategoricalMixture", "least", lambda v: CategoricalMixture(2, 4, 3, v), NOT_LEAST),
    Case("PoissonMixture", "least", lambda v: PoissonMixture(2, 4, v), NOT_LEAST),
    Case("FactorAnalysers", "z_dim", lambda v: FactorAnalysers(2, 4, v), NOT_COUNTS),
    Case(
        "FactorAnalysers",
        "least",
        lambda v: FactorAnalysers(2, 4, 1, v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, -0.1])),
    ),
    Case(
        "GMVAE",
        "clusters",
        lambda v: GMVAE(v, LIKELIHOOD),
        st.sampled_from([None, 3, "x", BernoulliMixture(2, 2), GaussianMixture, StandardNormal(2)]),
    ),
    Case("GMVAE", "likelihood", lambda v: GMVAE(GaussianMixture(2, 2), v), NOT_MODULES),
    Case("GMVAE.cluster", "z", GMVAE(GaussianMixture(2, 4), LIKELIHOOD).cluster, NOT_ROWS, "x"),
    Case(
        "BernoulliMixture",
        "least",
        lambda v: BernoulliMixture(2, 4, v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, 0.5, 1.0, -0.1])),
    ),
]


def em(**settings: object) -> list:
    model = GaussianMixture(2, 4, "diagonal")
    with torch.no_grad():
        model.loc.copy_(X[:2])
    return list(fit_em(**{"model": model, "train": X, "iterations": 1} | settings))


EM_CASES = [
    Case("fit_em", "model", lambda v: em(model=v), st.sampled_from([None, 3, GaussianMixture, torch.nn.ReLU(), len])),
    *(Case("fit_em", word, lambda v, word=word: em(**{word: v}), NOT_BATCHES, SAID) for word in ("train", "valid")),
    *(Case("fit_em", word, lambda v, word=word: em(**{word: v}), NOT_COUNTS) for word in ("iterations", "rows")),
    Case(
        "fit_em",
        "tolerance",
        lambda v: em(tolerance=v),
        st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, -1e-9])),
    ),
]
