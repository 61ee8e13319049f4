"""Chains of Gaussian states against the joint Gaussian with the whole precision matrix."""

from __future__ import annotations

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.distributions.kl import kl_divergence
from torch.nn import functional as F

from dlvm.distributions import GaussianChain

STEPS, DIM = 4, 2


def chain(seed: int = 0, batch: tuple[int, ...] = (), lengths: Tensor | None = None, steps: int = STEPS):
    torch.manual_seed(seed)
    root = torch.randn(*batch, steps, DIM, DIM).double()
    precision = root @ root.mT + 4 * torch.eye(DIM).double()
    coupling = torch.randn(*batch, steps - 1, DIM, DIM).double()
    return GaussianChain(torch.randn(*batch, steps, DIM).double(), precision, coupling, lengths)


def joint(found: GaussianChain, length: int = STEPS) -> MultivariateNormal:
    """The same, as one Gaussian of all numbers within the length."""
    whole = torch.block_diag(*found.precision[:length])
    for t in range(length - 1):
        here, ahead = slice(t * DIM, (t + 1) * DIM), slice((t + 1) * DIM, (t + 2) * DIM)
        whole[ahead, here], whole[here, ahead] = found.coupling[t], found.coupling[t].mT
    mean = torch.linalg.solve(whole, found.linear[:length].flatten())
    return MultivariateNormal(mean, precision_matrix=whole)


@pytest.mark.parametrize("length", [1, 3, STEPS])
def test_density_moments_entropy_and_normaliser_are_those_of_the_joint(length):
    found = chain(lengths=torch.tensor(length))
    whole, z = joint(found, length), torch.randn(5, STEPS, DIM).double()
    torch.testing.assert_close(found.log_prob(z), whole.log_prob(z[:, :length].flatten(1)))
    torch.testing.assert_close(found.mean[:length].flatten(), whole.mean)
    assert (found.mean[length:] == 0).all() and (found.variance[length:] == 0).all()
    blocks = whole.covariance_matrix.unflatten(1, (length, DIM)).unflatten(0, (length, DIM)).transpose(1, 2)
    singles, pairs = found.covariances
    for t in range(length):
        torch.testing.assert_close(singles[t], blocks[t, t])
        if t + 1 < length:
            torch.testing.assert_close(pairs[t], blocks[t + 1, t])
    torch.testing.assert_close(found.entropy(), whole.entropy())
    at_zero = found.log_prob(torch.zeros(STEPS, DIM).double())  # where the potential is 1
    torch.testing.assert_close(found.log_normaliser, -at_zero)


def test_draws_have_the_mean_and_covariance_and_carry_the_gradient():
    pyro.set_rng_seed(0)
    found = chain(lengths=torch.tensor(3))
    found.linear.requires_grad_()
    draws = found.rsample((20000,))
    assert (draws[:, 3] == 0).all()
    z, whole = draws[:, :3].flatten(1).detach(), joint(found, 3)
    error = (whole.variance / len(z)).sqrt()
    assert ((z.mean(0) - whole.mean).abs() < 4 * error).all()
    torch.testing.assert_close(z.T.cov(), whole.covariance_matrix.detach(), atol=0.02, rtol=0.05)
    (slope,) = torch.autograd.grad(draws[:, 0, 1].mean(), found.linear)
    torch.testing.assert_close(slope[:3].flatten(), whole.covariance_matrix[1].detach())


def test_each_sequence_of_a_ragged_batch_is_as_alone_whatever_stands_behind_it():
    lengths = torch.tensor([2, 4, 3])
    batch, z = chain(batch=(3,), lengths=lengths), torch.randn(3, STEPS, DIM).double()
    for i, length in enumerate(lengths):
        alone = GaussianChain(batch.linear[i, :length], batch.precision[i, :length], batch.coupling[i, : length - 1])
        torch.testing.assert_close(batch.log_prob(z)[i], alone.log_prob(z[i, :length]))
        torch.testing.assert_close(batch.log_normaliser[i], alone.log_normaliser)
        torch.testing.assert_close(batch.mean[i], F.pad(alone.mean, (0, 0, 0, STEPS - length)))
    filled = torch.where(torch.arange(STEPS)[:, None] < lengths[:, None, None], z, torch.nan)
    torch.testing.assert_close(batch.log_prob(filled.nan_to_num(1e6)), batch.log_prob(z))


@pytest.mark.parametrize("length", [2, STEPS])
def test_the_divergence_of_two_chains_is_that_of_their_joints(length):
    p, q = chain(0, lengths=torch.tensor(length)), chain(1, lengths=torch.tensor(length))
    torch.testing.assert_close(kl_divergence(p, q), kl_divergence(joint(p, length), joint(q, length)))


def test_gradients_of_the_density_are_finite_differences():
    base = chain(steps=3)
    parts = [part.clone().requires_grad_() for part in (base.linear, base.precision, base.coupling)]
    z = torch.randn(3, DIM).double()
    symmetric = lambda j: (j + j.mT) / 2  # noqa: E731
    assert torch.autograd.gradcheck(lambda h, j, c: GaussianChain(h, symmetric(j), c).log_prob(z), parts)


def test_expanding_and_broadcasting_keep_every_number():
    one, z = chain(lengths=torch.tensor(3)), torch.randn(STEPS, DIM).double()
    many = one.expand((2, 5))
    assert many.rsample((7,)).shape == (7, 2, 5, STEPS, DIM) and many.mean.shape == (2, 5, STEPS, DIM)
    torch.testing.assert_close(many.log_prob(z), one.log_prob(z).expand(2, 5))
    torch.testing.assert_close(many.entropy(), one.entropy().expand(2, 5))
    particles = GaussianChain(one.linear.expand(6, 1, STEPS, DIM), one.precision.expand(4, -1, -1, -1), one.coupling)
    assert particles.batch_shape == (6, 4) and particles.rsample().shape == (6, 4, STEPS, DIM)
    assert particles.variance.shape == particles.mean.shape == (6, 4, STEPS, DIM)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"linear": torch.zeros(2)}, "linear must be a tensor of real numbers with 2 dimensions or more"),
        ({"coupling": torch.zeros(4, 2, 2)}, "linear, precision and coupling must have shapes .* and .4, 2, 2."),
        ({"lengths": torch.tensor(5)}, "lengths must be from 1 to 4, .* got 5 to 5"),
    ],
)
def test_what_does_not_go_together_is_refused(change, words):
    settings = {
        "linear": torch.zeros(4, 2),
        "precision": torch.eye(2).expand(4, 2, 2),
        "coupling": torch.zeros(3, 2, 2),
    }
    with pytest.raises(ValueError, match=words):
        GaussianChain(**(settings | change))
