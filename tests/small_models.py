"""Every model of the scripts, small enough for tests, and data for it."""

from __future__ import annotations

import torch

from dlvm.experiments.data import Loader, Splits, digits, from_tensor, load
from dlvm.experiments.setups.named import words
from dlvm.experiments.setups.sequences import SequenceSetup

WORDS = words()
SMALLER = {
    "air": {"steps": 2, "what_dim": 2, "picture": 3, "hidden": (4,), "width": 8},
    "deep_markov": {"z_dim": 2, "emission": (6,), "transition": 4, "recurrent": 5},
    "diffusion": {"layers": 3},
    "autoregressive_hmm": {"states": 3},
    "factorial_hmm": {"states": 2},
    "draw": {"steps": 2, "z_dim": 2, "width": 8, "read": 3, "write": 3},
    "hidden_markov": {"states": 3},
    "linear_gaussian_ssm": {"z_dim": 2, "recurrent": 4},
    "ornstein_uhlenbeck": {"z_dim": 2},
    "switching_ssm": {"states": 2, "z_dim": 2, "recurrent": 4},
    "vrnn": {"z_dim": 2, "hidden": 4, "emission": (), "recurrent": 4},
    "srnn": {"z_dim": 2, "hidden": 4, "emission": (), "recurrent": 4},
    "storn": {"z_dim": 2, "hidden": 4, "emission": (), "recurrent": 4},
    "language_model": {"width": 4},
    "sentence_vae": {"z_dim": 2, "width": 4},
    "realnvp": {"depth": 1, "width": 4, "blocks": 1},
    "nade": {"hidden": 16},
    "pixelcnn": {"receptive_field": 2, "layers": 2, "channels": 4},
    "pixel_vae": {"z_dim": 3, "hidden": (16,), "channels": 4},
    "sbn": {"sizes": (6, 4)},
    "categorical_vae": {"variables": 3, "classes": 4, "hidden": (16,)},
    "m2": {"z_dim": 2, "hidden": (16, 8), "labels": 200},
    "mixed_vae": {"bits": 3, "z_dim": 2, "hidden": (16,)},
    "scanvi": {"z_dim": 2, "hidden": (8,), "labels": 200},
    "vq_vae": {"positions": 3, "codes": 5, "code_dim": 2, "hidden": (16,), "layers": 1},
    "transformer": {"layers": 1, "heads": 2, "head_width": 4},
    "vdvae": {"layers": 3, "width": 8, "depth": 1},
}
OWN_ALONE = {  # models whose latents no family of guides has, and what is said
    "vq_vae": "is discrete with support",
    "ornstein_uhlenbeck": "guide must be own for this model of sequences",
}
STEPS, WIDTH, TOKENS = 6, 5, 7


def data(setup) -> Loader:
    """Digits, binary where the model needs them so; of a model of sequences, bits or tokens of several lengths; of one
    of batches, simulated counts."""
    if isinstance(setup, SequenceSetup):
        return setup.shown(sequences(setup.tokens)).train
    if "b" in setup.inputs:
        return setup.shown(load("cells", batch_size=400)).train
    return setup.shown(digits(binarize="static" if setup.binary else None, batch_size=400)).train


def sequences(tokens: bool = False, number: int = 50) -> Splits:
    """Bits, shape (sequences, steps, width), or tokens, with lengths from 1 to all steps."""
    generator = torch.Generator().manual_seed(0)
    shape = (number, STEPS) if tokens else (number, STEPS, WIDTH)
    x = torch.randint(TOKENS if tokens else 2, shape, generator=generator)
    lengths = torch.arange(number) % STEPS + 1
    if tokens:  # the last one that counts is the end
        x = (x % (TOKENS - 1) + 1) * (torch.arange(STEPS) < lengths[:, None] - 1)
    more = (
        {"lengths": lengths} if tokens else {"lengths": lengths, "times": 0.5 * torch.arange(STEPS).expand(number, -1)}
    )
    return from_tensor(x if tokens else x.float(), batch_size=40, more=more)
