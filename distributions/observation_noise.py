"""Gaussian likelihoods whose scale is a constant: learned, or fixed and calibrated."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.nets.arguments import module, real, whole


class LearnedScale(nn.Module):
    """A positive constant that is trained, one for all dimensions or one for each.

        scale = exp(log_scale)

    Args:
        initial: where training starts.
        dim: 1 for a scale that all dimensions share, x_dim for one of each.

    Raises:
        ValueError: ``initial`` is not positive and finite, or ``dim`` is below 1.

    Example:
        >>> LearnedScale(0.5, dim=3)()
        tensor([0.5000, 0.5000, 0.5000], grad_fn=<ExpBackward0>)
    """

    def __init__(self, initial: float = 1.0, dim: int = 1):
        super().__init__()
        self.log_scale = nn.Parameter(_log_of(dim, initial=initial))

    def forward(self) -> Tensor:
        """The scale, shape (dim,)."""
        return self.log_scale.exp()


class FixedScale(nn.Module):
    """A positive constant that is not trained; ``calibrate_scale`` may set it.

    Args:
        value: the scale.
        dim: as for ``LearnedScale``.

    Raises:
        ValueError: as for ``LearnedScale``.

    Example:
        >>> FixedScale(0.5)()
        tensor([0.5000])
    """

    log_scale: Tensor

    def __init__(self, value: float, dim: int = 1):
        super().__init__()
        self.register_buffer("log_scale", _log_of(dim, value=value))

    def forward(self) -> Tensor:
        """The scale, shape (dim,)."""
        return self.log_scale.exp()


def _log_of(dim: int, **scales: float) -> Tensor:
    """Of the one scale that is given, by its argument's name; in the default dtype, in which it must not overflow."""
    real(**scales)
    whole(dim=dim)
    ((name, scale),) = scales.items()
    log = math.log(scale) if 0 < scale < math.inf else math.nan
    if dim < 1 or not 0 < torch.tensor(log).exp() < math.inf:
        raise ValueError(
            f"{name}: a scale must be positive and finite, and dim at least 1, got {scale} and {dim}; as a "
            f"{torch.get_default_dtype()} it must neither overflow nor vanish"
        )
    return torch.full((dim,), log)


class ConstantScaleNormal(nn.Module):
    """Independent Gaussians whose means depend on a context and whose scale does not.

        p(x | z) = prod_d N(x_d; net(z)_d, scale_d^2)

    With the scale fixed too large the decoder is blurry, and the latents are used less than they could be; learned or
    calibrated, it balances distortion against rate by itself.

    Args:
        net: contexts -> means, shape (*batch, x_dim).
        scale: () -> the scale, shape (1,) or (x_dim,); a learned one for all dimensions unless told.

    Raises:
        ValueError: when called: the scale has neither one element nor as many as there are means.
        TypeError: ``net`` or ``scale`` is no module.

    References:
        Simple and Effective VAE Training with Calibrated Decoders, Rybkin, Daniilidis, Levine, 2021, arXiv:2006.13202.

    Example:
        >>> ConstantScaleNormal(nn.Linear(2, 3), LearnedScale(0.1, dim=3))(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, scale: nn.Module | None = None):
        super().__init__()
        self.net, self.scale = net, LearnedScale() if scale is None else scale
        module(net=net, scale=self.scale)

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, scale = self.net(*context), self.scale()
        if scale.shape[-1:] not in ((), (1,), loc.shape[-1:]):
            raise ValueError(
                f"scale has shape {tuple(scale.shape)} where the net gives {loc.shape[-1]} means; make it with dim=1, "
                f"or with dim={loc.shape[-1]}"
            )
        return dist.Normal(loc, scale).to_event(1)
