"""Priors of discrete latents: independent bits, and independent variables of several classes."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.bernoulli import IndependentBernoulli
from dlvm.distributions.categorical import OneHotDraws
from dlvm.nets.arguments import count, is_count


class BernoulliPrior(nn.Module):
    """Independent bits, fair or each with a learned probability.

        p(z) = prod_j Bernoulli(z_j; sigmoid(logits_j)),   logits = 0 at the start

    Args:
        dim: number of bits.
        learned: whether the logits are trained.

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Example:
        >>> BernoulliPrior(3)().mean
        tensor([0.5000, 0.5000, 0.5000])
    """

    logits: Tensor

    def __init__(self, dim: int, learned: bool = False):
        super().__init__()
        count(dim=dim)
        start(self, torch.zeros(dim), learned)

    def forward(self) -> dist.Distribution:
        return IndependentBernoulli(self.logits)


class CategoricalPrior(nn.Module):
    """Independent variables of K classes each, as one-hot vectors; all classes alike, or with learned probabilities.

        p(z) = prod_n softmax(logits_n)_k where z_nk = 1,   logits = 0 at the start

    Args:
        variables: how many there are, N; the event shape is (N, K).
        classes: of each, K, at least 2.
        learned: whether the logits are trained.

    Raises:
        ValueError: ``variables`` is below 1, or ``classes`` below 2.

    Example:
        >>> CategoricalPrior(20, 10)().sample().sum(-1).unique()
        tensor([1.])
    """

    logits: Tensor

    def __init__(self, variables: int, classes: int, learned: bool = False):
        super().__init__()
        count(variables=variables)
        if not is_count(classes, 2):
            raise ValueError(f"classes must be an integer of at least 2, got {classes!r}; one alone is constant")
        start(self, torch.zeros(variables, classes), learned)

    def forward(self) -> dist.Distribution:
        return OneHotDraws(logits=self.logits).to_event(1)


def start(prior: nn.Module, logits: Tensor, learned: bool) -> None:
    """Gives the prior its logits, to be trained or not."""
    if learned:
        prior.register_parameter("logits", nn.Parameter(logits))
    else:
        prior.register_buffer("logits", logits)
