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
from dlvm.nets.arguments import is_count, real


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
        return _drawn_hard(_Relax(self.temperature, hard=True), bound, num_particles, pair, args, kwargs)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        return differentiated(bound, particles, value)


class GumbelRao(_Relaxation):
    """The Rao-Blackwellised straight-through Gumbel-softmax estimator: biased as ``StraightThrough``, with less noise.

        d hard = mean_m d softmax((logits + noise_m) / temperature),   noise_m ~ p(noise | hard)

    Values are those of hard draws. Soft ones are averaged over the noise that could have led to them, whose gradient
    has the same mean, and never more variance. Programs run once, whatever ``num_samples`` is.

    Args:
        temperature: see ``GumbelSoftmax``.
        num_samples: of the noise for each draw.

    Raises:
        ValueError: ``num_samples`` is not a positive integer; else see ``GumbelSoftmax``.

    References:
        Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator, Paulus, Maddison, Krause, 2021,
        arXiv:2010.04838.
    """

    def __init__(self, temperature: float | Tensor = 0.5, num_samples: int = 10):
        super().__init__(temperature)
        if not is_count(num_samples):
            raise ValueError(f"num_samples must be a positive integer, got {num_samples!r}")
        self.num_samples = int(num_samples)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_samples={self.num_samples}"

    def draw(self, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        relax = _Relax(self.temperature, hard=True, num_samples=self.num_samples)
        return _drawn_hard(relax, bound, num_particles, pair, args, kwargs)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        return differentiated(bound, particles, value)


def _drawn_hard(relax: _Relax, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
    nesting = parallel = None
    if num_particles > 1:
        nesting = pair.nesting(args, kwargs)
        parallel = in_parallel(pair, args, kwargs, linear=bound.linear)
    pair = pair.inside(relax)
    return weigh(pair, args, kwargs, num_particles, linear=bound.linear, nesting=nesting, parallel=parallel)


class _Relax(Messenger):
    """Sites that can be relaxed are, inside."""

    def __init__(self, temperature: float | Tensor, hard: bool, num_samples: int = 0):
        super().__init__()
        self.how = temperature, hard, num_samples

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if not msg["is_observed"] and not getattr(fn, "has_rsample", True) and _logits(fn) is not None:
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
        return cast(tuple[Tensor, bool], _logits(self.fn))  # only such sites are relaxed

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
            again = noise_behind(hard, logits.detach(), binary, self.num_samples)
            soft = self._soft(logits + again, binary).mean(0)
        else:
            soft = self._soft(noisy, binary)
        return shown(hard, soft) if self.hard else soft

    def _soft(self, noisy: Tensor, binary: bool) -> Tensor:
        return torch.sigmoid(noisy / self.temperature) if binary else (noisy / self.temperature).softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        logits, binary = self._known
        if binary:
            return sum_rightmost(value * logits - F.softplus(logits), len(self.event_shape))
        return sum_rightmost(value * logits.log_softmax(-1), len(self.event_shape))


def noise_behind(hard: Tensor, logits: Tensor, binary: bool, count: int) -> Tensor:
    """Draws of the noise, logistic or Gumbel, by which logits came to hard values: (count, *hard.shape).

    Of a bit, logits + noise = +-log(1 + e^logistic (1 + e^+-logits)); of classes, the chosen one's is -log E, and the
    others' -log(E + E_i / p_i), by exponential numbers E.
    """
    u = _uniform((count, *hard.shape), logits)
    if binary:
        sign = 2 * hard - 1
        return sign * F.softplus(u.log() - torch.log1p(-u) + F.softplus(sign * logits)) - logits
    log_p, log_e = logits.log_softmax(-1), (-u.log()).log()
    chosen = (log_e * hard).sum(-1, keepdim=True)
    return -torch.where(hard == 1, chosen, torch.logaddexp(chosen, log_e - log_p)) - log_p


def _uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    """Numbers strictly between 0 and 1."""
    u = torch.rand(tuple(shape), dtype=like.dtype, device=like.device)
    return u.clamp(torch.finfo(u.dtype).tiny, 1 - torch.finfo(u.dtype).eps)


def _logits(fn: dist.TorchDistribution) -> tuple[Tensor, bool] | None:
    """Logits of the whole event, and whether they are of binary variables; None for other distributions."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    binary = isinstance(fn, torch.distributions.Bernoulli)
    if binary or isinstance(fn, torch.distributions.OneHotCategorical):
        return fn.logits, binary
    return None
