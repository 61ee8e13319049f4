"""What a linear classifier is given, and what it tells."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlvm.distributions import Bernoulli, Bits, ChainRule
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.linear_probe import features_of, probe
from dlvm.guides import Diagonal, latents
from dlvm.models import VAE, FullyVisible
from dlvm.nets import MLP, NADE, CausalTransformer, OrderedMADE, PixelCNN


def visible(net: nn.Module) -> FullyVisible:
    return FullyVisible(ChainRule(net, Bits()))


def two_classes(rows: int, seed: int) -> Loader:
    """Class 1 has its ones in the last half."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (rows,), generator=generator)
    noise = torch.rand(rows, 12, generator=generator)
    x = (noise < torch.where((torch.arange(12) >= 6) == y[:, None].bool(), 0.8, 0.1)).float()
    return Loader(x, labels=y, batch_size=7, shuffle=True)


def test_features_are_the_last_hidden_layer_or_the_codes():
    torch.manual_seed(0)
    x = two_classes(5, 0).x
    made = OrderedMADE(12, (16,))
    first = made.made.layers[0]
    hidden = (x @ (first.mask * first.weight).T + first.bias).relu()
    torch.testing.assert_close(features_of(visible(made), nn.Identity(), x), hidden)
    assert features_of(visible(NADE(12, 9)), nn.Identity(), x).shape == (5, 9)
    assert features_of(visible(PixelCNN((1, 2, 6), channels=3)), nn.Identity(), x).shape == (5, 3 * 2 * 4)
    assert features_of(visible(CausalTransformer(12, 2, 1, width=8)), nn.Identity(), x).shape == (5, 8)
    vae = VAE(2, Bernoulli(MLP(2, 12)))
    assert features_of(vae, Diagonal(latents(vae, x), MLP(12, 8)), x).shape == (5, 2)


def test_the_probe_tells_classes_apart_and_cannot_tell_what_is_no_class():
    torch.manual_seed(0)
    model = visible(OrderedMADE(12, (16,)))
    parts = [two_classes(n, seed) for n, seed in ((200, 0), (50, 1), (200, 2))]
    found = probe(model, nn.Identity(), Splits(*parts))
    assert found is not None and found > 0.97
    rolled = [Loader(part.x, labels=part.labels[torch.randperm(len(part.x))]) for part in parts]
    chance = probe(model, nn.Identity(), Splits(*rolled))
    assert chance is not None and 0.35 < chance < 0.65
    assert probe(model, nn.Identity(), Splits(*(Loader(part.x) for part in parts))) is None


def test_a_net_without_a_known_hidden_layer_is_refused():
    model = nn.ModuleDict({"likelihood": nn.ModuleDict({"net": nn.Linear(2, 2)})})
    with pytest.raises(ValueError, match="must have a net with a hidden layer that is known, got Linear"):
        features_of(model, nn.Identity(), torch.ones(1, 2))
