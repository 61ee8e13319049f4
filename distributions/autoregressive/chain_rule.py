"""A distribution by the chain rule: each variable given those before it, all of them by one net."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.autoregressive.elements import Element
from dlvm.nets.arguments import module

Walk = Generator[tuple[int, Tensor], Tensor, None]


class Conditionals(Protocol):
    """A net in one order of its inputs: the parameters of each variable given those before it."""

    def __call__(self, value: Tensor, context: Tensor | None = None) -> Tensor: ...
    def walk(self, rows: int, context: Tensor | None = None) -> Walk: ...


class AutoregressiveDistribution(TorchDistribution):
    """Variables of which each depends on those that come before it, in one order, or in one that is drawn first.

        p(x | h) = 1/K sum_k prod_d p(x_d | the x that come before x_d in order k, h)

    The density takes one pass of the net in each order, a draw one step for each variable.

    Args:
        readings: the nets, one for each order.
        element: what each variable is.
        dim: number of variables.
        context: shape (*batch, H); None for none.
        like: a tensor of the nets' dtype and device.
        validate_args: as in every distribution.

    Example:
        >>> from dlvm.distributions import Bits, ChainRule
        >>> from dlvm.nets import NADE
        >>> p = ChainRule(NADE(3, 8), Bits())()
        >>> every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        >>> round(p.log_prob(every).exp().sum().item(), 5)
        1.0
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = False

    def __init__(
        self,
        readings: Sequence[Conditionals],
        element: Element,
        dim: int,
        context: Tensor | None,
        like: Tensor,
        validate_args: bool | None = None,
    ):
        self.readings, self.element, self.context, self.like = readings, element, context, like
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size((dim,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(self.element.support, 1)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError("an autoregressive distribution's mean is a sum over all its values; draw from it")

    def expand(
        self, batch_shape: Sequence[int], _instance: AutoregressiveDistribution | None = None
    ) -> AutoregressiveDistribution:
        new = self._get_checked_instance(AutoregressiveDistribution, _instance)
        new.readings, new.element, new.like = self.readings, self.element, self.like
        new.context = None if self.context is None else self.context.expand(*batch_shape, -1)
        super(AutoregressiveDistribution, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        seen = value.to(self.like.dtype)
        parts: list[Any] = [self.element(read(seen, self.context)) for read in self.readings]
        for part in parts:
            part._validate_args = False  # the value is known to be of the support
        each = [part.log_prob(value) for part in parts]
        log_p = each[0] if len(each) == 1 else torch.stack(each).logsumexp(0) - math.log(len(each))
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape
        rows = shape.numel()
        context = None if self.context is None else self.context.expand(*shape, -1).reshape(rows, -1)
        if len(self.readings) == 1:
            return self._drawn(self.readings[0], rows, context).reshape(*shape, -1)
        chosen = torch.randint(len(self.readings), (rows,), device=self.like.device)
        parts, places = [], []
        for k, read in enumerate(self.readings):
            if len(place := (chosen == k).nonzero().flatten()):
                parts.append(self._drawn(read, len(place), None if context is None else context[place]))
                places.append(place)
        return torch.cat(parts)[torch.cat(places).argsort()].reshape(*shape, -1)

    def _drawn(self, read: Conditionals, rows: int, context: Tensor | None) -> Tensor:
        """Shape (rows, dim), variable after variable."""
        columns: list[Tensor] = [self.like] * self.event_shape[0]
        walk = read.walk(rows, context)
        place, parameters = next(walk)
        while True:
            columns[place] = self.element(parameters.unsqueeze(-2)).sample().squeeze(-1)
            try:
                place, parameters = walk.send(columns[place].to(self.like.dtype))
            except StopIteration:
                return torch.stack(columns, -1)


class ChainRule(nn.Module):
    """A distribution whose variables are drawn one after the other, given a context or none.

        p(x | z) = prod_d p(x_d | x_{<d}, decoder(z))

    Without a decoder it is a fully visible model, and with one a likelihood, of which the net decides how much the
    latents are left to say. A net with ``readings`` in several orders gives the mean of their densities.

    Args:
        net: (x, context) -> parameters, shape (*batch, dim, outputs), those of x_d from x_{<d} and the context alone:
            ``OrderedMADE``, ``NADE``, ``PixelCNN``, ``CausalTransformer``, or one of your own with ``dim``,
            ``outputs`` and ``walk``.
        element: what each variable is: ``Bits()``, ``Greys(256)``, ``Tokens(27)``.
        decoder: z -> the net's context, shape (*batch, H); None for a net that takes no context.
        start: shape (dim, outputs), where the net's ``bias`` starts.

    Raises:
        ValueError: the net gives another number of parameters than the element takes, or ``start`` has another shape
            than its bias; when called, z is given without a decoder, or missing with one.
        TypeError: ``net`` or ``decoder`` is no module, the net has no ``walk``, or ``element`` is none.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.3, arXiv:1906.02691.
        PixelVAE: A Latent Variable Model for Natural Images, Gulrajani et al., 2017, arXiv:1611.05013.

    Example:
        >>> from dlvm.distributions import Bits
        >>> from dlvm.nets import NADE
        >>> ChainRule(NADE(3, 8, context=4), Bits(), nn.Linear(2, 4))(torch.zeros(5, 2)).sample().shape
        torch.Size([5, 3])
    """

    net: Any

    def __init__(self, net: nn.Module, element: Element, decoder: nn.Module | None = None, start: Tensor | None = None):
        super().__init__()
        module(net=net)
        if decoder is not None:
            module(decoder=decoder)
        if not callable(getattr(net, "walk", None)) and not hasattr(net, "readings"):
            raise TypeError(
                f"net {type(net).__name__} needs a method walk(rows, context), by which it is drawn from; take an "
                "OrderedMADE, NADE, PixelCNN or CausalTransformer"
            )
        if isinstance(element, type) or not callable(element) or not hasattr(element, "outputs"):
            got = f"the class {element.__name__}" if isinstance(element, type) else type(element).__name__
            raise TypeError(f"element must say what a variable is, got {got}; write Bits(), Greys(256) or Tokens(27)")
        if net.outputs != element.outputs:
            raise ValueError(
                f"net gives {net.outputs} numbers per variable where element {element} takes {element.outputs}; make "
                f"the net with outputs={element.outputs}"
            )
        self.net, self.element, self.decoder = net, element, decoder
        if start is not None:
            if not isinstance(start, Tensor) or start.shape != self.net.bias.shape:
                shape = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
                raise ValueError(f"start must be a tensor of shape {tuple(self.net.bias.shape)}, got {shape}")
            with torch.no_grad():
                self.net.bias.copy_(start)

    def forward(self, *context: Tensor) -> AutoregressiveDistribution:
        if bool(context) != (self.decoder is not None):
            raise ValueError(
                "context must be given exactly where there is a decoder to take it; make the ChainRule with "
                "decoder=MLP(z_dim, H) and the net with context=H, or leave both out"
            )
        h = None if self.decoder is None else self.decoder(*context)
        readings = self.net.readings() if hasattr(self.net, "readings") else [self.net]
        return AutoregressiveDistribution(readings, self.element, self.net.dim, h, next(self.net.parameters()))
