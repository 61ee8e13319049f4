"""Discrete variables: binary, one of several classes, and the linear map from features to their logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, is_count, module
from dlvm.nets.mlp import last_layer


class Logits(nn.Module):
    """A linear layer from features to logits of any shape.

        net(context) W^T + b, reshaped

    Args:
        net: contexts -> features, shape (*batch, H), with ``out_features`` = H.
        *shape: shape of the logits of one datum; none for a single number.

    Raises:
        TypeError: the net has no ``out_features``.

    Example:
        >>> import torch
        >>> Logits(nn.Linear(4, 8), 2, 3)(torch.zeros(5, 4)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, net: nn.Module, *shape: int):
        super().__init__()
        count(**{f"shape[{i}]": size for i, size in enumerate(shape)})
        self.shape = shape
        self.net, self.head = net, last_layer(net, math.prod(shape))

    def forward(self, *context: Tensor) -> Tensor:
        logits = self.head(self.net(*context))
        return logits.reshape(*logits.shape[:-1], *self.shape)


class Binary(nn.Module):
    """Independent binary variables of any event shape given a context.

        q(y | h) = prod_d Bernoulli(y_d; sigmoid(net(h)_d))

    For vectors of data under a likelihood use ``Bernoulli``, which is scored faster. A single variable
    (``event_dim=0``) can be summed out by enumeration.

    Args:
        net: contexts -> logits, shape (*batch, *event_shape).
        event_dim: number of dimensions of an event.

    Raises:
        ValueError: ``event_dim`` is negative.

    Example:
        >>> import torch
        >>> Binary(nn.Linear(4, 3))(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, event_dim: int = 1):
        super().__init__()
        module(net=net)
        self.net, self.event_dim = net, _dimensions(event_dim)

    def forward(self, *context: Tensor) -> dist.Distribution:
        return dist.Bernoulli(logits=self.net(*context)).to_event(self.event_dim)


class Categorical(nn.Module):
    """A class 0..C-1 given a context, or an array of independent ones.

        p(y | h) = softmax(net(h))_y

    Values are integers, and can be summed out by enumeration where an event is a single class.

    Args:
        net: contexts -> logits, shape (*batch, *event_shape, C).
        event_dim: number of dimensions of an event, 0 for a single class.

    Raises:
        ValueError: ``event_dim`` is negative.

    Example:
        >>> import torch
        >>> Categorical(nn.Linear(4, 3))(torch.zeros(5, 4)).support
        IntegerInterval(lower_bound=0, upper_bound=2)
    """

    def __init__(self, net: nn.Module, event_dim: int = 0):
        super().__init__()
        module(net=net)
        self.net, self.event_dim = net, _dimensions(event_dim)

    def forward(self, *context: Tensor) -> dist.Distribution:
        return dist.Categorical(logits=self.net(*context)).to_event(self.event_dim)


class OneHotCategorical(nn.Module):
    """A class given a context as a vector of one 1 and C-1 zeros, or an array of independent ones.

        p(y | h) = sum_c y_c softmax(net(h))_c

    Args:
        net: contexts -> logits, shape (*batch, *event_shape); the last dimension is the classes'.
        event_dim: number of dimensions of an event, 1 for a single class.

    Raises:
        ValueError: ``event_dim`` is below 1.

    Example:
        >>> import torch
        >>> OneHotCategorical(nn.Linear(4, 3))(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, event_dim: int = 1):
        super().__init__()
        module(net=net)
        self.net, self.event_dim = net, _dimensions(event_dim, least=1)

    def forward(self, *context: Tensor) -> dist.Distribution:
        return OneHotDraws(logits=self.net(*context)).to_event(self.event_dim - 1)


class OneHotDraws(dist.OneHotCategorical):
    """``dist.OneHotCategorical``, whose draws a captured step can make anew.

    torch looks at the largest class that was drawn, which is another one at every step where some class is seldom.
    """

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        drawn = self._categorical.sample(torch.Size(sample_shape))
        classes = torch.arange(self._categorical._num_events, device=drawn.device)
        return (drawn.unsqueeze(-1) == classes).to(self._categorical.logits.dtype)


def _dimensions(event_dim: int, least: int = 0) -> int:
    if not is_count(event_dim, least):
        raise ValueError(
            f"event_dim must be an integer of at least {least}, got {event_dim!r}; "
            "it counts the dimensions of one event"
        )
    return event_dim
