"""Independent Bernoulli variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.nets.arguments import module

GROUP = 98  # factors of one product: each is at least 1/2, and 2^-98 is far above the smallest float32


class Bernoulli(nn.Module):
    """Independent binary variables given a context.

        p(x | z) = prod_d Bernoulli(x_d; sigmoid(net(z)_d))

    Values are 0 or 1: grey levels are refused by Pyro's validation, since no Bernoulli can have produced them.

    Args:
        net: contexts -> logits, shape (*batch, x_dim).
        mean: shape (x_dim,), mean of the data; sets the net's last ``bias`` so that training starts from the data's
            own rates.

    Raises:
        ValueError: ``mean`` is given to a net without a ``bias`` of that shape, or does not lie between 0 and 1.
        TypeError: ``net`` is no module, or ``mean`` no tensor.

    References:
        The starting bias: Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> Bernoulli(nn.Linear(2, 784))(torch.zeros(5, 2)).event_shape
        torch.Size([784])
    """

    def __init__(self, net: nn.Module, mean: Tensor | None = None):
        super().__init__()
        module(net=net)
        self.net = net
        if mean is not None:
            if not isinstance(mean, Tensor):
                raise TypeError(f"mean must be a tensor of shape (x_dim,), got {type(mean).__name__}; pass train.mean")
            bias = getattr(net, "bias", None)
            if bias is None or bias.shape != mean.shape:
                got = "none" if bias is None else tuple(bias.shape)
                raise ValueError(
                    f"mean has shape {tuple(mean.shape)} and needs a net with a bias of that shape, got {got}"
                )
            if not bool(((mean >= 0) & (mean <= 1)).all()):
                raise ValueError(f"mean must lie between 0 and 1, got {mean.min()} to {mean.max()}; pass train.mean")
            with torch.no_grad():
                bias.copy_(torch.logit(mean.to(bias), eps=1e-3))

    def forward(self, *context: Tensor) -> dist.Distribution:
        return IndependentBernoulli(self.net(*context))


class IndependentBernoulli(dist.Independent):
    """Bernoulli(sigmoid(l_d)) for d = 1..x_dim as one event, what ``dist.Bernoulli(logits=l).to_event(1)`` is.

        log p(x) = sum_d [ x_d l_d - max(l_d, 0) ] + sum_groups log prod_{d in group} sigmoid(|l_d|)

    One logarithm serves a group of 98 variables; the rounding error is that of the usual cross entropy, which still
    scores data of another dtype than the logits, half precision, and everything under the transforms of ``torch.func``.

    Args:
        logits: shape (*batch, x_dim), finite.
        validate_args: as in every Pyro distribution.

    Raises:
        ValueError: as Pyro's own: logits are NaN, or a value to be scored has another width, or numbers but 0 and 1.

    Example:
        >>> IndependentBernoulli(torch.zeros(5, 784)).log_prob(torch.ones(784)).shape
        torch.Size([5])
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        super().__init__(dist.Bernoulli(logits=logits, validate_args=validate_args), 1)

    def expand(self, batch_shape: Sequence[int], _instance: IndependentBernoulli | None = None) -> IndependentBernoulli:
        return super().expand(batch_shape, self._get_checked_instance(IndependentBernoulli, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        if isinstance(value, Tensor) and torch.promote_types(value.dtype, logits.dtype) == logits.dtype:
            value = value.to(logits.dtype)  # 0 and 1 are exact in every dtype; a sum in half precision is not
        same_dtype = getattr(value, "dtype", None) == logits.dtype in (torch.float32, torch.float64)
        if self._validate_args and getattr(value, "shape", self.event_shape)[-1:] != self.event_shape:
            raise ValueError(
                f"value of shape {tuple(value.shape)} is not broadcastable with logits of width {self.event_shape[0]}; "
                "flatten each datum to one dimension, or make the net for this width"
            )
        if not same_dtype or torch._C._are_functorch_transforms_active():
            return super().log_prob(value)
        if self._validate_args:
            self.base_dist._validate_sample(value)
        logits, value = torch.broadcast_tensors(logits, value)
        return _LogProb.apply(logits, value) if torch.is_grad_enabled() else _log_prob(logits, value)


class _LogProb(torch.autograd.Function):
    """``_log_prob`` with its gradients x - sigmoid(l) and l; autograd differentiates these further."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        return _log_prob(logits, value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        logits, value = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        by_logits = (value - logits.sigmoid()).mul_(grad) if ctx.needs_input_grad[0] else None
        return by_logits, logits * grad if ctx.needs_input_grad[1] else None


def _log_prob(logits: Tensor, value: Tensor) -> Tensor:
    """The formula of ``IndependentBernoulli`` for tensors of one shape."""
    # x l and max(l, 0) cancel pixel by pixel: their separate sums would leave rounding errors of their own size.
    wrong = logits.relu().addcmul_(value, logits, value=-1)
    return _log_prod(logits.abs().sigmoid_()) - wrong.sum(-1)


def _log_prod(factors: Tensor) -> Tensor:
    """Sum of the logarithms of numbers in [1/2, 1] over the last dimension, by products of at most ``GROUP``."""
    width = factors.shape[-1]
    whole = width - width % GROUP
    groups = factors[..., :whole].unflatten(-1, (whole // GROUP, GROUP)).prod(-1).log_().sum(-1)
    return groups if whole == width else groups + factors[..., whole:].prod(-1).log_()
