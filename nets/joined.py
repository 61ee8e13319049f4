"""Nets of several arguments, as of data and of their classes: each is seen in a way of its own, all side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, module, out_features
from dlvm.nets.inputs import _Before, tensor


class Joined(_Before):
    """A net of several arguments, each of which a front sees.

        net(front_1(a_1), front_2(a_2), ...)

    The encoder of a guide whose model takes x and y, and what p(x | z, y) or p(z | y) is made of.

    Args:
        net: of as many inputs as there are fronts, which an ``MLP`` concatenates.
        fronts: modules with ``out_features``, as ``MLP(3)`` for numbers as they are and ``Classes(10)`` for labels.

    Raises:
        ValueError: there are no fronts; when called, not as many arguments.
        TypeError: the net or a front is no module, or has no ``out_features``; an argument is no tensor.

    Example:
        >>> from dlvm.nets import MLP
        >>> Joined(MLP(4), [MLP(1), Classes(3)])(torch.tensor([[0.5]]), torch.tensor([2]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    """

    def __init__(self, net: nn.Module, fronts: Sequence[nn.Module]):
        super().__init__(net)
        if not isinstance(fronts, Sequence | nn.ModuleList) or not fronts:
            raise ValueError(f"fronts must be a list of modules, at least one, got {fronts!r}; write [MLP(3)]")
        for i, front in enumerate(fronts):
            module(**{f"fronts[{i}]": front})
            out_features(front)
        self.fronts = nn.ModuleList(fronts)

    def forward(self, *arguments: Tensor) -> Tensor:
        """
        Args:
            *arguments: one for each front, of the shapes that it takes.

        Returns:
            shape (*batch, out_features).
        """
        if len(arguments) != len(self.fronts):
            raise ValueError(
                f"arguments must be {len(self.fronts)}, one for each front, got {len(arguments)}; pass all that the "
                "net was made for"
            )
        return self.net(*(front(tensor(each)) for front, each in zip(self.fronts, arguments, strict=True)))


class Classes(nn.Module):
    """Labels as vectors, a 1 for the class and zeros elsewhere.

        e_y,   y in 0, ..., classes - 1

    Any other number is refused: a label that is not there, as -1 or NaN, has no such vector.

    Args:
        classes: how many there are.

    Raises:
        ValueError: there are none; when called, a label is no class.
        TypeError: ``classes`` is no integer; labels are no tensor.

    Example:
        >>> Classes(3)(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    every: Tensor
    one: Tensor

    def __init__(self, classes: int):
        super().__init__()
        count(classes=classes)
        self.out_features = classes
        self.register_buffer("every", torch.arange(classes))
        self.register_buffer("one", torch.ones(()), persistent=False)  # of the dtype that the module is moved to

    def extra_repr(self) -> str:
        return f"{self.out_features}"

    def forward(self, y: Tensor) -> Tensor:
        """
        Args:
            y: shape (*batch,), integers or whole numbers.

        Returns:
            shape (*batch, classes).
        """
        found = tensor(y).unsqueeze(-1) == self.every
        if not bool(found.any(-1).all()):
            wrong = y[~found.any(-1)].flatten()[0].item()
            raise ValueError(
                f"y must hold classes 0 to {self.out_features - 1}, got {wrong:g}; leave rows without a class out, or "
                "make the net for more classes"
            )
        return found.to(self.one.dtype)
