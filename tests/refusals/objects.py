"""What AIR and its guide refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.guides import Attend, latents
from dlvm.models import AIR
from dlvm.nets import MLP
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case

X = torch.zeros(3, 20)
NOT_SIDES = st.sampled_from([None, 3, "45", (), (4,), (4, 5, 6), (0, 5), (4, -1), (4.0, 5.0), [4, None]])
NOT_SHARES = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, 1, -0.1, 1.5]))
NOT_POSITIVE = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, -1.0]))


def model(**settings) -> AIR:
    return AIR(**{"glyph": MLP(2, 9), "sides": (4, 5), "what_dim": 2, "steps": 1} | settings)


def guide(**settings) -> Attend:
    made = model()
    return Attend(**{"latents": latents(made, X), "model": made, "sides": (4, 5), "size": 3, "hidden": 4} | settings)


MODELS = [
    Case("AIR", "glyph", lambda v: model(glyph=v), st.sampled_from([None, 3, MLP, nn.ReLU(), MLP(2, 8)])),
    Case("AIR", "sides", lambda v: model(sides=v), NOT_SIDES),
    *(Case("AIR", name, lambda v, name=name: model(**{name: v}), NOT_COUNTS) for name in ("what_dim", "steps")),
    *(Case("AIR", name, lambda v, name=name: model(**{name: v}), NOT_SHARES) for name in ("presence", "extent")),
    Case("AIR", "spread", lambda v: model(spread=v), st.sampled_from([None, 3, (), (1.0,), (1, 2, 3), "ab"])),
    Case("AIR", "spread", lambda v: model(spread=(v, 1.0)), NOT_POSITIVE),
    Case("AIR", "spread", lambda v: model(spread=(1.0, v)), NOT_POSITIVE),
    Case("AIR", "scale", lambda v: model(scale=v), NOT_POSITIVE),
]
GUIDES = [
    Case(
        "Attend",
        "latents",
        lambda v: guide(latents=v),
        st.sampled_from([None, 3, "x", (), {}, {"z": 1}, {"present_1": 1}]),
    ),
    Case("Attend", "model", lambda v: guide(model=v), NOT_CALLABLE),
    Case("Attend", "sides", lambda v: guide(sides=v), NOT_SIDES),
    *(Case("Attend", name, lambda v, name=name: guide(**{name: v}), NOT_COUNTS) for name in ("size", "hidden")),
    Case("Attend", "presence", lambda v: guide(presence=v), NOT_SHARES),
]
