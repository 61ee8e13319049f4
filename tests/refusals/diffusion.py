"""What a diffusion's parts refuse: distributions, models and guides."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from dlvm.distributions import BitDenoiser, Denoiser, LinearSchedule, MonotoneSchedule, Noising, UNet, Units
from dlvm.guides import ForwardDiffusion, RandomTime
from dlvm.models import Diffusion, RandomLayer
from dlvm.nets import MLP
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.nets import NOT_MODULES, NOT_SQUARES, WIDTHLESS

NOISING = Noising(LinearSchedule(), 3)
MODEL = Diffusion(NOISING, Denoiser(MLP(12, 3)), 2)
SCHEDULES = {"LinearSchedule": LinearSchedule, "MonotoneSchedule": MonotoneSchedule}
NOT_STARTS = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 6.0, 7, torch.zeros(())]))
NOT_ENDS = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, -8.0, -9, torch.zeros(())]))
NOT_NOISING = st.sampled_from([None, 3, "noising", Noising, LinearSchedule(), MODEL, MLP(3, 3)])
NOT_UNITS = st.sampled_from([3, "units", (0, 1), Units(torch.zeros(2), torch.ones(2)), torch.ones(3), Units])
NOT_BATCHES = st.sampled_from(
    [None, 3, "x", torch.zeros(3), torch.zeros(0, 3), torch.zeros(5, 2), torch.zeros(2, 5, 3)]
)
OTHERS = st.sampled_from([MLP(3, 3), MLP(11, 3), MLP(13, 3)])

DISTRIBUTIONS = [
    *(Case(name, "start", lambda v, make=make: make(start=v), NOT_STARTS) for name, make in SCHEDULES.items()),
    *(Case(name, "end", lambda v, make=make: make(end=v), NOT_ENDS) for name, make in SCHEDULES.items()),
    Case("MonotoneSchedule", "pieces", MonotoneSchedule, NOT_COUNTS),
    Case("Noising", "schedule", lambda v: Noising(v, 3), NOT_MODULES),
    Case("Noising", "dim", lambda v: Noising(LinearSchedule(), v), NOT_COUNTS),
    Case(
        "Noising",
        "levels",
        lambda v: Noising(LinearSchedule(), 3, v),
        st.one_of(NOT_COUNTS.filter(lambda v: v is not None), st.just(1)),
    ),
    Case("Noising", "units", lambda v: Noising(LinearSchedule(), 3, units=v), NOT_UNITS),
    Case("Denoiser", "net", Denoiser, st.one_of(WIDTHLESS, OTHERS)),
    Case("BitDenoiser", "net", BitDenoiser, st.one_of(WIDTHLESS, OTHERS)),
    Case("UNet", "dim", UNet, st.one_of(NOT_SQUARES, st.sampled_from([4, 9, 36]))),
    Case("UNet", "width", lambda v: UNet(16, v), NOT_COUNTS),
    Case("UNet", "channels", lambda v: UNet(16, 4, v), st.one_of(NOT_COUNTS, st.sampled_from([2, 3]))),
]
MODELS = [
    Case("Diffusion", "noising", lambda v: Diffusion(v, MLP(3, 3)), NOT_NOISING),
    Case("Diffusion", "denoiser", lambda v: Diffusion(NOISING, v), NOT_MODULES),
    Case("Diffusion", "layers", lambda v: Diffusion(NOISING, MLP(3, 3), v), NOT_COUNTS),
    Case("RandomLayer", "model", RandomLayer, NOT_NOISING.filter(lambda v: v is not MODEL)),
    Case("RandomLayer.forward", "x", RandomLayer(MODEL), NOT_BATCHES.filter(lambda v: v is not None)),
]
GUIDES = [
    Case("ForwardDiffusion", "noising", lambda v: ForwardDiffusion(v, 3), NOT_NOISING),
    Case("ForwardDiffusion", "layers", lambda v: ForwardDiffusion(NOISING, v), NOT_COUNTS),
    Case("ForwardDiffusion.forward", "x", ForwardDiffusion(NOISING, 2), NOT_BATCHES),
    Case("RandomTime", "noising", RandomTime, NOT_NOISING),
    Case("RandomTime", "layers", lambda v: RandomTime(NOISING, v), NOT_COUNTS.filter(lambda v: v is not None)),
    Case("RandomTime.forward", "x", RandomTime(NOISING, 2), NOT_BATCHES),
]
