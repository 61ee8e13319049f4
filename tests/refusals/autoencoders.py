"""What objectives outside the bound refuse: reconstruction, penalties, discrepancies and discriminators."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from dlvm.inference import (
    ELBO,
    IWAE,
    MMD,
    RBF,
    DecoderGradient,
    Discriminator,
    EncoderGradient,
    InverseMultiquadric,
    Reconstruction,
    ali,
    matched,
    mmd,
    penalised,
    tempered,
    vae_gan,
)
from dlvm.nets import MLP
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.nets import WIDTHLESS

ROWS = torch.zeros(4, 2)
BELOW_0 = st.floats(-1e9, -1e-9)
NOT_WEIGHTS = st.one_of(NOT_NUMBERS, NOT_FINITE, BELOW_0, st.sampled_from([None, torch.zeros(2), [0.5]]))
NOT_POSITIVE = st.one_of(NOT_WEIGHTS, st.just(0.0))
NOT_SAMPLES = st.sampled_from(
    [3, "x", [[0.0]], ROWS[:1], ROWS[0], ROWS.int(), ROWS.unsqueeze(0), torch.zeros(4, 2, dtype=torch.complex64)]
)
NOT_KERNELS = st.sampled_from([3, "rbf", RBF, InverseMultiquadric, ROWS, [RBF()]])
NOT_JUDGES = st.sampled_from([None, 3, MLP(2, 4), Discriminator, MMD, ROWS, lambda x: x, nn.Identity()])
NOT_OBJECTIVES = st.sampled_from([None, 3, "elbo", ELBO, MMD(), MLP(2, 4), lambda log_w: log_w])
OTHERS = st.sampled_from([IWAE(5), tempered(ELBO(), 0.5), penalised(ELBO(), EncoderGradient())])
AIDS = {
    "matched": lambda v: matched(v, MMD()),
    "penalised": lambda v: penalised(v, EncoderGradient()),
    "vae_gan": lambda v: vae_gan(v, Discriminator(MLP(2, 4))),
    "ali": lambda v: ali(v, Discriminator(MLP(2, 4))),
}

CASES = [
    Case("Reconstruction", "num_particles", Reconstruction, NOT_COUNTS),
    Case("Reconstruction", "code", lambda v: Reconstruction(1, v), NOT_WEIGHTS),
    *(Case(name, "objective", make, NOT_OBJECTIVES) for name, make in AIDS.items()),
    *(Case(name, "objective", make, OTHERS, name) for name, make in AIDS.items()),
    *(Case(name, "objective", AIDS[name], st.just(Reconstruction()), name) for name in ("vae_gan", "ali")),
    Case("matched", "divergence", lambda v: matched(ELBO(), v), NOT_JUDGES),
    Case("matched", "weight", lambda v: matched(ELBO(), MMD(), v), NOT_WEIGHTS),
    Case("matched", "alpha", lambda v: matched(ELBO(), MMD(), 1.0, v), st.one_of(NOT_WEIGHTS, st.floats(1.001, 9))),
    Case("matched", "alpha", lambda v: matched(Reconstruction(), MMD(), 1.0, v), st.sampled_from([0, 0.5, 0.999])),
    Case("penalised", "penalty", lambda v: penalised(ELBO(), v), NOT_JUDGES),
    Case("penalised", "weight", lambda v: penalised(ELBO(), EncoderGradient(), v), NOT_WEIGHTS),
    Case("EncoderGradient", "probes", EncoderGradient, NOT_COUNTS.filter(lambda v: v is not None)),
    Case("DecoderGradient", "probes", DecoderGradient, NOT_COUNTS.filter(lambda v: v is not None)),
    *(
        Case(name, "discriminator", lambda v, make=make: make(ELBO(), v), NOT_JUDGES)
        for name, make in {"vae_gan": vae_gan, "ali": ali}.items()
    ),
    *(
        Case("vae_gan", n, lambda v, n=n: vae_gan(ELBO(), Discriminator(MLP(2, 4)), **{n: v}), NOT_WEIGHTS)
        for n in ("weight", "similarity", "pixels")
    ),
    Case("Discriminator", "net", Discriminator, WIDTHLESS),
    Case("Discriminator", "signal", lambda v: Discriminator(MLP(2, 4), v), st.sampled_from([None, 1, "", "gan", []])),
    Case("mmd", "one", lambda v: mmd(v, ROWS), NOT_SAMPLES),
    Case("mmd", "other", lambda v: mmd(ROWS, v), st.one_of(NOT_SAMPLES, st.just(torch.zeros(4, 3)))),
    Case("mmd", "kernel", lambda v: mmd(ROWS, ROWS, v), NOT_KERNELS),
    Case("MMD", "kernel", MMD, NOT_KERNELS),
    Case("RBF", "width", RBF, NOT_POSITIVE.filter(lambda v: v is not None)),
    Case(
        "InverseMultiquadric",
        "scales",
        InverseMultiquadric,
        st.one_of(NOT_POSITIVE.map(lambda v: (1.0, v)), st.sampled_from([(), None, 1.0, [1.0], "1"])),
    ),
]
ANY: dict[str, str] = {}
