"""Independent Bernoulli pixels: exact values, starting bias, and data that no Bernoulli can have produced."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch import nn

from distributions import Bernoulli
from nets import MLP


def test_log_prob_is_the_cross_entropy_summed_over_pixels():
    likelihood = Bernoulli(MLP(2, 8, 6)).double()
    z, x = torch.randn(4, 5, 2).double(), (torch.rand(5, 6) < 0.5).double()
    rates = torch.sigmoid(likelihood.net(z))
    expected = (x * rates.log() + (1 - x) * (1 - rates).log()).sum(-1)
    assert_close(likelihood(z).log_prob(x), expected, 1e-12)
    assert likelihood(z).log_prob(x).shape == (4, 5) and likelihood(z).event_shape == (6,)


def test_probabilities_of_all_images_sum_to_one():
    likelihood = Bernoulli(MLP(2, 8, 6)).double()
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6)
    assert_close(likelihood(torch.randn(2).double()).log_prob(images).logsumexp(0), 0.0, 1e-12)


def test_extreme_logits_stay_finite():
    net = nn.Linear(1, 3)
    nn.init.constant_(net.weight, 1e4)
    log_px = Bernoulli(net)(torch.tensor([[1.0], [-1.0]])).log_prob(torch.tensor([1.0, 0.0, 1.0]))
    assert log_px.isfinite().all()


def test_mean_sets_the_starting_rates():
    net = MLP(2, 8, 3)
    nn.init.zeros_(net.layers[-1].weight)
    likelihood = Bernoulli(net, mean=torch.tensor([0.2, 0.5, 0.9]))
    assert_close(torch.sigmoid(likelihood.net(torch.zeros(2))), torch.tensor([0.2, 0.5, 0.9]), 1e-6)
    Bernoulli(net, mean=torch.tensor([0.0, 0.5, 1.0]))
    assert net.bias.isfinite().all() and net.bias.abs().max() < 8


@pytest.mark.parametrize("net", [MLP(2, 8, 4), nn.Sequential(nn.Linear(2, 3)), nn.Linear(2, 3, bias=False)])
def test_mean_without_a_place_is_refused(net):
    with pytest.raises(ValueError, match=r"mean has shape \(3,\) and needs a net with a bias of that shape"):
        Bernoulli(net, mean=torch.full((3,), 0.5))


def test_greys_are_refused():
    with pytest.raises(ValueError, match="support"):
        Bernoulli(MLP(2, 3))(torch.zeros(5, 2)).log_prob(torch.full((5, 3), 0.4))
