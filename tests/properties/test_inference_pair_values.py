"""What pairs are worth on any data: as in closed form, as the sum of parts, alike in every chunk, order, layout."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import Phase, given
from hypothesis import settings as running
from hypothesis import strategies as st
from oracles import LinearGaussian
from pyro.infer import Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, latents
from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    STL,
    SVI,
    TVO,
    Evaluation,
    NonFinite,
    Renyi,
    VRMax,
    capacity,
    evaluate,
    fit,
    free_bits,
    linear,
    log_weights,
    tempered,
    verdict,
)
from dlvm.inference.programs.notes import said
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

D, Z = 3, 2
PHASES = Phase.explicit, Phase.generate  # each example is a whole evaluation: none to spare for shrinking
OBJECTIVES = {
    "Trace_ELBO": lambda k: Trace_ELBO(),
    "Trace_ELBO in parallel": lambda k: Trace_ELBO(num_particles=k, vectorize_particles=True),
    "TraceGraph_ELBO": lambda k: TraceGraph_ELBO(),
    "ELBO": ELBO,
    "IWAE STL": lambda k: IWAE(k, STL()),
    "Renyi": lambda k: Renyi(0.3, k),
    "CUBO": lambda k: CUBO(2.0, k),
    "VRMax": VRMax,
    "TVO": TVO,
    "CIWAE": lambda k: CIWAE(0.5, k),
    "MIWAE": lambda k: MIWAE(2, k),
    "PIWAE": lambda k: PIWAE(k, 2),
    "RWS": lambda k: RWS(k, sleep=0.5),
    "tempered": lambda k: tempered(IWAE(k), 0.1),
    "free_bits": lambda k: free_bits(ELBO(k), 9.0),
    "capacity": lambda k: capacity(ELBO(k), 3.0),
}
SPEC = LinearGaussian(
    torch.linspace(-1, 1, D * Z).view(D, Z).double(), torch.zeros(D).double(), torch.tensor(0.25).double()
)


class Posterior(PyroModule):
    """q(z | x) = p(z | x), with a parameter that it does not use."""

    def __init__(self, dtype: torch.dtype):
        super().__init__("guide")
        self.unused = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        loc, cov = SPEC.posterior(x.double())
        with pyro.plate("data", len(x)):
            tril = torch.linalg.cholesky(cov).to(self.unused.dtype)
            return pyro.sample("z", dist.MultivariateNormal(loc.to(self.unused), scale_tril=tril))


def pair(dtype: torch.dtype) -> tuple[PPCA, Posterior]:
    return PPCA(SPEC.weight.to(dtype), SPEC.mu.to(dtype), SPEC.s2.sqrt().to(dtype)).to(dtype), Posterior(dtype)


PAIRS = {dtype: pair(dtype) for dtype in (torch.float32, torch.float64)}


@st.composite
def data(draw, most: int = 5) -> Tensor:
    """Data (n, D) of any size, laid out in any way."""
    n, seed = draw(st.integers(1, most)), draw(st.integers(0, 10**6))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    x = x * draw(st.sampled_from([0.0, 1e-3, 1.0, 1.0, 1e2]))
    layout = draw(st.sampled_from(["plain", "strided", "expanded", "part of a larger one"]))
    if layout == "strided":
        return x.T.contiguous().T
    if layout == "expanded":
        return x[:1].expand(n, -1)
    return torch.cat([x, x], dim=1)[:, D:] if layout == "part of a larger one" else x


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None, phases=PHASES)


def near(found, expected, x: Tensor) -> None:
    tolerance = (2e-5 if x.dtype is torch.float32 else 1e-10) * (1 + x.double().square().sum().item() / SPEC.s2.item())
    found = torch.as_tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0.0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_at_the_posterior_every_bound_is_log_px_for_each_datum_and_their_sum_for_a_batch(name):
    @quick(3)
    @given(data(), st.integers(2, 4), st.integers(0, 99))
    def property(x, k, seed):
        model, guide = PAIRS[x.dtype]
        svi = SVI(model, guide, torch.optim.SGD, OBJECTIVES[name](k), engine="eager")
        expected = -SPEC.log_px(x.double())
        near(svi.evaluate_loss(x), expected.sum(), x)
        near(sum(svi.evaluate_loss(row[None]) for row in x), expected.sum(), x)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        near(svi.evaluate_loss(x[order]), expected.sum(), x)

    property()


@quick(6)
@given(
    data(most=7),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 90)),
    st.integers(1, 7),
    st.integers(0, 2**32 - 1),
)
def test_what_is_evaluated_is_log_px_whatever_the_chunk_batches_and_seed(x, k, chunk, rows, seed):
    found = evaluate(*PAIRS[x.dtype], list(x.split(rows)), k, chunk=chunk, seed=seed)
    expected = SPEC.log_px(x.double()).mean()
    near(found.log_px, expected, x)
    near(found.elbo, expected, x)
    near(-found.rate - found.distortion, expected, x)
    assert found.num_data == len(x) and found.units == Z and found.complete
    assert found.ess == pytest.approx(k, rel=1e-3 * (1 + x.abs().max().item() ** 2))
    assert k == 1 or found.log_px_se >= 0
    assert isinstance(str(found), str) and isinstance(found.verdict, str)


@quick(5)
@given(data(), st.integers(1, 5))
def test_weights_at_the_posterior_are_log_px_each(x, k):
    found = log_weights(*PAIRS[x.dtype], x, num_particles=k)
    assert found.shape == (k, len(x)) and found.dtype is x.dtype
    near(found, SPEC.log_px(x.double()).expand(k, -1), x)


BINARY = VAE(2, Bernoulli(MLP(2, 6, 4)))
BITS = (torch.rand(40, 4, generator=torch.Generator().manual_seed(3)) > 0.5).float()
ENCODED = Diagonal(latents(BINARY, BITS), MLP(4, 6))


@pytest.mark.slow
@quick(5)
@given(st.integers(1, 120), st.integers(1, 40), st.sampled_from([0, 1, 2**32 - 1]))
def test_chunks_and_batches_draw_other_particles_of_the_same_bound(chunk, rows, seed):
    few = BITS[:16]
    whole = evaluate(BINARY, ENCODED, few, 60, seed=7)
    parts = evaluate(BINARY, ENCODED, [(part,) for part in few.split(rows)], 60, chunk=chunk, seed=seed)
    for word in ("elbo", "log_px"):
        error = math.hypot(getattr(whole, f"{word}_se"), getattr(parts, f"{word}_se"))
        assert abs(getattr(whole, word) - getattr(parts, word)) < 5 * error
    again = evaluate(BINARY, ENCODED, [(part,) for part in few.split(rows)], 60, chunk=chunk, seed=seed)
    assert str(again) == str(parts)


def test_numbers_of_numpy_are_numbers_and_can_be_written_down(tmp_path):
    numbers = {name: np.int64(2) for name in ("epochs", "patience", "seed", "every", "keep", "rollbacks")}
    how = dict(valid=[(BITS,)], clip_norm=np.float32(1.5), progress=False, engine="eager", checkpoint=tmp_path)
    first, again = ([*fit(BINARY, ENCODED, MIWAE(np.int64(2), np.int32(2)), [(BITS,)], **numbers, **how)] for _ in "ab")
    assert [epoch.valid for epoch in first] == [epoch.valid for epoch in again] and len(first) == 2
    assert (
        linear(0, 1, np.int64(2)).steps == 2 and evaluate(BINARY, ENCODED, BITS, np.int64(3), chunk=np.int64(5)).units
    )


WORKS = {
    "evaluate": lambda m, g, x: evaluate(m, g, x, 5).log_px,
    "log_weights": lambda m, g, x: log_weights(m, g, x, num_particles=2).mean().item(),
    "step": lambda m, g, x: SVI(m, g, torch.optim.SGD, ELBO(2), engine="eager").evaluate_loss(x),
    "mean field": lambda m, g, x: SVI(m, g, torch.optim.SGD, TraceMeanField_ELBO(), engine="eager").evaluate_loss(x),
    "fit": lambda m, g, x: next(fit(m, g, ELBO(2), [(x,)], epochs=1, engine="eager", progress=False, seed=0)).train,
}
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
HUGE = [1e15, 1e30, 3e38, -3e38, 1e-30, -0.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("work", WORKS)
def test_data_of_another_dtype_give_the_numbers_of_their_own_or_are_refused_in_words(work):
    @quick(6)
    @given(st.sampled_from(DTYPES), st.booleans())
    def property(dtype, linear):
        model, guide = PAIRS[torch.float32] if linear else (BINARY, ENCODED)
        x = BITS[:5, : D if linear else None]
        try:
            found = WORKS[work](model, guide, x.to(dtype))
        except Exception as error:
            text = said(error)
            assert "; " in text and len(text) > 30, error
            assert isinstance(error, ValueError | TypeError | NonFinite) or "fails so on a batch" in text, text
        else:
            assert math.isfinite(found)
            if linear:
                assert work in ("fit", "mean field") or found == pytest.approx(WORKS[work](model, guide, x), rel=1e-3)

    property()


@pytest.mark.parametrize("work", WORKS)
def test_a_single_number_out_of_all_bounds_gives_a_finite_result_or_an_error_that_names_its_place(work):
    @quick(6)
    @given(st.sampled_from(HUGE), st.integers(0, 4), st.integers(0, D - 1), st.booleans())
    def property(value, row, column, linear):
        model, guide = PAIRS[torch.float32] if linear else (BINARY, ENCODED)
        x = BITS[:5, : D if linear else None].clone()
        x[row, column] = value
        try:
            found = WORKS[work](model, guide, x)
        except (ValueError, TypeError, NonFinite) as error:
            assert len(str(error)) > 30, error
        else:
            assert math.isfinite(found) or (work == "evaluate" and found == -math.inf), found  # below any float32

    property()


@quick(30)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, 0.0])), min_size=11, max_size=11),
    st.integers(0, 30),
)
def test_any_evaluation_has_a_verdict_in_plain_words(numbers, epochs):
    record = Evaluation(*numbers[:6], 1, *numbers[6:10], num_particles=25, num_data=9, units=2)

    class Told:
        def __init__(self, valid):
            self.valid = valid

    found = verdict(record, [Told(numbers[10] + i) for i in range(epochs)])
    assert str(found).endswith(".") and found.next and str(record)
