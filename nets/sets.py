"""A set of any size -> features that do not depend on the order of its elements."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import module, out_features


class DeepSet(nn.Module):
    """One net for each element, their sum, and one net for the sum.

        out = whole( sum_i element(x_i) )     (the mean of those with mean=True)

    Sets of different sizes stand in one tensor with room for the largest, and with them which elements there are: what
    lies in the empty places, NaN included, is not seen. An empty set has the sum 0.

    Args:
        element: net of an element, with ``out_features``.
        whole: net of the sum, with ``out_features``.
        mean: whether the sum is divided by the number of elements; features then do not tell how many there are.

    Raises:
        TypeError: a net is no module, or has no ``out_features``; when called, the set is no tensor.
        ValueError: when called, the set has no dimension of elements, or ``present`` does not fit it.

    References:
        Deep Sets, Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov, Smola, 2017, arXiv:1703.06114.

    Example:
        >>> from dlvm.nets import MLP
        >>> net = DeepSet(MLP(2, 16, 16), MLP(16, 8))
        >>> net(torch.zeros(5, 7, 2), torch.tensor([7, 3, 1, 0, 2])).shape
        torch.Size([5, 8])
    """

    def __init__(self, element: nn.Module, whole: nn.Module, mean: bool = False):
        super().__init__()
        module(element=element, whole=whole)
        self.element, self.whole, self.mean = element, whole, mean
        self.in_features = getattr(element, "in_features", None)
        out_features(element)
        self.out_features = out_features(whole)

    @property
    def activation(self) -> nn.Module | None:
        """The nonlinearity of ``whole``, which a guide applies before its own heads."""
        return getattr(self.whole, "activation", None)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """
        Args:
            x: shape (*batch, elements, dim).
            present: which elements there are, shape (*batch, elements), truth values; or how many from the first on,
                shape (*batch,), integers. All unless told.

        Returns:
            shape (*batch, out_features).
        """
        there = where_present(x, present)
        values = self.element(torch.where(there, x, 0))
        total = torch.where(there, values, 0).sum(-2)
        return self.whole(total / there.sum(-2).clamp_min(1) if self.mean else total)


def where_present(x: Tensor, present: Tensor | None) -> Tensor:
    """Which elements there are, truth values of shape (*batch, elements, 1).

    Raises:
        TypeError: x or ``present`` is no tensor.
        ValueError: x has no elements' dimension; ``present`` is neither truth values of shape (*batch, elements) nor
            integers of shape (*batch,) between 0 and the number of elements.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}; pass shape (*batch, elements, dim)")
    if x.dim() < 2:
        raise ValueError(
            f"x must have shape (*batch, elements, dim), got {tuple(x.shape)}; pass one element as x[None]"
        )
    if present is None:
        return torch.ones(*x.shape[:-1], 1, dtype=torch.bool, device=x.device)
    if not isinstance(present, Tensor):
        raise TypeError(f"present must be a tensor, got {type(present).__name__}; pass a mask or numbers of elements")
    *batch, elements, _ = x.shape
    if present.dtype == torch.bool and present.shape == x.shape[:-1]:
        return present[..., None]
    integers = not (present.is_floating_point() or present.is_complex() or present.dtype == torch.bool)
    if not integers or list(present.shape) != batch:
        raise ValueError(
            f"present must be truth values of shape {(*batch, elements)} or integers of shape {tuple(batch)}, got "
            f"{present.dtype} of shape {tuple(present.shape)}; pass which elements there are, or how many"
        )
    if ((present < 0) | (present > elements)).any():
        raise ValueError(
            f"present must be between 0 and the {elements} elements of x, got {present.min()} to {present.max()}; pass "
            "how many elements of each set there are"
        )
    return (torch.arange(elements, device=x.device) < present[..., None])[..., None]
