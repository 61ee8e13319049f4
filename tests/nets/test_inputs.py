"""What stands before a net: it sees zeros and a mask, one scale, logarithms, ones for classes, at any leading shape."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.models import PPCA
from dlvm.nets import MLP, Filled, Logarithmic, OneHot, Standardised

SEEN = nn.Identity()
SEEN.out_features = 1
X = torch.tensor([[1.0, math.nan, 3.0], [0.0, 2.0, 1.0]])


@pytest.mark.parametrize(
    "net, seen",
    [
        (Filled(SEEN), [[1, 0, 3, 1, 0, 1], [0, 2, 1, 1, 1, 1]]),
        (Logarithmic(SEEN), [[math.log(2), math.nan, math.log(4)], [0, math.log(3), math.log(2)]]),
        (
            Standardised(SEEN, torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 4.0])),
            [[0, math.nan, 0.5], [-1, 0, 0]],
        ),
        (OneHot(SEEN, (2, 3, 4)), [[0, 1, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 1, 0, 0]]),
        (Standardised(Filled(SEEN), torch.ones(3), torch.ones(3)), [[0, 0, 2, 1, 0, 1], [-1, 1, 0, 1, 1, 1]]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_a_net_sees(net, seen):
    wanted = torch.tensor(seen, dtype=torch.float32)
    assert torch.allclose(net(X), wanted, equal_nan=True)
    assert torch.allclose(net(X.expand(4, 2, 3)), wanted.expand(4, *wanted.shape), equal_nan=True)
    assert net(X.nan_to_num().long()).is_floating_point()


@pytest.mark.parametrize("wrap", [Filled, Logarithmic, lambda net: Standardised(net, torch.zeros(3), torch.ones(3))])
def test_a_guide_takes_the_nonlinearity_of_the_net_behind(wrap):
    model = PPCA(torch.ones(3, 1), torch.zeros(3), 1.0)
    width = 6 if wrap is Filled else 3
    guide = Diagonal(latents(model, torch.zeros(2, 3)), wrap(MLP(width, 8, activation=nn.Softplus)))
    assert isinstance(guide.posteriors[0].net.activation, nn.Softplus)
    assert wrap(MLP(width, activation=nn.Softplus)).activation is None  # no layer, and nothing to follow it
    assert not any("activation" in name for name in guide.state_dict())
