"""What the models are given: a prior that needs no context, and data that the likelihood can have produced."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from dlvm.distributions.sequences.lengths import check_lengths
from dlvm.nets.arguments import count, module


def distribution_of(prior: nn.Module, name: str = "prior") -> Distribution:
    """What the prior, or what bears another name, returns, called without inputs.

    Raises:
        TypeError: it is no module, needs inputs, or returns something else than a distribution.
        ValueError: the distribution has a batch shape.
    """
    module(**{name: prior})
    remedy = "write StandardNormal(2), or a module whose forward(self) returns dist.Normal(loc, scale).to_event(1)"
    try:
        made = prior()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} {type(prior).__name__} must be callable without inputs, got {error}; {remedy}"
        ) from error
    if not isinstance(made, Distribution):
        raise TypeError(f"{name} must return a distribution, got {type(made).__name__}; {remedy}")
    if made.batch_shape:
        raise ValueError(
            f"{name} has batch shape {tuple(made.batch_shape)}, expected (); declare dimensions with to_event"
        )
    return made


def size(x: Tensor | None, n: int) -> int:
    """How many data the program is about: the rows of x, or n where x is to be drawn.

    Raises:
        TypeError: x is no tensor, or n no integer.
        ValueError: there are none.
    """
    if x is None:
        count(n=n)
        return n
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}; pass torch.as_tensor(x), or model(n=5) to draw")
    if not x.dim() or not len(x):
        raise ValueError(f"x must have at least one row, got shape {tuple(x.shape)}; pass one datum as x[None]")
    return len(x)


def fitting(x: Tensor | None, likelihood: Distribution, name: str = "x") -> Tensor | None:
    """x itself, or None: nothing is broadcast, each datum has the likelihood's event shape.

    Raises:
        ValueError: data have another shape.
    """
    if x is not None and x.shape[1:] != likelihood.event_shape:
        raise ValueError(
            f"{name} has events of shape {tuple(likelihood.event_shape)} under the likelihood, but the data have shape "
            f"{tuple(x.shape)}; make the likelihood's width that of the data, or reshape these, as x.flatten(1)"
        )
    return x


def sequences(x: Tensor, lengths: Tensor | None, x_dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """How many sequences there are, and how many steps they have room for.

    Raises:
        TypeError: lengths are no whole numbers.
        ValueError: x has another shape or type, is empty, or lengths do not go with it.
    """
    if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[2] != x_dim or not x.numel() or x.dtype != dtype:
        got = f"{tuple(x.shape)} and {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must have shape (batch, steps, {x_dim}) and be {dtype}, got {got}; one sequence is x[None]"
        )
    if lengths is not None:
        check_lengths(lengths, x.shape[1])
        if lengths.shape != (len(x),):
            raise ValueError(f"lengths must have shape ({len(x)},), one for each sequence, got {tuple(lengths.shape)}")
    return len(x), x.shape[1]
