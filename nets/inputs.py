"""What is done to data before a net sees them: missing numbers filled, columns brought to one scale, counts to logs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import is_count, module, out_features, widths
from dlvm.nets.mlp import MLP


class _Before(nn.Module):
    """What stands before a net, and looks like it from behind: a guide asks an encoder for its nonlinearity."""

    def __init__(self, net: nn.Module):
        super().__init__()
        module(net=net)
        self.net, self.out_features = net, out_features(net)

    @property
    def activation(self) -> nn.Module | None:
        """The net's nonlinearity, where it has one and a layer before it."""
        without = isinstance(self.net, MLP) and not len(self.net.layers)
        return None if without else getattr(self.net, "activation", None)


class Filled(_Before):
    """A net of data with holes: it sees zeros where numbers are missing (NaN), and beside them which ones are there.

        net([x with zeros, mask]),  mask_d = 1 where x_d is there

    Args:
        net: of twice as many numbers as a datum has.

    Raises:
        TypeError: the net is no module, or has no ``out_features``; an input is no tensor.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets, Mattei, Frellsen, 2019,
            arXiv:1812.02633.

    Example:
        >>> from dlvm.nets import MLP
        >>> Filled(MLP(2 * 3, 8))(torch.tensor([[1.0, float("nan"), 3.0]])).isfinite().all()
        tensor(True)
    """

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: shape (*batch, dim), NaN where a number is missing.

        Returns:
            shape (*batch, out_features).
        """
        missing = tensor(x).isnan()
        there = (~missing).to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
        return self.net(torch.cat([torch.where(missing, 0, x), there], dim=-1))


class Standardised(_Before):
    """A net of data whose columns are brought to one scale; what is missing (NaN) stays so.

        net((x - loc) / scale)

    Args:
        net: of the numbers so made.
        loc: shape (dim,), such as the mean of each column.
        scale: shape (dim,), positive, such as its standard deviation.

    Raises:
        ValueError: ``loc`` and ``scale`` are no vectors of one length, or ``scale`` is not positive and finite.
        TypeError: the net is no module, or has no ``out_features``; ``loc`` or ``scale`` is no tensor.

    Example:
        >>> from dlvm.nets import MLP
        >>> Standardised(MLP(2), torch.tensor([1000.0, 0.0]), torch.tensor([50.0, 1e-3]))(torch.tensor([1050.0, 0.0]))
        tensor([1., 0.])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, loc: Tensor, scale: Tensor):
        super().__init__(net)
        for name, value in {"loc": loc, "scale": scale}.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a tensor of shape (dim,), got {type(value).__name__}; pass a tensor")
            if value.dim() != 1 or not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be a vector of finite numbers, got {value}; one for each column")
        if loc.shape != scale.shape or not bool((scale > 0).all()):
            raise ValueError(f"scale must be positive, one for each of {len(loc)} columns, got {scale}; see loc")
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: shape (*batch, dim).

        Returns:
            shape (*batch, out_features).
        """
        return self.net((tensor(x) - self.loc) / self.scale)


class Logarithmic(_Before):
    """A net of counts, which sees log(1 + x): no count is so large that it alone is seen.

    Args:
        net: of the logarithms.

    Raises:
        TypeError: the net is no module, or has no ``out_features``; an input is no tensor.

    Example:
        >>> from dlvm.nets import MLP
        >>> Logarithmic(MLP(2))(torch.tensor([0.0, 1e6]))
        tensor([ 0.0000, 13.8155])
    """

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: shape (*batch, dim), above -1; integers become floats.

        Returns:
            shape (*batch, out_features).
        """
        return self.net(tensor(x).log1p())


class Beside(_Before):
    """A net of a table whose columns are seen in several ways, side by side.

        net([front_1(x_{columns 1}), front_2(x_{columns 2}), ...])

    Args:
        net: of what all fronts give together.
        fronts: modules with ``out_features``, as ``OneHot(MLP(5), (2, 3))``.
        columns: places of the columns that each of them sees.

    Raises:
        ValueError: there are no fronts, or not as many ``columns``.
        TypeError: the net or a front is no module, or has no ``out_features``; ``columns`` no sequences of integers;
            an input is no tensor.

    Example:
        >>> from dlvm.nets import MLP
        >>> Beside(MLP(4), [MLP(1), OneHot(MLP(3), (3,))], [(1,), (0,)])(torch.tensor([2.0, 0.5]))
        tensor([0.5000, 0.0000, 0.0000, 1.0000])
    """

    places: Tensor

    def __init__(self, net: nn.Module, fronts: Sequence[nn.Module], columns: Sequence[Sequence[int]]):
        super().__init__(net)
        if not isinstance(fronts, Sequence) or not fronts:
            raise ValueError(f"fronts must be a list of modules, at least one, got {fronts!r}; write [MLP(3)]")
        for i, front in enumerate(fronts):
            module(**{f"fronts[{i}]": front})
            out_features(front)
        if not isinstance(columns, Sequence) or len(columns) != len(fronts):
            raise ValueError(
                f"columns must hold the places of each of {len(fronts)} fronts, got {columns!r}; see fronts"
            )
        for each in columns:
            wrong = not isinstance(each, Sequence) or isinstance(each, str)
            if wrong or not all(is_count(place) or (place == 0 and isinstance(place, int)) for place in each):
                raise TypeError(f"columns must be sequences of places from 0, got {each!r}; write [(0, 2), (1,)]")
        self.fronts, self.sizes = nn.ModuleList(fronts), [len(each) for each in columns]
        self.register_buffer("places", torch.tensor([place for each in columns for place in each]))

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: shape (*batch, dim).

        Returns:
            shape (*batch, out_features).
        """
        parts = tensor(x).index_select(-1, self.places).split(self.sizes, -1)
        return self.net(torch.cat([front(part) for front, part in zip(self.fronts, parts, strict=True)], -1))


class OneHot(_Before):
    """A net of columns of classes: it sees a 1 for the class of each column, and zeros where it is missing (NaN).

        net([e_{x_1}, e_{x_2}, ...]),  e_k of as many numbers as the column has classes

    Args:
        net: of sum(sizes) numbers.
        sizes: how many classes each column has.

    Raises:
        ValueError: a column has no class.
        TypeError: the net is no module, or has no ``out_features``; ``sizes`` is no sequence of integers; an input is
            no tensor.

    Example:
        >>> from dlvm.nets import MLP
        >>> OneHot(MLP(5), (2, 3))(torch.tensor([1.0, float("nan")]))
        tensor([0., 1., 0., 0., 0.])
    """

    columns: Tensor
    classes: Tensor

    def __init__(self, net: nn.Module, sizes: Sequence[int]):
        super().__init__(net)
        widths(sizes=sizes)
        self.register_buffer("columns", torch.tensor([d for d, size in enumerate(sizes) for _ in range(size)]))
        self.register_buffer("classes", torch.tensor([k for size in sizes for k in range(size)]))

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: shape (*batch, dim), a class 0, 1, ... in each column, or NaN.

        Returns:
            shape (*batch, out_features).
        """
        x = tensor(x)
        seen = x[..., self.columns] == self.classes
        return self.net(seen.to(x.dtype if x.is_floating_point() else torch.get_default_dtype()))


def tensor(x: object) -> Tensor:
    """``x``, if it is a tensor; TypeError otherwise."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}; pass torch.as_tensor(x)")
    return x
