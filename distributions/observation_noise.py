"""Gaussian likelihoods whose scale is a constant: learned, or fixed and calibrated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.scale import LIMIT
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


class OptimalScale(nn.Module):
    """The constant scale at which a Gaussian likelihood is highest, found along the way of training, not by gradients.

        scale^2 <- (1 - r) scale^2 + r E (x - E[x | z])^2,   r = max(1 / (batches so far), rate)

    The mean is over a batch, draws of z and the dimensions that share the scale: the optimum of its ELBO.
    A batch is scored under the scale that those before it have left, and a net in evaluation mode changes nothing, so
    that every number that is reported is of a normalised density, whose scale does not know the data it is held
    against. Where several processes train, each follows its own batches, and the first one's scale is kept.

    Args:
        initial: the scale of the first batch.
        dim: as for ``LearnedScale``.
        rate: least weight of a new batch, within (0, 1].

    Raises:
        ValueError: ``initial`` is not positive and finite, ``dim`` is below 1, or ``rate`` not within (0, 1].

    References:
        Simple and Effective VAE Training with Calibrated Decoders, Rybkin, Daniilidis, Levine, 2021, arXiv:2006.13202.

    Example:
        >>> scale = OptimalScale()
        >>> fn = ConstantScaleNormal(nn.Linear(2, 3), scale)(torch.zeros(5, 2))
        >>> _ = fn.log_prob(fn.mean.detach() + 0.1)
        >>> scale()
        tensor([0.1000])
    """

    log_scale: Tensor
    batches: Tensor

    def __init__(self, initial: float = 1.0, dim: int = 1, rate: float = 0.05):
        super().__init__()
        real(rate=rate)
        if not 0 < rate <= 1:
            raise ValueError(f"rate must lie within (0, 1], the weight of a new batch, got {rate}; 0.05 is usual")
        self.rate = float(rate)
        self.register_buffer("log_scale", _log_of(dim, initial=initial))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self) -> Tensor:
        """The scale, shape (dim,)."""
        return self.log_scale.exp()

    @torch.no_grad()
    def follow(self, error: Tensor) -> None:
        """Learns from (x - loc) / scale of a batch, shape (*batch, x_dim); 0 stands for a number that is missing."""
        square = error.detach().square().flatten(0, -2) if error.dim() > 1 else error.detach().square()[None]
        square = square.flatten()[:, None] if self.log_scale.numel() == 1 else square
        there = (square > 0).sum(0)
        share = torch.where(there > 0, square.sum(0) / there.clamp_min(1), 1)
        self.batches.add_(1)
        rate = self.batches.reciprocal().clamp_min(self.rate)
        changed = self.log_scale + 0.5 * torch.log1p(rate * (share - 1)).clamp_min(-1e3)
        self.log_scale.copy_(changed.clamp(-LIMIT, LIMIT))


class FollowedNormal(dist.Normal):
    """A Gaussian that tells an ``OptimalScale`` in training of every value that it is held against."""

    def __init__(self, loc: Tensor, scale: Tensor, follower: OptimalScale, validate_args: bool | None = None):
        self.follower = follower
        super().__init__(loc, scale, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: FollowedNormal | None = None) -> FollowedNormal:
        shape = torch.Size(batch_shape)
        made = FollowedNormal(self.loc.expand(shape), self.scale.expand(shape), self.follower, validate_args=False)
        made._validate_args = self._validate_args
        return made

    def log_prob(self, value: Tensor) -> Tensor:
        found = super().log_prob(value)
        if self.follower.training and torch.is_grad_enabled():
            self.follower.follow((value - self.loc) / self.scale)
        return found


def normal_of(loc: Tensor, scale: Tensor, module: nn.Module | None) -> dist.Normal:
    """Independent Gaussians, followed by the module that their scale comes from where it learns of them."""
    return FollowedNormal(loc, scale, module) if isinstance(module, OptimalScale) else dist.Normal(loc, scale)


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
        return normal_of(loc, scale, self.scale).to_event(1)
