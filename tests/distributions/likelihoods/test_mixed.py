"""Mixtures of logistic levels, classes in order and mixed columns: sums of 1, draws, what depends on what, holes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dlvm.distributions import (
    Bernoulli,
    CategoricalColumns,
    LogisticMixture,
    Missing,
    NegativeBinomial,
    Normal,
    OrdinalColumns,
    Product,
    Shared,
    StudentT,
    Units,
    positive,
)
from dlvm.distributions.likelihoods.greys import RoundedLogistic


def bent(likelihood: nn.Module) -> nn.Module:
    """With weights far from where training starts."""
    with torch.no_grad():
        for p in likelihood.parameters():
            p.add_(torch.randn_like(p))
    return likelihood


def test_all_colours_of_a_pixel_sum_to_one_and_draws_have_their_frequencies():
    levels = 3
    p = bent(LogisticMixture(nn.Linear(2, 8), 3, channels=3, components=2, levels=levels))(torch.randn(2))
    every = torch.cartesian_prod(*[torch.arange(float(levels))] * 3) / (levels - 1)
    probs = p.log_prob(every).exp()
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)
    drawn = p.sample((20_000,))
    assert p.support.check(drawn).all()
    share = (drawn[:, None] == every).all(-1).double().mean(0)
    assert ((share - probs).abs() < 5 * (probs * (1 - probs) / 20_000).sqrt() + 1e-4).all()


def test_channels_are_conditioned_on_those_before_them_and_pixels_are_independent():
    """log p of two pixels is the sum of each; the second channel's conditional depends on the first, not the third."""
    likelihood = bent(LogisticMixture(nn.Linear(2, 8), 6, channels=3, components=2, levels=5))
    z = torch.randn(2)
    x = likelihood(z).sample()
    pixels = likelihood(z).pixels
    apart = pixels.log_prob(torch.stack([x[0::2], x[1::2]]))  # channel after channel, two pixels each
    assert torch.allclose(likelihood(z).log_prob(x), apart.sum(), atol=1e-5)
    logits = pixels.logits[0]
    first = torch.arange(5) / 4
    conditionals = []
    for r in first:  # p(g | r), from the joint of all three, summed over the third
        grid = torch.cartesian_prod(r[None], first, first)
        conditionals.append(pixels.expand((25, 2)).log_prob(grid[:, None].expand(-1, 2, -1))[:, 0].exp().view(5, 5))
    joint = torch.stack(conditionals)  # (r, g, b)
    marginal = joint.sum((1, 2))
    by_hand = torch.zeros(5)
    for k in range(2):
        single = pixels.component(0, [])
        by_hand += logits.softmax(-1)[k] * single.expand((2, 2)).log_prob(first[:, None, None])[:, 0, k].exp()
    assert torch.allclose(marginal, by_hand, atol=1e-5)
    given = joint.sum(2) / marginal[:, None]
    assert (given[0] - given[4]).abs().max() > 0.01


def test_one_channel_and_one_component_are_a_discretised_logistic():
    mixture = bent(LogisticMixture(nn.Linear(2, 8), 4, components=1, levels=17))
    z = torch.randn(5, 2)
    p = mixture(z)
    single = p.base_dist
    x = p.sample()
    wanted = RoundedLogistic(single.loc[..., 0, 0], single.scale[..., 0, 0], 17)
    assert torch.allclose(p.log_prob(x), wanted.log_prob(x).sum(-1), atol=1e-5)
    assert torch.allclose(p.mean, wanted.mean, atol=1e-5)
    holed = x.clone()
    holed[:, 1] = math.nan
    there = single.log_prob(x)[:, [0, 2, 3]].sum(-1)
    assert torch.allclose(Missing(mixture)(z).log_prob(holed), there, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_mixtures_have_leading_dimensions_and_finite_gradients_in_the_tails(channels):
    likelihood = LogisticMixture(nn.Linear(2, 8), 6, channels, levels=256)
    p = likelihood(1e4 * torch.randn(4, 5, 2))
    assert p.batch_shape == (4, 5) and p.event_shape == (6,) and p.mean.shape == (4, 5, 6)
    p.log_prob(torch.full((5, 6), 51 / 255)).sum().backward()
    assert all(q.grad.isfinite().all() for q in likelihood.parameters())
    for wrong in (0.501, 1.5, math.nan):
        with pytest.raises(ValueError, match="within the support"):
            likelihood(torch.zeros(5, 2)).log_prob(torch.full((5, 6), wrong))


@pytest.mark.parametrize("sizes", [(2,), (2, 5, 3)])
def test_classes_in_order_are_between_cuts_and_their_probabilities_sum_to_one(sizes):
    likelihood = bent(OrdinalColumns(nn.Linear(2, 8), sizes))
    z = torch.randn(6, 2)
    p = likelihood(z)
    probs = p.base_dist.probs
    f = likelihood.head(likelihood.net(z))
    for d, size in enumerate(sizes):
        cuts = likelihood.first[d] + torch.cat([torch.zeros(1), positive(likelihood.steps[d]).cumsum(0)])[: size - 1]
        below = torch.sigmoid(cuts - f[:, d, None])
        exact = torch.cat([below, torch.ones(6, 1)], 1).diff(dim=1, prepend=torch.zeros(6, 1))
        assert torch.allclose(probs[:, d, :size], exact, atol=1e-5)
        assert (probs[:, d, size:] == 0).all()
        assert torch.allclose(probs[:, d].cumsum(-1)[:, : size - 1], below, atol=1e-5)
    assert torch.allclose(probs.sum(-1), torch.ones(6, len(sizes)), atol=1e-5)
    every = torch.stack([p.base_dist.logits[:, d, 0] for d in range(len(sizes))], 1)
    assert torch.allclose(p.log_prob(torch.zeros(6, len(sizes))), every.sum(-1), atol=1e-4)
    likelihood(1e4 * z).log_prob(p.sample()).sum().backward()
    assert all(q.grad.isfinite().all() for q in likelihood.parameters())


def test_cuts_start_at_the_shares_of_the_classes():
    likelihood = OrdinalColumns(nn.Linear(2, 8), (4, 2))
    nn.init.zeros_(likelihood.head.weight), nn.init.zeros_(likelihood.head.bias)
    shares = [torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.9, 0.1])]
    likelihood.start_at(shares)
    probs = likelihood(torch.zeros(2)).base_dist.probs
    assert torch.allclose(probs[0], shares[0], atol=1e-3) and torch.allclose(probs[1, :2], shares[1], atol=1e-3)


COLUMNS = [(3, 0), (1,), (2, 5), (4,)]


def mixed() -> Product:
    parts = [
        Normal(Shared(8), 2, Units(torch.tensor([0.0, 1e3]), torch.tensor([1.0, 50.0]))),
        CategoricalColumns(Shared(8), (3,)),
        NegativeBinomial(Shared(8), 2),
        Bernoulli(nn.Linear(8, 1)),
    ]
    return Product(nn.Linear(2, 8), parts, COLUMNS)


def test_a_product_is_the_sum_of_its_parts_column_by_column_with_holes_too():
    likelihood, z = mixed(), torch.randn(4, 6, 2)
    p = likelihood(z)
    assert p.batch_shape == (4, 6) and p.event_shape == (6,)
    x = p.sample()
    assert p.support.check(x).all()
    h = likelihood.net(z)
    parts = [part(h).log_prob(x[..., list(at)]) for part, at in zip(likelihood.parts, COLUMNS, strict=True)]
    assert torch.allclose(p.log_prob(x), sum(parts), atol=1e-4)
    assert torch.allclose(p.mean[..., [3, 0]], likelihood.parts[0](h).mean)
    holed = x.clone()
    holed[..., [0, 1, 4]] = math.nan
    singles = p.base_dist.log_prob(x)
    assert torch.allclose(Missing(likelihood)(z).log_prob(holed), singles[..., [2, 3, 5]].sum(-1), atol=1e-4)
    Missing(likelihood)(z).log_prob(holed).sum().backward()
    assert all(q.grad is None or q.grad.isfinite().all() for q in likelihood.parameters())


def test_a_number_in_the_wrong_column_of_a_product_is_refused():
    x = mixed()(torch.zeros(5, 2)).sample()
    for column, wrong in ((1, 3.0), (2, 0.5), (4, 2.0), (0, math.nan)):
        bad = x.clone()
        bad[2, column] = wrong
        with pytest.raises(ValueError, match="within the support"):
            mixed()(torch.zeros(5, 2)).log_prob(bad)


def test_a_product_of_one_part_is_that_part():
    product = Product(nn.Linear(2, 8), [StudentT(Shared(8), 3)], [(0, 1, 2)])
    z = torch.randn(5, 2)
    x = product(z).sample()
    assert torch.allclose(product(z).log_prob(x), product.parts[0](product.net(z)).log_prob(x), atol=1e-5)
