"""Bounds, their slopes, schedules and evaluations of any valid input: as another way computes them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from torch import Tensor

from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    RWS,
    TVO,
    MovingAverage,
    Renyi,
    VRMax,
    WakeSleep,
    constant,
    cosine,
    cyclical,
    linear,
)
from dlvm.inference.bounds.derivatives import curvatures, left_out, slopes

SIZES = [0.0, 1e-6, 1.0, 30.0, 1e4]
BOUNDS = {
    "ELBO": (ELBO, lambda w: w.mean(0)),
    "IWAE": (IWAE, lambda w: power(w, 1.0)),
    "RWS": (lambda k: RWS(k, sleep=0.5), lambda w: power(w, 1.0)),
    "WakeSleep": (WakeSleep, lambda w: w.mean(0)),
    "VRMax": (VRMax, lambda w: w.amax(0)),
    "Renyi 0.5": (lambda k: Renyi(0.5, k), lambda w: power(w, 0.5)),
    "Renyi 0.999999": (lambda k: Renyi(0.999999, k), lambda w: power(w, 1 - 0.999999)),
    "Renyi 1": (lambda k: Renyi(1, k), lambda w: w.mean(0)),
    "Renyi -3": (lambda k: Renyi(-3.0, k), lambda w: power(w, 4.0)),
    "Renyi -1e4": (lambda k: Renyi(-1e4, k), lambda w: power(w, 10001.0)),
    "CUBO": (lambda k: CUBO(2.5, k), lambda w: power(w, 2.5)),
    "CIWAE": (lambda k: CIWAE(0.25, k), lambda w: 0.25 * w.mean(0) + 0.75 * power(w, 1.0)),
    "CIWAE 0": (lambda k: CIWAE(0, k), lambda w: power(w, 1.0)),
    "CIWAE 1": (lambda k: CIWAE(1, k), lambda w: w.mean(0)),
    "MIWAE in one": (lambda k: MIWAE(1, k), lambda w: power(w, 1.0)),
    "MIWAE of one": (lambda k: MIWAE(k, 1), lambda w: w.mean(0)),
    "TVO": (lambda k: TVO(k, 3, 0.1), lambda w: thermodynamic(w, [0.0, 0.1, 0.1**0.5, 1.0])),
    "TVO in one": (lambda k: TVO(k, 1), lambda w: w.mean(0)),
}


def power(log_w: Tensor, a: float) -> Tensor:
    """1/a log 1/K sum_k w_k^a from the largest weight on, so that nothing overflows or cancels."""
    top = log_w.amax(0)
    return top + torch.log1p(torch.expm1(a * (log_w - top)).mean(0)) / a


def thermodynamic(log_w: Tensor, points: list[float]) -> Tensor:
    top = log_w.amax(0)
    total = torch.zeros_like(top)
    for b, after in zip(points[:-1], points[1:], strict=True):
        share = (b * (log_w - top)).exp()
        total += (after - b) * (share / share.sum(0) * log_w).sum(0)
    return total


@st.composite
def weights(draw, least: int = 1, vanished: bool = False) -> Tensor:
    """Log-weights (num_particles, batch) around any level, with any spread, some equal, some of weight zero."""
    k, batch, seed = draw(st.integers(least, 7)), draw(st.integers(0, 4)), draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(k, batch, generator=generator, dtype=torch.float64)
    log_w = draw(st.sampled_from([-1.0, 1.0])) * draw(st.sampled_from(SIZES)) + draw(st.sampled_from(SIZES)) * noise
    if draw(st.booleans()):
        log_w = log_w[torch.randint(0, k, (k,), generator=generator)]
    if vanished and batch:
        log_w[torch.rand(k, batch, generator=generator) < 0.4] = -math.inf
    return log_w.to(draw(st.sampled_from([torch.float32, torch.float64])))


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


def near(found: Tensor, expected: Tensor, scale: Tensor | float) -> None:
    """Equal up to rounding of numbers as large as ``scale``."""
    assert found.shape == expected.shape and not found.isnan().any(), (found, expected)
    rounding = 64 * torch.finfo(found.dtype).eps
    gap = (found.double() - expected.double()).abs().nan_to_num(0.0)  # both -inf
    assert bool((gap <= rounding * (1 + torch.as_tensor(scale).double())).all()), (found, expected)


def size(log_w: Tensor) -> float:
    finite = log_w[log_w.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_its_formula_for_weights_of_any_size(name):
    @quick(25)
    @given(weights())
    def property(log_w):
        make, formula = BOUNDS[name]
        found = make(len(log_w)).bound(log_w)
        assert found.dtype is log_w.dtype
        near(found, formula(log_w.double()), size(log_w))

    property()


@pytest.mark.parametrize("name", BOUNDS)
def test_no_order_of_particles_split_of_data_or_shift_changes_a_bound(name):
    @quick(20)
    @given(weights(), st.integers(0, 99), st.sampled_from([-1e4, -1.0, 3.0, 1e4]))
    def property(log_w, seed, shift):
        bound, generator = BOUNDS[name][0](len(log_w)).bound, torch.Generator().manual_seed(seed)
        found, scale = bound(log_w), size(log_w)
        near(bound(log_w[torch.randperm(len(log_w), generator=generator)]), found, scale)
        if log_w.shape[1] > 1:
            near(torch.cat([bound(log_w[:, :1]), bound(log_w[:, 1:])]), found, scale)
            near(bound(log_w.T.contiguous().T), found, scale)
        near(bound(log_w + shift), found + shift, scale + abs(shift))

    property()


@quick(40)
@given(weights(least=2))
def test_bounds_lie_in_their_order(log_w):
    k = len(log_w)
    some = [ELBO(k), TVO(k, 4), IWAE(k), CUBO(1.5, k), CUBO(4.0, k), VRMax(k)]
    others = [ELBO(k), CIWAE(0.7, k), CIWAE(0.2, k), Renyi(0, k), Renyi(-2, k), VRMax(k)]
    more = [Renyi(1, k), Renyi(0.9, k), Renyi(0.3, k), Renyi(0, k)]
    slack = 64 * torch.finfo(log_w.dtype).eps * (1 + size(log_w))
    for chain in (some, others, more):
        values = [objective.bound(log_w) for objective in chain]
        for lower, higher in zip(values[:-1], values[1:], strict=True):
            assert bool((lower <= higher + slack).all())


@pytest.mark.parametrize("name", [name for name in BOUNDS if name != "VRMax"])
def test_slopes_add_up_to_one_and_closed_forms_are_those_found_by_differentiation(name):
    @quick(15)
    @given(weights(least=2))
    def property(log_w):
        objective = BOUNDS[name][0](len(log_w))
        slope = slopes(objective.bound, log_w)
        steepness = {"TVO": 30, "Renyi -1e4": 1e4}.get(name, 4)
        near(slope.sum(0), torch.ones_like(slope[0]), steepness * (1 + size(log_w)))
        spread = 1 + (log_w - log_w.mean(0)).abs().max().item() if log_w.numel() else 1.0
        if spread < 200 and name != "Renyi -1e4":
            scale = 30 * (1 + size(log_w))
            near(objective.bound.curvatures(log_w), curvatures(objective.bound, log_w), scale)
            near(objective.bound.left_out(log_w), left_out(objective.bound, log_w), scale)

    property()


@pytest.mark.parametrize("name", BOUNDS)
def test_weights_of_zero_make_no_nan(name):
    @quick(25)
    @given(weights(least=2, vanished=True))
    def property(log_w):
        bound = BOUNDS[name][0](len(log_w)).bound
        value = bound(log_w)
        assert not value.isnan().any()
        trained = log_w[:, value.isfinite()]
        for found in (bound.slopes(trained), bound.curvatures(trained), bound.left_out(trained)):
            assert not found.isnan().any()

    property()


WARM_UPS = {
    "linear": lambda a, b, t: a + (b - a) * min(t, 1.0),
    "cosine": lambda a, b, t: a + (b - a) * (1 - math.cos(math.pi * min(t, 1.0))) / 2,
}
NUMBERS = st.one_of(st.floats(0, 1e6), st.sampled_from([0.0, 1.0, 1e-300, 25.0]), st.integers(0, 30))


@quick(40)
@given(st.sampled_from(["linear", "cosine"]), NUMBERS, NUMBERS, st.integers(1, 10**7), st.data())
def test_a_warm_up_is_its_formula_at_any_step(kind, start, end, steps, data):
    step = data.draw(st.one_of(st.integers(0, 2 * steps), st.sampled_from([0, steps - 1, steps, 10**12])))
    schedule = {"linear": linear, "cosine": cosine}[kind](start, end, steps)
    schedule.step.fill_(step)
    found, expected = schedule().item(), WARM_UPS[kind](start, end, step / steps)
    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * max(start, end))
    assert step < steps or math.isclose(found, end, rel_tol=1e-12, abs_tol=1e-12 * start)
    assert schedule.step == step + 1


@quick(20)
@given(NUMBERS, NUMBERS, st.integers(1, 60), st.integers(1, 9), st.floats(0.01, 1.0))
def test_cycles_rise_as_often_as_asked_and_end_where_they_should(start, end, steps, cycles, rise):
    cycles = min(cycles, steps)
    schedule = cyclical(start, end, steps, cycles, rise)
    found = [schedule().item() for _ in range(steps + 3)]
    for step, value in enumerate(found[:steps]):
        turn = (step * cycles) % steps
        expected = start + (end - start) * min(1.0, turn / steps / rise)
        assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9 * max(start, end)), step
    assert all(math.isclose(value, end, rel_tol=1e-12, abs_tol=1e-12 * start) for value in found[steps:])


@quick(20)
@given(NUMBERS)
def test_a_constant_stays_and_no_look_without_gradients_moves_a_schedule(value):
    held, rising = constant(value), linear(value, 2 * value + 1, 10)
    assert held() == held() == value
    with torch.no_grad():
        assert rising() == rising() == value and rising.step == 0


@quick(20)
@given(st.floats(0, 0.999), st.lists(weights(), min_size=1, max_size=3), st.sampled_from([1.0, 1e4]))
def test_a_moving_average_is_the_weighted_mean_of_what_went_before(decay, signals, scale):
    baseline, seen = MovingAverage(decay), []
    for signal in (s * scale for s in signals if s.numel()):
        found, _ = baseline(signal, None)
        shares = [decay ** (len(seen) - i) for i in range(len(seen))] if decay else [0.0] * (len(seen) - 1) + [1.0]
        average = sum(s * m for s, m in zip(shares, seen, strict=True)) / sum(shares) if seen else 0.0
        near(found, signal.double() - average, size(signal) + abs(average) + max(map(abs, seen), default=0.0))
        seen.append(signal.double().mean().item())
