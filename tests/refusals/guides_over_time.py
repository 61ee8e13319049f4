"""What guides over time refuse."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import strategies as st
from pyro.distributions import constraints
from torch import nn

import dlvm.guides as room
from dlvm.distributions import DiagonalNormal
from dlvm.guides import Joint, Latent, Local
from dlvm.nets import MLP, Recurrent
from refusals.case import Case
from refusals.guides_parts import NOT_ENCODERS, NOT_SPECS

OVER_TIME = {"z": Latent(torch.Size([3, 2]))}
NOT_OVER_TIME = st.sampled_from(
    [
        {"z": Latent(torch.Size([2]))},
        {"z": Latent(torch.Size([3, 2, 2]))},
        {"z": Latent(torch.Size([3, 2]), constraints.positive)},
        {"z_1": Latent(torch.Size([2])), "w": Latent(torch.Size([2]))},
        {"z_1": Latent(torch.Size([2])), "z_3": Latent(torch.Size([2]))},
        {"z_2": Latent(torch.Size([2]))},
        {"z_1": Latent(torch.Size([2])), "z_2": Latent(torch.Size([3]))},
        {"z_1": Latent(torch.Size([2])), "z_2": Latent(torch.Size([2]), constraints.positive)},
    ]
)
NOT_STEP_GUIDES = st.sampled_from(
    [None, 3, "diagonal", Joint, DiagonalNormal, nn.ReLU(), partial(Local, num_data=3), lambda *parts: None, dict]
)
NOT_COMBINERS = st.sampled_from([3, "net", nn.ReLU(), lambda z, h: None, lambda z: MLP(z), nn.ReLU, {}])


def make(name: str, **settings: object) -> nn.Module:
    return getattr(room, name)(**{"latents": OVER_TIME, "encoder": Recurrent(3, 4)} | settings)


def cases(parameter: str, names: list[str], bad: st.SearchStrategy, named: str | None = None) -> list[Case]:
    return [Case(name, parameter, lambda v, name=name: make(name, **{parameter: v}), bad, named) for name in names]


GUIDES = ["MeanFieldOverTime", "Sequential", "StructuredGaussian"]
CASES = [
    *cases("latents", GUIDES, NOT_SPECS),
    *cases("latents", GUIDES, NOT_OVER_TIME, "latent site"),
    *cases("encoder", GUIDES, NOT_ENCODERS),
    *cases("family", GUIDES[:2], NOT_STEP_GUIDES),
    *cases("latents", GUIDES[2:], st.just({"z_1": Latent(torch.Size([2]))}), "latent site"),
    *cases("combiner", ["Sequential"], NOT_COMBINERS),
]
