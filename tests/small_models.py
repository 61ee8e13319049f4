"""Every model of the scripts, small enough for tests, and data for it."""

from __future__ import annotations

from dlvm.experiments.data import Loader, digits
from dlvm.experiments.setups.named import words

WORDS = words()
SMALLER = {
    "diffusion": {"layers": 3},
    "realnvp": {"depth": 1, "width": 4, "blocks": 1},
    "nade": {"hidden": 16},
    "pixelcnn": {"receptive_field": 2, "layers": 2, "channels": 4},
    "pixel_vae": {"z_dim": 3, "hidden": (16,), "channels": 4},
    "sbn": {"sizes": (6, 4)},
    "categorical_vae": {"variables": 3, "classes": 4, "hidden": (16,)},
    "m2": {"z_dim": 2, "hidden": (16, 8), "labels": 200},
    "mixed_vae": {"bits": 3, "z_dim": 2, "hidden": (16,)},
    "vq_vae": {"positions": 3, "codes": 5, "code_dim": 2, "hidden": (16,), "layers": 1},
    "transformer": {"layers": 1, "heads": 2, "head_width": 4},
    "vdvae": {"layers": 3, "width": 8, "depth": 1},
}
OWN_ALONE = ("vq_vae",)  # models whose latents no family of guides has


def data(setup) -> Loader:
    """Digits, binary where the model needs them so."""
    return setup.shown(digits(binarize="static" if setup.binary else None, batch_size=400)).train
