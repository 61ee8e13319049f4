"""What options of several scripts stand for: optimizers, data, sizes."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from dlvm.experiments.data import Splits, load

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "rmsprop": partial(torch.optim.RMSprop, centered=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def count(*modules: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(p.shape) for module in modules for p in module.parameters() if p.requires_grad)


def splits(config: object) -> Splits:
    """The data that a script's config names: its data, key, scale, batch_size, data_dir and eval_data."""
    settings = {name: getattr(config, name) for name in ("batch_size", "data_dir", "key", "scale")}
    return load(config.data, **settings).tested_on(config.eval_data)
