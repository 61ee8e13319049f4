"""Independent Bernoulli variables."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from distributions.binary import IndependentBernoulli
from nets.modules import module


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
