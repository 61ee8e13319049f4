"""What flows over data refuse."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import (
    ActNorm,
    ChannelCoupling,
    CheckerboardCoupling,
    Composition,
    FlowDensity,
    InvertibleConv,
    Logit,
    MultiScale,
    Reorder,
    Squeeze,
    Standardise,
    image_flow,
    vector_flow,
)
from refusals.case import NOT_COUNTS, NOT_NUMBERS, Case
from refusals.distributions_parts import NOT_BIJECTIONS
from refusals.nets import NOT_MAKERS, NOT_MODULES, NOT_TENSORS, NOT_VECTORS, NOT_WIDTHS

OR_NONE = NOT_COUNTS.filter(lambda v: v is False or v != 0)
NOT_FLOWS = st.one_of(NOT_MODULES, st.builds(nn.Linear, st.just(3), st.just(3)))
NOT_IMAGES = st.one_of(st.sampled_from([(4, 4), (1, 4), (), 16, "144", (1, 4, 4, 4)]), NOT_WIDTHS)
NOT_NOISES = st.sampled_from(["uniform", "", None, 3, nn.ReLU])
NOT_MAPS = st.sampled_from([torch.zeros(s) for s in ((5, 3, 4, 4), (2, 4, 4), (4, 4), (4,), ())])

CHANNELS, BOARD = partial(ChannelCoupling, 2), partial(CheckerboardCoupling, (1, 4, 4))
VECTOR, IMAGE = partial(vector_flow, 3), partial(image_flow, (1, 4, 4))
ON_MAPS = {"ChannelCoupling": CHANNELS, "CheckerboardCoupling": BOARD, "image_flow": IMAGE}
ALL = ON_MAPS | {"vector_flow": VECTOR}

CASES = [
    Case("FlowDensity", "flow", lambda v: FlowDensity(v, 3), NOT_FLOWS),
    Case("FlowDensity", "dim", lambda v: FlowDensity(Reorder(3), v), NOT_COUNTS),
    Case("FlowDensity", "net", lambda v: FlowDensity(Reorder(3), 3, v), NOT_MODULES.filter(lambda v: v is not None)),
    Case("FlowDensity", "noise", lambda v: FlowDensity(Reorder(3), 3, noise=v), NOT_NOISES),
    Case("FlowDensity.forward", "context", lambda v: FlowDensity(Reorder(3), 3)(v), st.just(torch.zeros(5, 2))),
    Case("Composition", "maps", lambda v: Composition(Reorder(3), v), NOT_FLOWS),
    Case("Composition", "maps", lambda v: Composition(*v), st.just(())),
    Case("MultiScale", "shape", lambda v: MultiScale(v, Squeeze(), Squeeze()), NOT_IMAGES),
    Case("MultiScale", "shape", lambda v: MultiScale(v, Squeeze(), Squeeze()), st.sampled_from([(1, 3, 4), (1, 4, 5)])),
    Case("MultiScale", "scales", lambda v: MultiScale((1, 4, 4), v), NOT_FLOWS),
    Case("MultiScale.forward", "y", MultiScale((1, 4, 4), Reorder(4)), st.one_of(NOT_MAPS, NOT_TENSORS)),
    Case("ActNorm", "features", ActNorm, NOT_COUNTS),
    Case("ActNorm", "behind", lambda v: ActNorm(3, v), OR_NONE),
    Case("ActNorm.forward", "y", ActNorm(2, behind=2), st.one_of(NOT_MAPS.filter(lambda v: v.dim() != 3), NOT_TENSORS)),
    Case("InvertibleConv", "channels", InvertibleConv, NOT_COUNTS),
    Case("Reorder", "dim", Reorder, NOT_COUNTS),
    Case("Logit", "margin", Logit, st.one_of(NOT_NUMBERS, st.sampled_from([None, -0.1, 0.5, 1.0, float("nan")]))),
    Case("Standardise", "loc", lambda v: Standardise(v, torch.ones(2)), st.one_of(NOT_TENSORS, NOT_VECTORS)),
    Case("Standardise", "scale", lambda v: Standardise(torch.ones(2), v), st.one_of(NOT_TENSORS, NOT_VECTORS)),
    Case("Standardise", "scale", lambda v: Standardise(torch.ones(2), v), st.just(torch.tensor([1.0, 0.0]))),
    Case("ChannelCoupling", "channels", ChannelCoupling, st.one_of(NOT_COUNTS, st.just(1))),
    Case("CheckerboardCoupling", "shape", CheckerboardCoupling, st.one_of(NOT_IMAGES, st.just((3, 1, 1)))),
    Case("ChannelCoupling.forward", "y", CHANNELS(), st.one_of(NOT_TENSORS, st.just(torch.zeros(3, 4, 4)))),
    Case("CheckerboardCoupling.forward", "y", BOARD(), st.one_of(NOT_MAPS, NOT_TENSORS)),
    Case("ChannelCoupling.forward", "h", lambda v: CHANNELS()(torch.zeros(2, 4, 4), v), st.just(torch.zeros(3))),
    Case("vector_flow", "dim", vector_flow, st.one_of(NOT_COUNTS, st.just(1))),
    Case("vector_flow", "hidden", lambda v: vector_flow(3, hidden=v), NOT_WIDTHS),
    Case("image_flow", "shape", image_flow, st.one_of(NOT_IMAGES, st.sampled_from([(1, 7, 8), (3, 8, 5)]))),
    Case("image_flow", "scales", lambda v: IMAGE(scales=v), st.one_of(NOT_COUNTS, st.integers(4, 9)), "scales"),
    *(Case(f, "depth", lambda v, f=f: ALL[f](depth=v), NOT_COUNTS) for f in ("vector_flow", "image_flow")),
    *(Case(f, "context", lambda v, make=make: make(context=v), OR_NONE) for f, make in ALL.items()),
    *(Case(f, "activation", lambda v, make=make: make(activation=v), NOT_MAKERS) for f, make in ALL.items()),
    *(Case(f, "width", lambda v, make=make: make(width=v), NOT_COUNTS) for f, make in ON_MAPS.items()),
    *(Case(f, "blocks", lambda v, make=make: make(blocks=v), OR_NONE) for f, make in ON_MAPS.items()),
    *(
        Case(f, "bijection", lambda v, f=f: ALL[f](bijection=v), NOT_BIJECTIONS)
        for f in ("ChannelCoupling", "CheckerboardCoupling", "vector_flow")
    ),
]
FLAGS = {
    "ChannelCoupling(reverse)",
    "CheckerboardCoupling(reverse)",
    "vector_flow(actnorm)",
    "image_flow(actnorm)",
    "image_flow(mixing)",
}
