"""Data with holes: what is not there counts nothing, and what may have hidden it."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.likelihoods.location_scale import Units, check_units
from dlvm.distributions.likelihoods.product import MixedColumns
from dlvm.distributions.supports import inner
from dlvm.nets.arguments import count, module
from dlvm.nets.inputs import tensor


class OrMissing(constraints.Constraint):
    """A support of single numbers, any of which may be missing, which is NaN."""

    def __init__(self, present: constraints.Constraint):
        self.present = present
        self.is_discrete = present.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return value.isnan() | self.present.check(value)

    def __repr__(self) -> str:
        return f"{self.present!r} or NaN"


class PartlyObserved(TorchDistribution):
    """Single variables of which those that are NaN are missing: their log-density is 0, and so is its gradient.

    Draws are of all variables.

    Args:
        base_dist: of single variables, one a number.
        validate_args: as in every distribution; numbers that are there are held against the base's support.

    Example:
        >>> PartlyObserved(dist.Normal(torch.zeros(2), 1.0)).log_prob(torch.tensor([0.0, float("nan")]))
        tensor([-0.9189,  0.0000])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, base_dist: torch.distributions.Distribution, validate_args: bool | None = None):
        self.base_dist = base_dist
        super().__init__(base_dist.batch_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        return OrMissing(self._present)

    @property
    def _present(self) -> constraints.Constraint:
        if (present := self.base_dist.support) is None:
            raise NotImplementedError(f"{type(self.base_dist).__name__} states no support to hold numbers against")
        return present

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # a property, as in Independent
        return self.base_dist.has_rsample

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def expand(self, batch_shape: Sequence[int], _instance: PartlyObserved | None = None) -> PartlyObserved:
        new = self._get_checked_instance(PartlyObserved, _instance)
        new.base_dist = self.base_dist.expand(torch.Size(batch_shape))
        super(PartlyObserved, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self.base_dist.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self.base_dist.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if not value.is_floating_point():
            return self.base_dist.log_prob(value)
        missing = value.isnan()
        # Any number of the support will do in the place of what is missing: its gradient is multiplied by 0.
        filled = torch.where(missing, _inside(self.base_dist), value)
        return torch.where(missing, 0, self.base_dist.log_prob(filled))


def _inside(single: torch.distributions.Distribution) -> Tensor:
    """A value of the support near which densities are finite, of the batch shape or of a single number."""
    if isinstance(single, MixedColumns):
        return single.inside(_inside)
    loc, support = getattr(single, "loc", None), single.support
    if support is not None and support.is_discrete:
        return torch.as_tensor(getattr(support, "lower_bound", 0), dtype=torch.get_default_dtype())
    return loc.detach() if isinstance(loc, Tensor) else single.mean.detach()


class Missing(nn.Module):
    """A likelihood of data of which some numbers are missing, which are NaN and count nothing.

        log p(x | z) = sum_{d: x_d is there} log p(x_d | z)

    which is the marginal density of what is there, since the numbers are independent given z; that they are missing
    must not depend on what they would have been. Draws are of all numbers. A datum of which all is missing counts 0.
    The encoder needs to be told, too: see ``dlvm.nets.Filled``.

    Args:
        likelihood: a module from a context to a distribution with independent dimensions.

    Raises:
        TypeError: ``likelihood`` is no module; when called, it makes no distribution.
        ValueError: when called: its dimensions are not independent, so that leaving some out is no marginal.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets, Mattei, Frellsen, 2019,
            arXiv:1812.02633.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> likelihood = Missing(Bernoulli(nn.Linear(2, 3)))
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.full((5, 3), float("nan")))
        tensor([0., 0., 0., 0., 0.], grad_fn=<SumBackward1>)
    """

    def __init__(self, likelihood: nn.Module):
        super().__init__()
        module(likelihood=likelihood)
        self.likelihood = likelihood

    def forward(self, *context: Tensor, **settings: Tensor | None) -> dist.Distribution:
        whole = self.likelihood(*context, **settings)
        if not isinstance(whole, torch.distributions.Distribution):
            raise TypeError(f"likelihood must make a distribution, got {type(whole).__name__}; return one of Pyro's")
        single = inner(whole)
        if single.event_shape or not isinstance(whole, torch.distributions.Independent | type(single)):
            raise ValueError(
                f"likelihood makes a {type(single).__name__} of event shape {tuple(whole.event_shape)}, whose "
                "dimensions are not independent: what is left of its density is no marginal; for data with missing "
                "numbers take independent dimensions, as Normal or Bernoulli"
            )
        return PartlyObserved(single).to_event(len(whole.event_shape))


class SelfMasking(nn.Module):
    """Whether numbers are there, each for itself, by what they are: a mechanism that is not at random.

        p(mask | x) = prod_d Bernoulli(mask_d; sigmoid(bias_d + weight_d (x_d - loc_d) / scale_d))

    Where ``weight`` is 0, as at the start, numbers are missing at random.

    Args:
        dim: number of columns.
        rates: shape (dim,), how often each column is there, which sets the bias; a half unless told.
        units: of the data; loc 0 and scale 1 unless told.

    Raises:
        ValueError: ``dim`` is below 1, the rates do not lie between 0 and 1, or rates, units or, when called, x are of
            another number of columns.
        TypeError: ``rates`` is no tensor; when called, x is none.

    References:
        not-MIWAE: Deep Generative Modelling with Missing not at Random Data, Ipsen, Mattei, Frellsen, 2021,
            arXiv:2006.12871.

    Example:
        >>> SelfMasking(3)(torch.zeros(5, 3)).mean[0]
        tensor([0.5000, 0.5000, 0.5000], grad_fn=<SelectBackward0>)
    """

    def __init__(self, dim: int, rates: Tensor | None = None, units: Units | None = None):
        super().__init__()
        count(dim=dim)
        rates = torch.full((dim,), 0.5) if rates is None else rates
        if not isinstance(rates, Tensor):
            raise TypeError(f"rates must be a tensor of shape ({dim},), got {type(rates).__name__}; pass a tensor")
        if rates.shape != (dim,) or not bool(((rates >= 0) & (rates <= 1)).all()):
            raise ValueError(f"rates must be {dim} numbers between 0 and 1, got {rates}; pass mask.float().mean(0)")
        check_units(units, dim)
        self.units = units
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.logit(rates.detach().to(torch.get_default_dtype()), eps=1e-3))

    def forward(self, x: Tensor) -> dist.Distribution:
        """
        Args:
            x: shape (*batch, dim), all of it.

        Returns:
            of masks, event shape (dim,).
        """
        if tensor(x).shape[-1:] != self.weight.shape:
            raise ValueError(
                f"x must have {len(self.weight)} columns, got shape {tuple(x.shape)}; make SelfMasking of as many"
            )
        away = x if self.units is None else (x - self.units.loc) / self.units.scale
        logits = self.bias + self.weight * away
        return dist.Bernoulli(logits=logits).to_event(1)
