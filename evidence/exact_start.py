"""Where reverse chains start: the latents that made the data."""

from __future__ import annotations

import torch
from torch import Tensor

from evidence.simulate import Simulated
from evidence.target import Target


def exact_start(target: Target, simulated: Simulated, start: int) -> Tensor:
    """The u of the latents that made a batch, shape (num_data, dim): for each datum an exact draw from p(u | x).

    Args:
        target: of the batch.
        simulated: all data.
        start: how many of them come before the batch.

    Raises:
        ValueError: a latent site has no value of its shape for each datum, or one that is not finite in u.
    """
    origin = torch.zeros(1, 1, target.dim, device=target.args[0].device)
    wanted = {name: (simulated.num_data, *value.shape[2:]) for name, value in target.values(origin).items()}
    values = simulated.values if isinstance(simulated.values, dict) else {}
    got = {name: tuple(value.shape) if isinstance(value, Tensor) else value for name, value in values.items()}
    if got != wanted:
        raise ValueError(
            f"simulated must hold the model's latent sites with the shapes {wanted}, got {got}; pass what "
            "simulate(model, n) returns of the same model"
        )
    rows = slice(start, start + target.num_data)
    u = target.flat({name: value[rows].to(origin.device) for name, value in values.items()})
    if not u.isfinite().all():
        raise ValueError(
            f"simulated holds {int((~u.isfinite()).any(-1).sum())} data whose latents are not finite, outside of their "
            "support, or rounded to its edge; simulate them again"
        )
    return u
