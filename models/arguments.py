"""What the models are given: a prior that needs no context, and data that the likelihood can have produced."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

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
