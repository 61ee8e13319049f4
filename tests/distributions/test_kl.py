"""Every registered divergence against dense Gaussians, enumeration and Monte Carlo."""

from __future__ import annotations

from itertools import product

import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from torch.distributions import LowRankMultivariateNormal, kl_divergence

from dlvm.distributions.bernoulli import IndependentBernoulli

pytestmark = pytest.mark.usefixtures("float64")

DIM, RANK = 4, 2
BATCHES = [(), (3,), (5, 1), (5, 3)]


def low_rank(loc=(), factor=(), diagonal=()):
    return dist.LowRankMultivariateNormal(
        torch.randn(*loc, DIM), torch.randn(*factor, DIM, RANK), torch.rand(*diagonal, DIM) + 0.2
    )


def full_rank(loc=(), scale=()):
    below = 0.3 * torch.randn(*scale, DIM, DIM).tril(-1)
    return dist.MultivariateNormal(
        torch.randn(*loc, DIM), scale_tril=below + torch.diag_embed(torch.rand(*scale, DIM) + 0.3)
    )


def diagonal(loc=(), scale=()):
    return dist.Normal(torch.randn(*loc, DIM), torch.rand(*scale, DIM) + 0.3).to_event(1)


KINDS = {"low rank": low_rank, "full rank": full_rank, "diagonal": diagonal}
PAIRS = [(q, p) for q, p in product(KINDS, KINDS) if q != p or q == "low rank"]
every_pair = pytest.mark.parametrize(("q", "p"), PAIRS, ids=" to ".join)


def dense(d):
    if isinstance(d, dist.Independent):
        return dist.MultivariateNormal(d.base_dist.loc, torch.diag_embed(d.base_dist.scale.square()))
    return dist.MultivariateNormal(d.loc, d.covariance_matrix)


@every_pair
def test_equals_the_dense_divergence_for_all_batch_shapes(q, p):
    for loc, spread in product(BATCHES, BATCHES):
        a, b = KINDS[q](loc, spread), KINDS[p](spread, loc)
        for x, y in ((a, b), (a.expand((5, 3)), b), (a, b.expand((5, 3)))):
            exact = kl_divergence(dense(x), dense(y))
            assert kl_divergence(x, y).shape == exact.shape
            assert_close(kl_divergence(x, y), exact, 1e-9)


def test_low_rank_parts_may_have_batch_shapes_of_their_own():
    for shapes in product(BATCHES, repeat=3):
        q = low_rank(*shapes)
        for other in (full_rank((3,)), diagonal((3,)), low_rank((3,))):
            assert_close(kl_divergence(q, other), kl_divergence(dense(q), dense(other)), 1e-9)
            assert_close(kl_divergence(other, q), kl_divergence(dense(other), dense(q)), 1e-9)


@every_pair
def test_equals_monte_carlo_within_four_standard_errors(q, p):
    a, b = KINDS[q](), KINDS[p]()
    z = a.sample((20_000,))
    terms = a.log_prob(z) - b.log_prob(z)
    assert abs(kl_divergence(a, b) - terms.mean()) < 4 * terms.std() / 20_000**0.5


@every_pair
def test_gradients_are_those_of_the_dense_divergence(q, p):
    loc, factor, spread = torch.randn(3, DIM), torch.randn(DIM, RANK), torch.rand(3, DIM) + 0.2
    tril = factor @ factor.T + 3 * torch.eye(DIM)
    leaves = [value.requires_grad_() for value in (loc, factor, spread, tril)]
    make = {
        "low rank": lambda: dist.LowRankMultivariateNormal(loc, factor, spread),
        "full rank": lambda: dist.MultivariateNormal(loc, scale_tril=tril.tril()),
        "diagonal": lambda: dist.Normal(loc, spread).to_event(1),
    }
    for a, b in ((make[q](), KINDS[p]()), (KINDS[q](), make[p]())):
        ours = torch.autograd.grad(kl_divergence(a, b).sum(), leaves, allow_unused=True)
        exact = torch.autograd.grad(kl_divergence(dense(a), dense(b)).sum(), leaves, allow_unused=True)
        assert [g is None for g in ours] == [g is None for g in exact]
        for mine, theirs in zip(ours, exact, strict=True):
            assert mine is None or torch.allclose(mine, theirs, rtol=1e-8, atol=1e-9)


def test_no_covariance_of_a_low_rank_gaussian_is_formed(monkeypatch):
    q, p = low_rank(), diagonal()
    expected = kl_divergence(dense(q), dense(p)), kl_divergence(dense(p), dense(q))
    for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
        monkeypatch.setattr(LowRankMultivariateNormal, name, property(lambda self: pytest.fail("dense")))
    fresh = dist.LowRankMultivariateNormal(q.loc, q.cov_factor, q.cov_diag)
    assert_close(kl_divergence(fresh, p), expected[0], 1e-10)
    assert_close(kl_divergence(p, fresh), expected[1], 1e-10)


BITS = torch.tensor(list(product([0.0, 1.0], repeat=3)), dtype=torch.float64)
PLAIN = [IndependentBernoulli, lambda logits: dist.Bernoulli(logits=logits).to_event(1)]
binary_pairs = pytest.mark.parametrize(("make_q", "make_p"), list(product(PLAIN, PLAIN))[:3])


@binary_pairs
def test_binary_divergence_is_the_sum_over_all_values(make_q, make_p):
    a, b = torch.randn(5, 1, 3), torch.randn(4, 3)
    q, p = make_q(a), make_p(b)
    log_q, log_p = (d.log_prob(BITS.reshape(8, 1, 1, 3)) for d in (q, p))
    assert kl_divergence(q, p).shape == (5, 4)
    assert_close(kl_divergence(q, p), (log_q.exp() * (log_q - log_p)).sum(0), 1e-12)
    assert_close(kl_divergence(q.expand((2, 5, 4)), p)[1], kl_divergence(q, p), 1e-12)


@binary_pairs
def test_binary_divergence_is_finite_for_all_finite_logits(make_q, make_p):
    a, b = torch.zeros(3), torch.tensor([-800.0, 0.0, 0.0]).requires_grad_()
    value = kl_divergence(make_q(a), make_p(b))
    assert_close(value, 400 - torch.log(torch.tensor(2.0)), 1e-9)
    value.backward()
    assert_close(b.grad, torch.tensor([-0.5, 0.0, 0.0]), 1e-12)
    assert_close(kl_divergence(make_q(b.detach()), make_p(a)), torch.log(torch.tensor(2.0)), 1e-12)


@binary_pairs
def test_binary_divergence_has_the_gradient_of_torchs_own(make_q, make_p):
    a, b = torch.randn(5, 3).requires_grad_(), torch.randn(5, 3).requires_grad_()
    ours = torch.autograd.grad(kl_divergence(make_q(a), make_p(b)).sum(), (a, b))
    theirs = torch.autograd.grad(
        kl_divergence(torch.distributions.Bernoulli(logits=a), torch.distributions.Bernoulli(logits=b)).sum(), (a, b)
    )
    for mine, exact in zip(ours, theirs, strict=True):
        assert_close(mine, exact, 1e-12)


LAPLACE = dist.Laplace(torch.zeros(DIM), 1.0).to_event(1)
MATRIX = dist.Normal(torch.zeros(DIM, DIM), 1.0).to_event(2)
MIXTURE = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2, DIM), 1.0).to_event(1))
COINS = IndependentBernoulli(torch.zeros(DIM))


@pytest.mark.parametrize("other", [LAPLACE, MATRIX, MIXTURE, COINS], ids=["laplace", "matrix", "mixture", "coins"])
def test_what_has_no_formula_here_is_left_to_monte_carlo(other):
    for gaussian in (low_rank(), full_rank()):
        for pair in ((gaussian, other), (other, gaussian)):
            with pytest.raises(NotImplementedError):
                kl_divergence(*pair)


def test_binary_vectors_have_no_divergence_from_other_kinds():
    for other in (LAPLACE, diagonal(), dist.Bernoulli(logits=torch.zeros(2, DIM)).to_event(2)):
        for pair in ((COINS, other), (other, COINS)):
            with pytest.raises(NotImplementedError, match="vector of independent Bernoulli variables is needed"):
                kl_divergence(*pair)


def test_events_of_different_width_are_refused():
    wide = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    for pair in ((low_rank(), wide), (wide, low_rank()), (full_rank(), wide), (COINS, IndependentBernoulli(wide.mean))):
        with pytest.raises(ValueError, match=r"events of one shape, got q with \((4|1),\) and p with \((1|4),\)"):
            kl_divergence(*pair)
