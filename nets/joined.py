"""Nets of several arguments, as of data and of their classes: all side by side, or one chooses the map of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import check_tokens, count, module, out_features, whole, within_lengths
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


class SwitchingLinear(nn.Module):
    """A linear map for each class, on top of what all classes share.

        b + sum_k z_k (W_k v + b_k)

    At a one-hot z it is the map of that class; between, a mixture of maps. With p(x_t | z_t, x_t-1) = N(this, s^2) a
    hidden Markov model becomes a vector autoregression that switches.

    Args:
        classes: how many maps.
        in_features: of v.
        out_features: of the result.

    Raises:
        TypeError, ValueError: one of them is no integer of at least 1.

    Example:
        >>> SwitchingLinear(3, 2, 4)(torch.eye(3), torch.zeros(5, 1, 2)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, classes: int, in_features: int, out_features: int):
        super().__init__()
        count(classes=classes, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = classes + in_features, out_features
        self.weight = nn.Parameter(torch.randn(classes, out_features, in_features) / (3 * in_features**0.5))
        self.own = nn.Parameter(torch.randn(classes, out_features) / 2)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, z: Tensor, v: Tensor) -> Tensor:
        """
        Args:
            z: shape (*batch, classes).
            v: shape (*batch, in_features); batches are broadcast.

        Returns:
            shape (*batch, out_features).
        """
        each = torch.einsum("...i,koi->...ko", v, self.weight)  # of every class: v may be seen under all of them
        return self.bias + z @ self.own + (z.unsqueeze(-2) @ each).squeeze(-2)


class SwitchingDiagonal(nn.Module):
    """A factor for each number, which a class chooses, on top of what all classes share.

        b_d + sum_k z_k (w_kd v_d + b_kd)

    The logits of a bit that a class and the bit's own last value choose: two by two tables, one for each class and bit.

    Args:
        classes: how many.
        features: of v, and of the result.

    Raises:
        TypeError, ValueError: one of them is no integer of at least 1.

    Example:
        >>> SwitchingDiagonal(3, 2)(torch.eye(3), torch.zeros(5, 1, 2)).shape
        torch.Size([5, 3, 2])
    """

    def __init__(self, classes: int, features: int):
        super().__init__()
        count(classes=classes, features=features)
        self.in_features, self.out_features = classes + features, features
        self.weight = nn.Parameter(torch.randn(classes, features) / 2)
        self.own = nn.Parameter(torch.randn(classes, features) / 2)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor, v: Tensor) -> Tensor:
        """
        Args:
            z: shape (*batch, classes).
            v: shape (*batch, features); batches are broadcast.

        Returns:
            shape (*batch, features).
        """
        return self.bias + z @ self.own + (z @ self.weight) * v


class Embedded(_Before):
    """A net of sequences or sets of vectors, which sees tokens: a learned vector for each.

        net(E[x_1], E[x_2], ..., E[x_length])

    The encoder of sentences: ``Embedded(GRU(32, 64), tokens=28)`` reads them in order, and
    ``Embedded(DeepSet(MLP(32, 32), MLP(32, 64)), 28)`` counts what is in them. What lies behind a sequence's length is
    not seen.

    Args:
        net: of (vectors, how many there are), with ``in_features`` the width of a vector.
        tokens: how many different ones there are.

    Raises:
        ValueError: ``tokens`` is below 1, or the net does not say how wide a vector is; when called, a token is none
            of 0, ..., tokens - 1, or lengths do not fit.
        TypeError: the net is no module, or has no ``out_features``; ``tokens`` is no integer; when called, tokens or
            lengths are no whole numbers.

    Example:
        >>> from dlvm.nets import GRU
        >>> Embedded(GRU(4, 8), tokens=28)(torch.tensor([[3, 1, 0], [2, 0, -1]]), torch.tensor([3, 2])).shape
        torch.Size([2, 8])
    """

    def __init__(self, net: nn.Module, tokens: int):
        super().__init__(net)
        count(tokens=tokens)
        width: int = getattr(net, "in_features", None)  # type: ignore[assignment]  # looked at in the next line
        whole(**{"in_features of the net": width})
        self.most = tokens - 1
        self.tokens = nn.Embedding(tokens, width)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """
        Args:
            x: shape (*batch, positions), whole numbers.
            lengths: how many of them count, shape (*batch,); all unless told.

        Returns:
            shape (*batch, out_features).
        """
        if isinstance(x, Tensor) and lengths is not None:
            x = torch.where(within_lengths(lengths, x.shape[:-1], x.shape[-1]), x, 0)
        check_tokens(x, self.most)
        return self.net(self.tokens(x)) if lengths is None else self.net(self.tokens(x), lengths)
