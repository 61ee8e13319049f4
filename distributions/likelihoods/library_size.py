"""How many counts a datum has in all, before they are seen."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.likelihoods.rates import positive_columns
from dlvm.nets.inputs import tensor


class LibrarySize(nn.Module):
    """p(l | batch), log-normal with a mean and a spread for each batch of measurements.

        log l ~ N(loc_b, scale_b^2)

    Nothing is learned: ``LibrarySize.of`` takes loc and scale from training data.

    Args:
        loc: shape (batches,), finite; of one where no batch is told.
        scale: the same, positive.

    Raises:
        ValueError: ``loc`` is no vector of finite numbers, or ``scale`` not positive and one for each; when called, a
            batch is none of these, or is not told where there are several.
        TypeError: one is no tensor.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez, Regier, Cole, Jordan, Yosef, 2018.

    Example:
        >>> LibrarySize(torch.tensor([6.0, 7.0]), torch.tensor([0.5, 0.5]))(torch.tensor([1, 0, 0])).batch_shape
        torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__()
        if not isinstance(loc, Tensor):
            raise TypeError(f"loc must be a tensor of shape (batches,), got {type(loc).__name__}; see LibrarySize.of")
        if loc.dim() != 1 or not len(loc) or not bool(loc.isfinite().all()):
            raise ValueError(f"loc must be a vector of finite numbers, one for each batch, got {loc}; see of")
        self.register_buffer("loc", loc.detach().to(torch.get_default_dtype()).clone())
        self.register_buffer("scale", positive_columns("scale", scale, len(loc)).to(self.loc).clone())

    @classmethod
    def of(cls, x: Tensor, batch: Tensor | None = None, batches: int = 1) -> LibrarySize:
        """The mean and the standard deviation of log sum_d x_d in each batch; of all where a batch has below 2 rows.

        Args:
            x: shape (n, x_dim), counts.
            batch: shape (n,), from 0 to batches - 1; None where there is one alone.
            batches: how many.

        Raises:
            ValueError: a datum has no count at all.
        """
        total = tensor(x).double().nansum(-1)
        if not bool((total > 0).all()):
            raise ValueError(
                f"x has {int((total <= 0).sum())} rows without a count, whose size has no logarithm; leave them out"
            )
        size, loc, scale = total.log(), [], []
        for k in range(batches):
            rows = size if batch is None else size[batch == k]
            rows = rows if len(rows) > 1 else size
            loc.append(rows.mean())
            scale.append(rows.std(correction=0).clamp_min(1e-2))
        return cls(torch.stack(loc), torch.stack(scale))

    def forward(self, batch: Tensor | None = None) -> dist.Distribution:
        """p(l | batch), one for each entry of ``batch``, shape (*batch,); without it, of batch_shape ()."""
        if batch is None:
            if len(self.loc) > 1:
                raise ValueError(f"batch must say which of {len(self.loc)} each datum is from, got None; pass it")
            return dist.LogNormal(self.loc[0], self.scale[0])
        every = torch.arange(len(self.loc), device=self.loc.device)
        if not isinstance(batch, Tensor):
            raise TypeError(f"batch must be a tensor of numbers from 0, got {type(batch).__name__}; pass torch.tensor")
        found = batch.unsqueeze(-1) == every
        if not bool(found.any(-1).all()):
            wrong = batch[~found.any(-1)].flatten()[0].item()
            raise ValueError(f"batch must hold numbers 0 to {len(every) - 1}, got {wrong:g}; number batches from 0")
        one = found.to(self.loc.dtype)
        return dist.LogNormal(one @ self.loc, one @ self.scale)
