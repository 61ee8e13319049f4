"""Hamiltonian Monte Carlo: the integrator to rounding, and what a transition leaves as it is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from dlvm.evidence.annealing.hmc import Point, at, kinetic_energy, leapfrog, transition

COV = torch.tensor([[1.0, 0.9], [0.9, 1.5]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COV)
SIZES = torch.tensor([0.1, 0.4, 1.2], dtype=torch.float64)  # one of them poor


def normal(u: Tensor) -> list[Tensor]:
    """N(0, COV), up to a constant."""
    return [-0.5 * (u @ PRECISION * u).sum(-1)]


def quartic(u: Tensor) -> list[Tensor]:
    """A log-density in two terms, neither Gaussian."""
    return [-0.25 * u.pow(4).sum(-1), u.sin().sum(-1)]


FIELD = partial(at, normal)


def draws(chains: int) -> Point:
    """Exact draws from N(0, COV), one column of data per step size."""
    return FIELD(torch.randn(chains, len(SIZES), 2, dtype=torch.float64) @ torch.linalg.cholesky(COV).T)


def energy(point: Point, velocity: Tensor, weights: tuple) -> Tensor:
    return kinetic_energy(velocity) - point.log_density(weights)


def test_leapfrog_run_backwards_comes_back():
    field, weights = partial(at, quartic), (0.7, 1.3)
    start, velocity = field(torch.randn(5, 3, 2, dtype=torch.float64)), torch.randn(5, 3, 2, dtype=torch.float64)
    there, arrived = leapfrog(field, start, velocity, weights, 0.2 * SIZES, 20)
    back, returned = leapfrog(field, there, -arrived, weights, 0.2 * SIZES, 20)
    assert (there.u - start.u).abs().max() > 0.1
    torch.testing.assert_close(back.u, start.u, atol=1e-10, rtol=0)
    torch.testing.assert_close(-returned, velocity, atol=1e-10, rtol=0)


def test_leapfrog_keeps_volume():
    """The Jacobian of (u, v) -> (u', v') for one chain has determinant 1, by central differences."""
    field, size = partial(at, quartic), torch.tensor([0.3], dtype=torch.float64)

    def flow(state: Tensor) -> Tensor:
        point, velocity = leapfrog(
            field, field(state[:2].reshape(1, 1, 2)), state[2:].reshape(1, 1, 2), (1, 1), size, 5
        )
        return torch.cat([point.u.flatten(), velocity.flatten()])

    state, eye = torch.tensor([0.3, -0.5, 1.0, 0.2], dtype=torch.float64), 1e-5 * torch.eye(4, dtype=torch.float64)
    jacobian = torch.stack([(flow(state + step) - flow(state - step)) / 2e-5 for step in eye])
    assert abs(torch.linalg.det(jacobian) - 1) < 1e-8


def test_the_energy_error_is_of_second_order():
    """Over the same time, half the step has a quarter of the error."""
    field, weights = partial(at, quartic), (1.0, 1.0)
    start, velocity = field(torch.randn(50, 1, 2, dtype=torch.float64)), torch.randn(50, 1, 2, dtype=torch.float64)
    errors = []
    for leaps in (20, 40, 80):
        end = leapfrog(field, start, velocity, weights, torch.tensor([1.0 / leaps], dtype=torch.float64), leaps)
        errors.append((energy(*end, weights) - energy(start, velocity, weights)).abs().mean())
    assert 3.9 < errors[0] / errors[1] < 4.1 and 3.9 < errors[1] / errors[2] < 4.1


def test_a_transition_leaves_exact_draws_as_they_are():
    """Mean and second moments of N(0, COV) after one transition, per step size, within 4 standard errors."""
    moved, acceptance = transition(FIELD, draws(20_000), [1.0], SIZES, 5)
    for column in moved.u.unbind(1):
        moments = torch.stack([column[:, 0], column[:, 1], column[:, 0] ** 2, column[:, 0] * column[:, 1]])
        truth = torch.tensor([0.0, 0.0, 1.0, 0.9], dtype=torch.float64)
        assert ((moments.mean(1) - truth).abs() < 4 * moments.std(1) / 20_000**0.5).all()
    assert acceptance.mean(0)[0] > 0.99 > acceptance.mean(0)[1] > 0.7 > acceptance.mean(0)[2]


def test_detailed_balance():
    """E h(u) k(u') = E k(u) h(u') for u exact: the difference within 4 standard errors, for several h and k."""
    start = draws(20_000)
    moved, _ = transition(FIELD, start, [1.0], SIZES, 3)
    before, after = start.u, moved.u
    functions = [
        lambda u: u[..., 0],
        lambda u: u[..., 1].pow(3),
        lambda u: (u[..., 0] > 0.5).double(),
        lambda u: u[..., 1].exp(),
    ]
    for h in functions:
        for k in functions:
            if h is not k:
                skew = h(before) * k(after) - k(before) * h(after)
                assert (skew.mean(0).abs() < 4 * skew.std(0) / 20_000**0.5).all()


def test_chains_from_one_point_reach_the_density():
    point = FIELD(torch.full((4000, 1, 2), 3.0, dtype=torch.float64))
    for _ in range(30):
        point, _ = transition(FIELD, point, [1.0], torch.tensor([0.5], dtype=torch.float64), 5)
    torch.testing.assert_close(torch.cov(point.u[:, 0].T), COV, atol=0.12, rtol=0)


def test_what_diverges_is_rejected():
    """With a huge step the quartic overflows: chains stay where they were, finite."""
    field = partial(at, quartic)
    start = field(torch.randn(10, 2, 2))
    moved, acceptance = transition(field, start, (1.0, 1.0), torch.tensor([1e3, 0.01]), 30)
    assert torch.equal(moved.u[:, 0], start.u[:, 0]) and (acceptance[:, 0] == 0).all()
    assert (acceptance[:, 1] > 0.99).all() and not torch.equal(moved.u[:, 1], start.u[:, 1])
    assert all(part.isfinite().all() for part in moved)


def test_one_evaluation_per_leap_and_what_is_kept_is_right():
    calls = []

    def counted(u: Tensor) -> Point:
        calls.append(u)
        return at(quartic, u)

    point = counted(torch.randn(6, 3, 2, dtype=torch.float64))
    for weight in (0.1, 0.5, 1.0):  # the density changes, and nothing is computed anew
        point, _ = transition(counted, point, (1.0, weight), 0.3 * SIZES, 4)
    assert len(calls) == 1 + 3 * 4
    for kept, again in zip(point, at(quartic, point.u), strict=True):
        torch.testing.assert_close(kept, again, atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", [torch.tensor([0.1, 0.2, 0.3]), torch.full((4, 3), 0.1)])
def test_step_sizes_per_datum_and_per_chain(size):
    field = partial(at, lambda u: [-0.5 * u.square().sum(-1)])
    moved, acceptance = transition(field, field(torch.zeros(4, 3, 2)), [1.0], size, 2)
    assert moved.u.shape == (4, 3, 2) and acceptance.shape == (4, 3) and moved.u.dtype == torch.float32
