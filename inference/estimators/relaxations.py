"""Relaxed draws of discrete sites: gradients through them are biased, and named so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.estimator import Estimator, differentiated
from dlvm.inference.estimators.soft_draws import Relax, logits_of
from dlvm.inference.estimators.soft_sites import jump
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import in_parallel, weigh
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import is_count, real

LOST = 0.5  # of what soft draws change of a log-density, above which it is no gradient of it


class _Relaxation(Estimator):
    """What all have in common: a temperature, and the sites they can treat."""

    temperature: Tensor | float

    def __init__(self, temperature: float | Tensor = 0.5):
        super().__init__()
        check_temperature(temperature)
        if isinstance(temperature, Tensor):
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = temperature

    def extra_repr(self) -> str:
        return f"temperature={float(self.temperature):g}"

    def require(self, bound: Bound, particles: Particles) -> None:
        check_relaxable(type(self).__name__, particles)


def check_temperature(temperature: float | Tensor) -> None:
    """Raises ValueError unless it is one positive number."""
    if not isinstance(temperature, Tensor):
        real(temperature=temperature)
    held = torch.as_tensor(temperature)
    if held.dim() or held.is_complex() or not 0 < float(held) < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}; pass one number, as 0.5")


def check_relaxable(estimator: str, particles: Particles) -> None:
    """Raises ValueError where a discrete site has no values between its own."""
    for site in (particles.parts or (particles,))[0].drawn:
        if not site["fn"].has_rsample and logits_of(site["fn"]) is None:
            raise ValueError(
                f"{estimator} cannot relax {site['name']!r} ({type(site['fn']).__name__}): only Bernoulli and "
                "OneHotCategorical take values between their own; use OneHotCategorical for classes, or "
                "estimator=VIMCO()"
            )


def check_felt(estimator: str, pair: Pair, args: tuple, kwargs: dict) -> None:
    """Raises ValueError where most of what soft draws change of a log-density has no slope: nothing is learnt of it."""
    if (share := jump(pair, args, kwargs)) > LOST:
        raise ValueError(
            f"{estimator} would train the guide without {100 * share:.0f} % of what its draws change of a log-density: "
            "a program rounds, compares, detaches or takes the argmax of them, and passes no gradient on; write it in "
            "the values themselves, as z @ table, or pass estimator=DisARM() or VIMCO()"
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
        ValueError: ``temperature`` is not positive; when used, a discrete site is neither Bernoulli nor one-hot, or
            most of what soft draws change has no slope, as where a program compares them.

    References:
        Categorical Reparameterization with Gumbel-Softmax, Jang, Gu, Poole, 2017, arXiv:1611.01144.
        The Concrete Distribution, Maddison, Mnih, Teh, 2017, arXiv:1611.00712.
    """

    def draw(self, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        check_felt(type(self).__name__, pair, args, kwargs)
        with torch.no_grad():
            return super().draw(bound, num_particles, pair, args, kwargs)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        program, layout = particles.programs, particles.layout
        pair = program.pair.inside(Relax(self.temperature, hard=False))
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
        check_felt(type(self).__name__, pair, args, kwargs)
        return _drawn_hard(Relax(self.temperature, hard=True), bound, num_particles, pair, args, kwargs)

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
        check_felt(type(self).__name__, pair, args, kwargs)
        relax = Relax(self.temperature, hard=True, num_samples=self.num_samples)
        return _drawn_hard(relax, bound, num_particles, pair, args, kwargs)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        return differentiated(bound, particles, value)


def _drawn_hard(relax: Relax, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
    nesting = parallel = None
    if num_particles > 1:
        nesting = pair.nesting(args, kwargs)
        parallel = in_parallel(pair, args, kwargs, linear=bound.linear)
    pair = pair.inside(relax)
    return weigh(pair, args, kwargs, num_particles, linear=bound.linear, nesting=nesting, parallel=parallel)
