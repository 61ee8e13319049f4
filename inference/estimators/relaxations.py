"""Relaxed draws of discrete sites: gradients through them are biased, and named so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.estimator import Estimator, differentiated, shown
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import in_parallel, weigh
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import real


class _Relaxation(Estimator):
    """What both have in common: a temperature, and the sites they can treat."""

    temperature: Tensor | float

    def __init__(self, temperature: float | Tensor = 0.5):
        super().__init__()
        if not isinstance(temperature, Tensor):
            real(temperature=temperature)
        held = torch.as_tensor(temperature)
        if held.dim() or held.is_complex() or not 0 < float(held) < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}; pass one number, as 0.5")
        if isinstance(temperature, Tensor):
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = temperature

    def extra_repr(self) -> str:
        return f"temperature={float(self.temperature):g}"

    def require(self, bound: Bound, particles: Particles) -> None:
        for site in (particles.parts or (particles,))[0].drawn:
            if not site["fn"].has_rsample and _logits(site["fn"]) is None:
                raise ValueError(
                    f"{type(self).__name__} cannot relax {site['name']!r} ({type(site['fn']).__name__}): only "
                    "Bernoulli and OneHotCategorical take values between their own; use OneHotCategorical for "
                    "classes, or estimator=VIMCO()"
                )


class GumbelSoftmax(_Relaxation):
    """The Gumbel-softmax (Concrete) relaxation: biased.

        soft = softmax((logits + Gumbel noise) / temperature)

    The gradient is that of the bound at soft draws, with log p and log q extended linearly in the one-hot value; the
    bound that is reported is at hard ones, so that two runs of both programs make a step. Bias vanishes, and variance
    grows, as the temperature goes to 0. Sites that can be reparametrised get the total derivative.

    Args:
        temperature: positive; a 0-d tensor can be annealed in place.

    Raises:
        ValueError: ``temperature`` is not positive; when used, a discrete site is neither Bernoulli nor one-hot.

    References:
        Categorical Reparameterization with Gumbel-Softmax, Jang, Gu, Poole, 2017, arXiv:1611.01144.
        The Concrete Distribution, Maddison, Mnih, Teh, 2017, arXiv:1611.00712.
    """

    def draw(self, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        with torch.no_grad():
            return super().draw(bound, num_particles, pair, args, kwargs)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        program, layout = particles.programs, particles.layout
        pair = program.pair.inside(_Relax(self.temperature, hard=False))
        nesting, parallel = layout.nesting, not particles.parts
        calls = program.args, program.kwargs, layout.num_particles
        relaxed = weigh(pair, *calls, linear=True, nesting=nesting, parallel=parallel)
        factors = {name: term._replace(factor=particles.terms[name].factor) for name, term in relaxed.terms.items()}
        return differentiated(bound, relaxed.changed(factors), None)


class StraightThrough(_Relaxation):
    """The straight-through Gumbel-softmax estimator: biased.

    Values are those of hard draws, and gradients those of soft ones, see ``GumbelSoftmax``.

    Args, Raises: see ``GumbelSoftmax``.

    References:
        Estimating or Propagating Gradients Through Stochastic Neurons, Bengio, Leonard, Courville, 2013,
        arXiv:1308.3432.
        Categorical Reparameterization with Gumbel-Softmax, Jang, Gu, Poole, 2017, arXiv:1611.01144.
    """

    def draw(self, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        nesting = parallel = None
        if num_particles > 1:
            nesting = pair.nesting(args, kwargs)
            parallel = in_parallel(pair, args, kwargs, linear=bound.linear)
        pair = pair.inside(_Relax(self.temperature, hard=True))
        return weigh(pair, args, kwargs, num_particles, linear=bound.linear, nesting=nesting, parallel=parallel)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        return differentiated(bound, particles, value)


class _Relax(Messenger):
    """Sites that can be relaxed are, inside."""

    def __init__(self, temperature: float | Tensor, hard: bool):
        super().__init__()
        self.temperature, self.hard = temperature, hard

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if not msg["is_observed"] and not getattr(fn, "has_rsample", True) and _logits(fn) is not None:
            msg["fn"] = _Relaxed(fn, self.temperature, self.hard)


class _Relaxed(dist.TorchDistribution):
    """A Bernoulli or one-hot distribution that is drawn softly and scored linearly in the value."""

    arg_constraints: dict = {}
    has_rsample = True

    def __init__(self, fn: dist.TorchDistribution, temperature: float | Tensor, hard: bool):
        self.fn, self.temperature, self.hard = fn, temperature, hard
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    @property
    def _known(self) -> tuple[Tensor, bool]:
        return cast(tuple[Tensor, bool], _logits(self.fn))  # only such sites are relaxed

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: _Relaxed | None = None) -> _Relaxed:
        return _Relaxed(self.fn.expand(batch_shape), self.temperature, self.hard)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        logits, binary = self._known
        u = torch.rand(torch.Size(sample_shape) + logits.shape, dtype=logits.dtype, device=logits.device)
        u = u.clamp(torch.finfo(u.dtype).tiny, 1 - torch.finfo(u.dtype).eps)
        if binary:
            noisy = logits + u.log() - torch.log1p(-u)
            soft, hard = torch.sigmoid(noisy / self.temperature), (noisy > 0).to(logits)
        else:
            noisy = logits - (-u.log()).log()
            soft = (noisy / self.temperature).softmax(-1)
            hard = F.one_hot(noisy.argmax(-1), logits.shape[-1]).to(logits)
        return shown(hard, soft) if self.hard else soft

    def log_prob(self, value: Tensor) -> Tensor:
        logits, binary = self._known
        if binary:
            return sum_rightmost(value * logits - F.softplus(logits), len(self.event_shape))
        return sum_rightmost(value * logits.log_softmax(-1), len(self.event_shape))


def _logits(fn: dist.TorchDistribution) -> tuple[Tensor, bool] | None:
    """Logits of the whole event, and whether they are of binary variables; None for other distributions."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    binary = isinstance(fn, torch.distributions.Bernoulli)
    if binary or isinstance(fn, torch.distributions.OneHotCategorical):
        return fn.logits, binary
    return None
