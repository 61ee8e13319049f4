"""What is saved comes back to the last bit, also in another process."""

from __future__ import annotations

import torch

from dlvm.guides import Diagonal, latents
from dlvm.inference import load, save
from dlvm.models import PPCA
from dlvm.nets import MLP


def test_a_pair_comes_back(tmp_path):
    torch.manual_seed(0)
    model, x = PPCA(torch.randn(5, 2), torch.zeros(5), 1.0), torch.randn(4, 5)
    guide = Diagonal(latents(model, x), MLP(5, 8))
    save(tmp_path, model, guide)
    for saved, loaded in zip((model, guide), load(tmp_path), strict=True):
        assert type(saved) is type(loaded)
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())
