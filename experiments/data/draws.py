"""Draws of zeros and ones from greys, and the streams of random numbers that they come from."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_seed

LEVELS = 2**15  # of a dynamic draw's probabilities
SIGN_BITS = -0x7FFF7FFF7FFF8000  # the top bit of each of the four int16 in an int64


def stream(seed: int, device: torch.device) -> torch.Generator:
    """A generator unlike the one that `torch.manual_seed(seed)` starts, which may have made the data."""
    return torch.Generator(device).manual_seed(check_seed(seed) ^ 0x5DEECE66)


def draw(probability: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of Bernoulli(probability) per entry, as 0. and 1. in the dtype of `probability`.

    Example:
        >>> draw(torch.tensor([0.0, 1.0]), stream(0, torch.device("cpu")))
        tensor([0., 1.])
    """
    fine = torch.promote_types(probability.dtype, torch.float32)  # bfloat16 has but 256 steps from 0 to 1
    uniform = torch.rand(probability.shape, generator=generator, device=probability.device, dtype=fine)
    return (uniform < probability).to(probability.dtype)


def to_thresholds(probability: Tensor) -> Tensor:
    """What `draw_below` compares with, int16 of the same shape: probabilities in steps of 2^-15, 0 and 1 exact.

    Example:
        >>> to_thresholds(torch.tensor([0.0, 0.25, 1.0]))
        tensor([-32768, -24576,      0], dtype=torch.int16)
    """
    fine = probability.to(torch.promote_types(probability.dtype, torch.float32))
    return fine.mul(LEVELS).round_().sub_(LEVELS).to(torch.int16)


def draw_below(thresholds: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """One draw per threshold t: 1. with probability 1 + t / 2^15. Three times as fast as `draw`.

    Returns: zeros and ones of that dtype, in the shape of `thresholds`.

    Example:
        >>> draw_below(to_thresholds(torch.tensor([0.0, 1.0])), stream(0, torch.device("cpu")), torch.float32)
        tensor([0., 1.])
    """
    bits = torch.empty(-(-thresholds.numel() // 4), dtype=torch.int64, device=thresholds.device)
    bits.random_(-(2**63), None, generator=generator).bitwise_or_(SIGN_BITS)
    uniform = bits.view(torch.int16)[: thresholds.numel()].view(thresholds.shape)  # over -2^15 .. -1
    out = torch.empty(thresholds.shape, dtype=dtype, device=thresholds.device)
    return torch.lt(uniform, thresholds, out=out)
