"""The maximum mean discrepancy: without bias, and equal to its closed form for Gaussians."""

from __future__ import annotations

import math

import pytest
import torch

from dlvm.inference import MMD, RBF, InverseMultiquadric, mmd

WIDTH = 1.3


def expected(a: tuple[float, float], b: tuple[float, float], dim: int) -> float:
    """E k(x, y) of the RBF kernel for x ~ N(loc, scale^2 I) and y alike, independent."""
    (m, s), (n, t) = a, b
    spread = WIDTH**2 + s**2 + t**2
    return (WIDTH / math.sqrt(spread) * math.exp(-((m - n) ** 2) / (2 * spread))) ** dim


def draws(seed: int, a: tuple[float, float], b: tuple[float, float], dim: int, n: int, repeats: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(repeats):
        one, other = (m + s * torch.randn(n, dim, generator=generator, dtype=torch.float64) for m, s in (a, b))
        found.append(mmd(one, other, RBF(WIDTH)))
    return torch.stack(found)


@pytest.mark.parametrize("b", [(0.0, 1.0), (0.7, 0.6)], ids=["the same", "another"])
def test_its_mean_over_samples_is_the_closed_form_of_gaussians_and_zero_for_equal_ones(b):
    """Four rows a sample, where the diagonal that a biased estimate has would weigh most."""
    a, dim = (0.0, 1.0), 2
    found = draws(0, a, b, dim, 4, 400)
    wanted = expected(a, a, dim) + expected(b, b, dim) - 2 * expected(a, b, dim)
    error = found.std().item() / math.sqrt(len(found))
    assert abs(found.mean().item() - wanted) < 4 * error
    assert (abs(wanted) < 1e-12) == (b == a) and 4 * error < 0.06
    assert (found < 0).any()


def test_kernels_are_what_they_say():
    square = torch.tensor([[0.0, 1.0, 4.0]])
    assert torch.allclose(RBF(2.0)(square, 3), torch.exp(-square / 8))
    assert torch.equal(RBF()(square, 4), RBF(2.0)(square, 3))
    one, two = (InverseMultiquadric((s,))(square, 3) for s in (0.5, 2.0))
    assert torch.allclose(one, 3 / (3 + square)) and torch.allclose(two, 12 / (12 + square))
    assert torch.allclose(InverseMultiquadric((0.5, 2.0))(square, 3), (one + two) / 2)


def test_its_gradient_draws_codes_to_the_prior():
    generator = torch.Generator().manual_seed(1)
    codes = (3 + torch.randn(40, 2, generator=generator)).requires_grad_()
    prior = torch.randn(40, 2, generator=generator)
    gain = MMD(InverseMultiquadric()).gain(codes, prior, 2.0)
    assert torch.allclose(gain, torch.full((40,), -2.0) * mmd(codes, prior, InverseMultiquadric()))
    (pull,) = torch.autograd.grad(gain.sum(), codes)
    assert (pull.mean(0) < 0).all()


def test_what_is_no_pair_of_samples_is_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="other must have at least two rows .* got torch.float32 of shape \\(1, 2\\)"):
        mmd(x, x[:1])
    with pytest.raises(ValueError, match="as many columns, got 2 and 1"):
        mmd(x, x[:, :1])
    with pytest.raises(ValueError, match="this one has a single datum"):
        MMD().gain(x[:1], x[:1], 1.0)
