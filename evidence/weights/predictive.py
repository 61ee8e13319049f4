"""log p(x' | D) of new data: over draws of the weights, with the error that these make together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import pyro
import torch
from torch import Tensor

from dlvm.evidence.estimate import Estimate
from dlvm.evidence.weights.posterior_predictive import draw_weights, posterior_predictive
from dlvm.guides.with_globals import WithGlobals
from dlvm.inference.bounds.importance import log_mean_exp
from dlvm.inference.particles.row_weights import refuse_impossible, refuse_nan, weigh_rows
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import own
from dlvm.models.bayesian import Bayesian
from dlvm.nets.arguments import count

ROWS = 1000


@dataclass(frozen=True)
class Predictive(Estimate):
    """log p(x' | D) of every datum; as an ``Estimate``, but for what all data share: the draws of the weights.

    Attributes:
        log_p: log p(x' | w_s) of each draw and datum, shape (num_weights, num_data), nats.
    """

    log_p: Tensor | None = None

    @property
    def mean_se(self) -> float:
        """Monte Carlo standard error of ``mean`` over draws of weights and latents: the errors of data go together.

        With S draws, sd_s [ 1/N sum_n p_sn / mean_s p_sn ] / sqrt(S).
        """
        if self.log_p is None or len(self.log_p) < 2:
            return math.nan
        shares = (self.log_p - self.log_px).exp().mean(1)
        return (shares.std() / math.sqrt(len(shares))).item()

    @property
    def expected(self) -> float:
        """E_q(w) log p(x' | w), mean over data: the mean of single draws, which the prediction is above."""
        return math.nan if self.log_p is None else self.log_p.mean().item()


@torch.no_grad()
def predictive(
    model: Bayesian,
    guide: WithGlobals,
    data: Tensor | Iterable,
    num_weights: int = 50,
    num_particles: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> Predictive:
    """Estimates log p(x' | D) of data to come by draws of the weights, the same for all data.

        log p(x' | D) ~ log 1/S sum_s 1/K sum_k p(x', z_sk | w_s) / q(z_sk | x'),   w_s ~ q(w), z_sk ~ q(z | x')

    A lower bound in expectation, twice: by the logarithm of a mean of few draws, which ``log_px_bias`` puts a number
    to, and of E_q(w) p(x' | w), the prediction of q(w); where q(w) is not the posterior, that is neither above nor
    below the posterior's own. Each datum is predicted by itself, given D and none of the others.

    Returns:
        a ``Predictive``.

    Args:
        model: with random weights.
        guide: of its weights and of what each datum has of its own, as trained.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        num_weights: S, at least 2 for standard errors.
        num_particles: K per datum and draw; without latents of each datum there is nothing to draw, and it counts not.
        seed, progress: see ``evaluate``.

    Raises:
        TypeError: ``model`` is no ``Bayesian``, or ``guide`` no ``WithGlobals``.
        ValueError: a number is below 1, there are no data, or they lie outside the likelihood's support.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 1.6.3, arXiv:1906.02691.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(torch.nn.Linear(4, 3))), num_data=5)
        >>> batch = torch.zeros(5, 4), torch.zeros(5).long()
        >>> guide = WithGlobals(None, model, AutoNormal, *batch)
        >>> predictive(model, guide, [batch], num_weights=3).log_p.shape
        torch.Size([3, 5])
    """
    count(num_weights=num_weights, num_particles=num_particles)
    drawn, local = posterior_predictive(model, guide)
    outside, pair = Pair(drawn, guide), Pair(model.model, local)
    weights: list[dict[str, Tensor]] = []
    found: list[Tensor] = []

    def work(part: tuple, tick: Tick) -> None:
        if not weights:
            weights.extend(draw_weights(model, own(guide.shared), part) for _ in range(num_weights))
        log_p = []
        for draw, held in enumerate(weights):
            with model.holding(held):
                if not draw:
                    check_rows(pair, part, {})
                with pyro.validation_enabled(False):  # the data were held against the likelihood just now
                    particles = weigh_rows(pair, part, num_particles if guide.local is not None else 1)
            refuse_nan(particles.log_w)
            refuse_impossible(particles.log_likelihood)
            log_p.append(log_mean_exp(particles.log_w.double()))
            tick(1 / num_weights)
        found.append(torch.stack(log_p))

    walked = walk(
        data, outside, max(1, ROWS // num_particles) if guide.local is not None else ROWS, work, seed, progress
    )
    log_p = torch.cat(found, 1)
    plain = Estimate.of_weights("draws of the weights", log_p)
    known = {field.name: getattr(plain, field.name) for field in fields(plain)}
    return Predictive(**known | {"seconds": walked.seconds, "asked": walked.asked, "log_p": log_p})
