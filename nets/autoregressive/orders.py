"""The masked autoencoder read in several orders of its inputs, by one set of weights."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, whole
from dlvm.nets.made import MADE, MaskedLinear


class OrderedMADE(nn.Module):
    """A masked autoencoder for densities, read in one or several orders of its inputs, which share all weights.

        out_d = f_d(x_e for the e that come before d in order k, h)

    Weights belong to inputs and hidden units; only the masks are an order's own. The first order is 1..D, the others
    are random permutations that ``seed`` fixes. Each order is a density of its own, so that what is averaged over
    orders must be densities: an average of outputs belongs to none.

    Args:
        dim: number of inputs D.
        hidden: widths of the hidden layers; none for a logistic regression of each input on those before.
        outputs: how many numbers per input.
        context: width of the context; 0 for none.
        orders: how many orders there are.
        direct: whether outputs see the inputs before them without a hidden layer between, too; narrow layers need it.
        activation: makes the nonlinearity.
        seed: of the orders.

    Raises:
        ValueError, TypeError: as ``MADE``; ``orders`` is below 1.

    References:
        MADE: Masked Autoencoder for Distribution Estimation, Germain, Gregor, Murray, Larochelle, 2015,
            arXiv:1502.03509.

    Example:
        >>> net = OrderedMADE(3, (16,), orders=2)
        >>> [read(torch.zeros(5, 3)).shape for read in net.readings()]
        [torch.Size([5, 3, 1]), torch.Size([5, 3, 1])]
    """

    orders: Tensor

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (),
        outputs: int = 1,
        context: int = 0,
        orders: int = 1,
        direct: bool = True,
        activation: Callable[[], nn.Module] = nn.ReLU,
        seed: int = 0,
    ):
        super().__init__()
        count(orders=orders)
        whole(seed=seed)
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must lie between 0 and 2**63 - 1, got {seed}")
        self.made = MADE(dim, context, hidden, outputs, activation=activation, direct=direct)
        self.dim, self.outputs = dim, outputs
        self.in_features, self.out_features = dim, dim * outputs
        generator = torch.Generator().manual_seed(seed)
        more = [torch.randperm(dim, generator=generator) + 1 for _ in range(orders - 1)]
        self.register_buffer("orders", torch.stack([self.made.order, *more]))

    @property
    def bias(self) -> Tensor:
        """Bias of the outputs, shape (dim, outputs): a view."""
        return cast(MaskedLinear, self.made.layers[-1]).bias.view(self.outputs, self.dim).T

    def extra_repr(self) -> str:
        return f"orders={len(self.orders)}"

    def readings(self) -> list[Reading]:
        """The net in each of its orders."""
        return [Reading(self.made, order if k else None) for k, order in enumerate(self.orders)]

    def forward(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """In the first order.

        Args:
            value: shape (*batch, dim).
            context: shape (*batch', H), broadcast against value.

        Returns:
            shape (*batch, dim, outputs).
        """
        return self.readings()[0](value, context)


class Reading:
    """A masked autoencoder in one order of its inputs, its own unless given another."""

    def __init__(self, made: MADE, order: Tensor | None = None):
        self.made, self.order = made, order

    def __call__(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        outputs = self.made(value, context, self.order)
        return outputs[0].unsqueeze(-1) if len(outputs) == 1 else torch.stack(outputs, -1)

    def walk(self, rows: int, context: Tensor | None = None) -> Generator[tuple[int, Tensor], Tensor, None]:
        return self.made.walk(rows, context, self.order)
