"""Soft draws of discrete sites, between their values, and the noise behind hard ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from dlvm.inference.estimators.estimator import shown


class Relax(Messenger):
    """Sites that can be relaxed are, inside."""

    def __init__(self, temperature: float | Tensor, hard: bool, num_samples: int = 0):
        super().__init__()
        self.how = temperature, hard, num_samples

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if not msg["is_observed"] and not getattr(fn, "has_rsample", True) and logits_of(fn) is not None:
            msg["fn"] = _Relaxed(fn, *self.how)


class _Relaxed(dist.TorchDistribution):
    """A Bernoulli or one-hot distribution that is drawn softly and scored linearly in the value.

    With ``num_samples``, hard draws have the mean gradient over so many noises that lead to them.
    """

    arg_constraints: dict = {}
    has_rsample = True

    def __init__(self, fn: dist.TorchDistribution, temperature: float | Tensor, hard: bool, num_samples: int):
        self.fn, self.temperature, self.hard, self.num_samples = fn, temperature, hard, num_samples
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    @property
    def _known(self) -> tuple[Tensor, bool]:
        return cast(tuple[Tensor, bool], logits_of(self.fn))  # only such sites are relaxed

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: _Relaxed | None = None) -> _Relaxed:
        return _Relaxed(self.fn.expand(batch_shape), self.temperature, self.hard, self.num_samples)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        logits, binary = self._known
        u = _uniform(torch.Size(sample_shape) + logits.shape, logits)
        if binary:
            noisy = logits + u.log() - torch.log1p(-u)
            hard = (noisy > 0).to(logits)
        else:
            noisy = logits - (-u.log()).log()
            hard = F.one_hot(noisy.argmax(-1), logits.shape[-1]).to(logits)
        if self.num_samples:
            again = noisy_behind(hard, logits.detach(), binary, self.num_samples)
            soft = soft_value(shown(again, logits.expand_as(again)), self.temperature, binary).mean(0)
        else:
            soft = soft_value(noisy, self.temperature, binary)
        return shown(hard, soft) if self.hard else soft

    def log_prob(self, value: Tensor) -> Tensor:
        logits, binary = self._known
        if binary:
            found = _share(value, F.logsigmoid(logits)) + _share(1 - value, F.logsigmoid(-logits))
        else:
            found = _share(value, logits.log_softmax(-1))
        return sum_rightmost(found, len(self.event_shape))


def _share(value: Tensor, log_p: Tensor) -> Tensor:
    """value log p, and 0 with no slope where both are certain."""
    return value * log_p.masked_fill((value == 0) & (log_p == -torch.inf), 0.0)


def soft_value(noisy: Tensor, temperature: Tensor | float, binary: bool) -> Tensor:
    """Values between those of bits or classes, made of noisy logits."""
    most = 1e-6 * torch.finfo(noisy.dtype).max  # of an infinite one the slope in the temperature is no number
    noisy = noisy.clamp(-most, most)
    return torch.sigmoid(noisy / temperature) if binary else (noisy / temperature).softmax(-1)


def noisy_behind(hard: Tensor, logits: Tensor, binary: bool, count: int) -> Tensor:
    """Draws of noisy logits, with logistic or Gumbel noise, that hard values came from: (count, *hard.shape).

    Of a bit, +-log(1 + e^logistic (1 + e^+-logits)); of classes, with logits that are log-probabilities, the chosen
    one's is -log E, and the others' -log(E + E_i / p_i), by exponential numbers E.
    """
    u = _uniform((count, *hard.shape), logits)
    if binary:
        sign = 2 * hard - 1
        return sign * F.softplus(u.log() - torch.log1p(-u) + F.softplus(sign * logits))
    log_p, log_e = logits.log_softmax(-1), (-u.log()).log()
    chosen = (log_e * hard).sum(-1, keepdim=True)
    return -torch.where(hard == 1, chosen, torch.logaddexp(chosen, log_e - log_p))


def _uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    """Numbers strictly between 0 and 1."""
    u = torch.rand(tuple(shape), dtype=like.dtype, device=like.device)
    return u.clamp(torch.finfo(u.dtype).tiny, 1 - torch.finfo(u.dtype).eps)


def logits_of(fn: dist.TorchDistribution) -> tuple[Tensor, bool] | None:
    """Logits of the whole event, and whether they are of binary variables; None for other distributions."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    binary = isinstance(fn, torch.distributions.Bernoulli)
    if binary or isinstance(fn, torch.distributions.OneHotCategorical):
        return fn.logits, binary
    return None
