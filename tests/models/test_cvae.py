"""p(x | y) with a latent vector: against Gaussian conditionals in closed form, and what may be given and how."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from dlvm.distributions import Bernoulli, ConstantScaleNormal, FixedScale
from dlvm.distributions.scale import LIMIT
from dlvm.guides import Diagonal, FullRank, latents
from dlvm.inference import ELBO, check, evaluate, generate, log_weights, reconstruct
from dlvm.models import CVAE
from dlvm.nets import MLP, Classes, Joined

SCALE, X_DIM, Y_DIM, Z_DIM = 0.7, 4, 3, 2


def linear(*sizes: int, seed: int) -> nn.Linear:
    layer = nn.Linear(*sizes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return layer


class Beneath(nn.Module):
    """Gaussian p(x | z, y) or p(z | y) of fixed scale, linear in what it is given."""

    def __init__(self, net: nn.Linear, scale: float):
        super().__init__()
        self.made = ConstantScaleNormal(net, FixedScale(scale))

    def forward(self, *given: Tensor):
        return self.made(torch.cat([g.expand(*given[0].shape[:-1], -1) for g in given], -1))


@pytest.fixture(scope="module")
def exact() -> tuple[CVAE, Tensor, Tensor, MultivariateNormal, Tensor]:
    """The model, data, what is given, p(x | y) in closed form, and rows [y, x] with q's exact gain of them."""
    decoder, prior = linear(Z_DIM + Y_DIM, X_DIM, seed=1), linear(Y_DIM, Z_DIM, seed=2)
    model = CVAE(Z_DIM, Beneath(decoder, SCALE), Beneath(prior, 0.5))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, X_DIM, generator=generator), torch.randn(6, Y_DIM, generator=generator)
    with torch.no_grad():
        w, u = decoder.weight.split([Z_DIM, Y_DIM], 1)
        loc = y @ u.T + decoder.bias + prior(y) @ w.T
        covariance = 0.25 * w @ w.T + SCALE**2 * torch.eye(X_DIM)
    return model, x, y, MultivariateNormal(loc, covariance), w


def exact_guide(model: CVAE, x: Tensor, y: Tensor, w: Tensor) -> FullRank:
    """q(z | x, y) = p(z | x, y), whose mean is linear in [x, y] and whose covariance is the same for all."""
    decoder, prior = model.likelihood.made.net, model.prior.made.net
    guide = FullRank(latents(model, x, y), Joined(MLP(X_DIM + Y_DIM), [MLP(X_DIM), MLP(Y_DIM)]))
    u = decoder.weight[:, Z_DIM:]
    covariance = torch.linalg.inv(4 * torch.eye(Z_DIM) + w.T @ w / SCALE**2)
    gain = covariance @ w.T / SCALE**2
    weight = torch.cat([gain, 4 * covariance @ prior.weight - gain @ u], 1)
    bias = 4 * covariance @ prior.bias - gain @ decoder.bias
    tril = torch.linalg.cholesky(covariance)
    raw = LIMIT * torch.atanh(tril.diagonal().log() / LIMIT)
    head = guide.posteriors[0].head
    with torch.no_grad():
        head.weight.zero_()[:Z_DIM] = weight
        head.bias.copy_(torch.cat([bias, raw, tril[1:, 0]]))
    return guide


def test_every_weight_of_a_linear_gaussian_with_its_own_posterior_is_the_conditional_in_closed_form(exact) -> None:
    model, x, y, given, w = exact
    guide = exact_guide(model, x, y, w)
    log_w = log_weights(model, guide, x, y, num_particles=5)
    torch.testing.assert_close(log_w, given.log_prob(x).expand(5, -1), atol=2e-4, rtol=0)
    found = evaluate(model, guide, [(x, y)], num_particles=5)
    assert found.log_px == pytest.approx(given.log_prob(x).mean().item(), abs=1e-4)
    assert found.log_px - found.elbo == pytest.approx(0.0, abs=1e-4)


def test_draws_given_y_have_the_conditionals_mean_and_spread(exact) -> None:
    model, _, y, given, _ = exact
    n = 20_000
    x = generate(model, n, given={"y": y[:1].expand(n, -1)})["x"]
    assert ((x.mean(0) - given.loc[0]).abs() < 5 * given.stddev[0] / n**0.5).all()
    assert (x.std(0) / given.stddev[0] - 1).abs().max() < 5 / (2 * n) ** 0.5


def test_a_part_of_x_is_given_as_if_it_were_an_argument_of_its_own() -> None:
    """The same nets: y as some columns of x, out of order among the rest, and y by itself."""
    torch.manual_seed(0)
    seen = torch.tensor([False, True, True, False, False])
    likelihood = Bernoulli(Joined(MLP(4, 8, 3), [MLP(2), MLP(2)]))
    inside, apart = CVAE(2, likelihood, seen=seen), CVAE(2, likelihood)
    x = (torch.randn(7, 5) > 0).float()
    y, rest = x[:, seen], x[:, ~seen]
    guide = Diagonal(latents(apart, rest, y), Joined(MLP(5, 8), [MLP(3), MLP(2)]))
    whole = Diagonal(latents(inside, x), Reordered(guide.encoder, seen))
    whole.posteriors.load_state_dict(guide.posteriors.state_dict())
    one, two = evaluate(inside, whole, x, num_particles=9), evaluate(apart, guide, [(rest, y)], num_particles=9)
    assert one.log_px == pytest.approx(two.log_px, rel=1e-5) and one.elbo == pytest.approx(two.elbo, rel=1e-5)
    assert torch.equal(inside.whole(rest, y), x)
    found = reconstruct(inside, whole, x, num_particles=2)
    assert found[:, seen].isnan().all() and found[:, ~seen].isfinite().all()
    assert inside(y=y[:1], n=4).shape == (4, 3)


class Reordered(nn.Module):
    """An encoder of whole rows that is one of their two parts."""

    def __init__(self, net: Joined, seen: Tensor):
        super().__init__()
        self.net, self.seen, self.out_features, self.activation = net, seen, net.out_features, net.activation

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x[:, ~self.seen], x[:, self.seen])


def by_class(seen: Tensor | None = None) -> CVAE:
    return CVAE(2, Bernoulli(Joined(MLP(5, 8, 4), [MLP(2), Classes(3)])), seen=seen)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: by_class()(torch.zeros(5, 4)),
            "y must be a tensor .* got NoneType: p\\(x \\| y\\) is of data given y",
        ),
        (lambda: by_class()(n=3), "y must be a tensor"),
        (
            lambda: by_class()(torch.zeros(5, 4), torch.zeros(1).long()),
            "y must have one row for each datum of x, got 1 for 5",
        ),
        (lambda: by_class()(y=torch.zeros(2).long(), n=5), "y must have one row for each datum of x, got 2 for 5"),
        (lambda: by_class()(torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0])), "classes 0 to 2, got 3"),
        (lambda: by_class()(torch.zeros(2, 4), torch.tensor([0, -1])), "classes 0 to 2, got -1"),
        (lambda: by_class()(torch.zeros(2, 4), torch.tensor([0, torch.nan])), "classes 0 to 2, got nan"),
        (lambda: by_class(torch.arange(6) < 2)(torch.zeros(5, 4)), "x must have all 6 columns"),
        (lambda: by_class(torch.arange(6) < 2)(torch.zeros(5, 6), torch.zeros(5, 2)), "y must be None where seen"),
        (lambda: by_class(torch.arange(6) < 2)(y=torch.zeros(5, 3)), "y must have shape \\(batch, 2\\)"),
        (lambda: by_class(torch.ones(4).bool()), "seen must mark some columns and leave some"),
        (lambda: by_class().whole(torch.zeros(1, 4), torch.zeros(1)), "x is whole where y is an argument"),
    ],
)
def test_what_is_not_given_or_given_twice_is_refused(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_prior_of_another_shape_is_refused_when_it_is_called() -> None:
    model = CVAE(2, Bernoulli(Joined(MLP(5, 4), [MLP(2), Classes(3)])), Beneath(nn.Linear(1, 3), 1.0))
    with pytest.raises(ValueError, match="prior makes a batch of .* declare dimensions"):
        model(y=torch.zeros(5, 1))


def test_an_encoder_of_x_alone_is_told_that_it_gets_both() -> None:
    model, x, y = by_class(), torch.zeros(5, 4), torch.zeros(5).long()
    with pytest.raises((TypeError, ValueError), match="encoder|Linear|arguments"):
        check(model, Diagonal(latents(model, x, y), MLP(4, 8)), ELBO(), x, y)
