"""Codes of a learned list: the bound against all codes, the gradients by hand, and what has no gradient."""

from __future__ import annotations

import math
from itertools import product

import pyro
import pytest
import torch
from oracles import assert_close
from pyro import poutine

from dlvm.distributions import Bernoulli, ChainRule, Codebook, CodePrior, Tokens
from dlvm.guides import Quantiser
from dlvm.inference import ELBO, IWAE, RWS, STL, VIMCO, WakeSleep, evaluate
from dlvm.models import VQVAE
from dlvm.nets import MLP, CausalTransformer

pytestmark = pytest.mark.usefixtures("float64")
CODES, POSITIONS, DIM, WIDTH = 3, 2, 2, 4
X = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)


def pair(learned: bool = True) -> tuple[VQVAE, Quantiser]:
    pyro.set_rng_seed(0)
    decoder, encoder = MLP(POSITIONS * DIM, 5, WIDTH), MLP(WIDTH, POSITIONS * DIM)
    book = Codebook(CODES, DIM)
    codes = ChainRule(CausalTransformer(POSITIONS, CODES, width=4, layers=1, heads=1), Tokens(CODES))
    return VQVAE(CodePrior(book, POSITIONS, codes if learned else None), Bernoulli(decoder)), Quantiser(book, encoder)


def test_the_bound_is_the_joint_at_its_codes_and_below_the_sum_over_all():
    model, guide = pair()
    every = torch.tensor(list(product(range(CODES), repeat=POSITIONS)))
    book, log_k = model.prior.codebook, model.prior.codes().log_prob(every)
    assert_close(log_k.exp().sum(), 1.0, 1e-6)
    data = torch.tensor(list(product((0.0, 1.0), repeat=WIDTH)))
    joint = log_k + model.likelihood(book(every).flatten(-2)).log_prob(data[:, None])  # (data, codes)
    assert_close(joint.exp().sum(), 1.0, 1e-6)
    at = guide.codes(data)
    expected = joint.gather(1, at[:, :1] * CODES + at[:, 1:]).squeeze(1)
    found = evaluate(model, guide, data, num_particles=3, progress=False)
    assert_close(found.elbo, expected.mean(), 1e-6)
    assert_close(found.log_px, expected.mean(), 1e-6)
    assert_close(found.rate, -log_k[at[:, 0] * CODES + at[:, 1]].mean(), 1e-6)
    assert (expected < joint.logsumexp(1)).all()
    assert_close(IWAE(4).loss(model, guide, data), ELBO(1).loss(model, guide, data), 1e-9)


@pytest.mark.parametrize("particles", [1, 3])
def test_gradients_are_straight_through_and_those_of_the_two_losses(particles):
    """Of h what comes to z and 2 c (h - z); of the codes 2 (z - h) where they are picked, else to the nearest h."""
    model, guide = pair()
    book = model.prior.codebook.vectors
    with torch.no_grad():
        book[:2] = guide.vectors(X)[0] + 0.1
        book[2] = 40.0  # which no datum picks
    codes = guide.codes(X)
    assert set(codes.unique().tolist()) == {0, 1}
    h = guide.vectors(X).detach()
    z = book[codes].detach().requires_grad_()
    (by_z,) = torch.autograd.grad(-model.likelihood(z.flatten(-2)).log_prob(X).sum(), z)
    z = z.detach()
    expected = torch.zeros_like(book)
    for n, m in product(range(len(X)), range(POSITIONS)):
        expected[codes[n, m]] += 2 * (z[n, m] - h[n, m])
    rows = h.reshape(-1, DIM)
    expected[2] = 2 * (book[2].detach() - rows[(rows - book[2]).square().sum(-1).argmin()])
    h = guide.vectors(X)
    by_encoder = torch.autograd.grad(h, [*guide.encoder.parameters()], by_z + 0.5 * (h.detach() - z))
    ELBO(particles).differentiable_loss(model, guide, X).backward()
    assert_close(book.grad, expected, 1e-9)
    for parameter, slope in zip(guide.encoder.parameters(), by_encoder, strict=True):
        assert_close(parameter.grad, slope, 1e-9)


def test_what_the_prior_learns_leaves_the_nets_alone():
    """As if it were learned afterwards; the gain over equal chances is the difference of the two bounds."""
    slopes, bounds = [], []
    for learned in (False, True):
        model, guide = pair(learned)
        loss = ELBO().differentiable_loss(model, guide, X)
        loss.backward()
        slopes.append([*(p.grad for p in guide.parameters()), *(p.grad for p in model.likelihood.parameters())])
        bounds.append(-loss.item())
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))
    gain = model.prior.codes().log_prob(guide.codes(X)).sum() + len(X) * POSITIONS * math.log(CODES)
    assert_close(bounds[1] - bounds[0], gain, 1e-9)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.prior.codes.net.layers.parameters())


@pytest.mark.parametrize(
    "objective", [WakeSleep(2), RWS(2), ELBO(2, STL()), ELBO(2, VIMCO(everywhere=True))], ids=lambda o: repr(o)[:12]
)
def test_what_would_score_the_point_mass_is_refused(objective):
    model, guide = pair()
    with pytest.raises(ValueError, match="a point mass on codes has no score"):
        objective.differentiable_loss(model, guide, X).backward()


def test_draws_are_of_the_codebook_and_other_values_are_refused():
    model, guide = pair()
    site = poutine.trace(model).get_trace(n=6).nodes["z"]
    z, book = site["value"], model.prior.codebook
    assert z.shape == (6, POSITIONS, DIM) and torch.equal(book(book.nearest(z)), z)
    assert site["fn"].log_prob(z).shape == (6,)
    with pytest.raises(ValueError, match=r"within the support \(OfCodebook"):
        site["fn"].log_prob(z + 0.1)
    q = poutine.trace(guide).get_trace(X).nodes["z"]["fn"]
    with torch.no_grad():
        assert q.log_prob(q.mean.clone()).tolist() == [0.0] * 3
        assert q.log_prob(book((guide.codes(X) + 1) % CODES)).tolist() == [-math.inf] * 3
