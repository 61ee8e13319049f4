"""Inference that is not amortised: variational parameters of its own for every datum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from dlvm.distributions import DiagonalNormal
from dlvm.guides.amortized import Amortized, Family, Settings
from dlvm.guides.sites.arguments import function
from dlvm.guides.sites.conditioning import first
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent
from dlvm.nets.arguments import count


class Table(nn.Module):
    """A row of numbers for each datum, in the place of an encoder.

    Args:
        num_data: how many data there are.
        width: numbers per datum.
        index: (*args, **kwargs) -> numbers of the data in the batch, integers of shape (batch,), from an encoder's
            arguments; None where every batch is the whole data set in its order.

    Raises:
        ValueError: ``num_data`` or ``width`` is below 1; when called, the batch has another size than the data set and
            there is no ``index``, or an index is out of range or not of shape (batch,).
        TypeError: ``num_data`` or ``width`` is no integer, or ``index`` no function; when called, there are no data, or
            an index is no tensor of integers.
    """

    def __init__(self, num_data: int, width: int, index: Callable[..., Tensor] | None = None):
        super().__init__()
        count(num_data=num_data, width=width)
        function(index=index)
        self.out_features, self.index = width, index
        self.rows = nn.Parameter(torch.randn(num_data, width) / width**0.5)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.index is not None:
            return self._of(self.index(*args, **kwargs))
        data = first(args, kwargs)
        if not hasattr(data, "__len__") or (isinstance(data, Tensor) and not data.dim()):
            raise TypeError(f"the first argument must be a batch of data, got {data!r}; pass a tensor (batch, ...)")
        if len(data) != len(self.rows):
            raise ValueError(
                f"a batch of {len(data)} of {len(self.rows)} data needs their numbers: give the programs an "
                "argument for these, and pass index=lambda x, index: index"
            )
        return self.rows

    def _of(self, index: Tensor) -> Tensor:
        """The rows of these numbers."""
        if not isinstance(index, Tensor) or index.dtype not in (torch.int64, torch.int32):
            got = index.dtype if isinstance(index, Tensor) else type(index).__name__
            raise TypeError(f"index must return a tensor of integers, got {got}; number the data with torch.arange")
        if index.dim() != 1 or not len(index):
            raise ValueError(f"index returned shape {tuple(index.shape)}; expected (batch,), one number per datum")
        try:
            return nn.functional.embedding(index, self.rows)
        except IndexError:
            raise ValueError(
                f"index must be from 0 to num_data - 1 = {len(self.rows) - 1}, got {int(index.min())} to "
                f"{int(index.max())}; give num_data as the size of the whole data set"
            ) from None


class Local(Amortized):
    """A guide without an encoder: each datum has variational parameters of its own.

        q(z | x_i) = prod_j q(z_j | Pa(z_j), phi_i)

    It has no amortisation gap, and nothing to say about data that it was not trained on. The parameters of q at a site
    are linear in phi_i, as those of an amortised guide are in its features.

    Sites:
        those of ``latents``, with the model's shapes and supports.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        num_data: how many data there are.
        family: makes q at a site from (net, dim), as ``DiagonalNormal`` does.
        index: see ``Table``; ``lambda x, index: index`` for programs that are called with (x, index).
        width: numbers in phi_i; 2 per latent dimension unless told, as a diagonal Gaussian needs.
        settings: ``order``, ``hidden``, ``posteriors``, ``present``, see ``Amortized``.

    Raises:
        ValueError, TypeError: as ``Table`` and ``Amortized``.

    References:
        Stochastic Variational Inference, Hoffman, Blei, Wang, Paisley, 2013, arXiv:1206.7051.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, appendix A.2.2, arXiv:1906.02691.

    Example:
        >>> guide = Local({"z": Latent(torch.Size([2]))}, num_data=5)
        >>> guide(torch.zeros(5, 4))["z"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        num_data: int,
        family: Family = DiagonalNormal,
        index: Callable[..., Tensor] | None = None,
        width: int | None = None,
        **settings: Unpack[Settings],
    ):
        check_latents(latents)
        total = sum(torch.Size(latent.shape).numel() for latent in latents.values())
        table = Table(num_data, 2 * total if width is None else width, index)
        super().__init__(latents, table, family, **settings)
