"""The neural autoregressive distribution estimator's net."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import count, whole
from dlvm.nets.made import check_width


class NADE(nn.Module):
    """A hidden layer for each input, which sees the inputs before it by weights that all layers share.

        out_d = V_d sigmoid(W_{:,<d} x_{<d} + C h + c) + b_d

    Args:
        dim: number of inputs D.
        hidden: units of each hidden layer.
        outputs: how many numbers per input.
        context: width of the context; 0 for none.

    Raises:
        ValueError: a number is below 1, or ``context`` below 0; when called, an input has another width, or a context
            is missing or superfluous.

    References:
        The Neural Autoregressive Distribution Estimator, Larochelle, Murray, 2011, AISTATS.

    Example:
        >>> NADE(3, 16)(torch.zeros(5, 3)).shape
        torch.Size([5, 3, 1])
    """

    def __init__(self, dim: int, hidden: int, outputs: int = 1, context: int = 0):
        super().__init__()
        count(dim=dim, hidden=hidden, outputs=outputs)
        whole(context=context)
        if context < 0:
            raise ValueError(f"context must be at least 0, got {context}; 0 is for none")
        self.dim, self.outputs = dim, outputs
        self.in_features, self.out_features = dim, dim * outputs
        self.inputs = nn.Linear(dim, hidden)
        self.weight = nn.Parameter(torch.empty(dim, outputs, hidden).uniform_(-1, 1) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(dim, outputs))
        self.context = nn.Linear(context, hidden, bias=False) if context else None

    def forward(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """
        Args:
            value: shape (*batch, dim).
            context: shape (*batch', H), broadcast against value.

        Returns:
            shape (*batch, dim, outputs). The hidden layers take dim times ``hidden`` numbers for each datum.
        """
        check_width("value", value, self.dim)
        seen = (value.unsqueeze(-1) * self.inputs.weight.T)[..., :-1, :].cumsum(-2)
        hidden = F.pad(seen, (0, 0, 1, 0)) + self._start(context).unsqueeze(-2)
        return torch.einsum("...dh,doh->...do", hidden.sigmoid(), self.weight) + self.bias

    def _start(self, context: Tensor | None) -> Tensor:
        """What hidden layers see before any input."""
        if (context is None) != (self.context is None):
            raise ValueError("context must be given exactly where NADE was made with context > 0; give or omit both")
        if self.context is None:
            return self.inputs.bias
        check_width("context", context, self.context.in_features)
        return self.inputs.bias + self.context(context)

    def walk(self, rows: int, context: Tensor | None = None) -> Generator[tuple[int, Tensor], Tensor, None]:
        """Input after input: yields its place and its output, and is sent its value.

        The hidden layer goes on from one input to the next by a column of W: all steps together cost one pass.

        Args:
            rows: number of data.
            context: shape (rows, H).

        Returns:
            a generator of (place, output of shape (rows, outputs)), to be sent values of shape (rows,).
        """
        hidden = self._start(context).expand(rows, -1)
        for place in range(self.dim):
            value = yield place, F.linear(hidden.sigmoid(), self.weight[place], self.bias[place])
            hidden = hidden + value.unsqueeze(-1) * self.inputs.weight[:, place]
