"""How a bound is differentiated: the interface, and the estimators that go through the draws."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair

SMALLEST = 1e-20


class Coefficients(NamedTuple):
    """What each particle's derivatives are multiplied by in a gradient; each of shape (num_particles, batch).

        d theta: sum_k model_k d log p(x, z_k) / d theta
        d phi:   sum_k path_k (d log w_k / d z_k) (d z_k / d phi) + (score_k - path_k) d log q(z_k) / d phi
                 + jump_k d log q(jumps_k) / d phi

    ``score = path`` takes away what the parameters of q do to log q at fixed z; ``score = None`` leaves it in, as
    differentiating the weights does. ``path = None`` lets nothing through the draws. ``jumps`` are the sites that
    cannot be reparametrised. ``model = None`` gives parameters of the model no gradient. ``extra``, a 0-d tensor, is to
    be maximised beside: the prediction of a baseline.
    """

    model: Tensor | None
    path: Tensor | None
    score: Tensor | None = None
    jump: Tensor | None = None
    extra: Tensor | None = None


@runtime_checkable
class Explicit(Protocol):
    """An estimator whose gradient is made of coefficients, and can be taken apart."""

    def coefficients(self, bound: Bound, particles: Particles) -> Coefficients:
        """What the particles' derivatives are multiplied by in the gradient of a bound that is raised."""


class Estimator(nn.Module):
    """A rule for the gradient of a bound.

    Subclasses define ``coefficients(bound, particles) -> Coefficients``, from which any bound's gradient is assembled.
    One whose gradient is not made of coefficients, a relaxation for instance, defines ``surrogate`` in their place; it
    cannot be used where a gradient is taken apart: in ``Separate``, and under an upper bound.

    Attributes:
        detached: whether draws are constants to all that follows.
    """

    detached = False

    def accept(self, bound: Bound, num_particles: int) -> None:
        """Raises ValueError where this estimator is not defined for a bound of so many particles."""

    def require(self, bound: Bound, particles: Particles) -> None:
        """Raises ValueError where this estimator cannot treat what was drawn."""
        if particles.jumps and not self.detached:
            site = particles.jumps[0]
            raise ValueError(
                f"{bound.name} with {self!r} differentiates through the latent sites, but "
                f"{site['name']!r} ({type(site['fn']).__name__}) cannot be reparametrised; pass "
                "estimator=ScoreFunction() or VIMCO(), or sum the site out with TraceEnum_ELBO"
            )

    def draw(self, bound: Bound, num_particles: int, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        """The particles that the bound and its gradient are computed from."""
        return weigh(pair, args, kwargs, num_particles, detached=self.detached, linear=bound.linear)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        """A 0-d tensor whose gradient is this estimate of that of the bound, summed over data and scaled.

        Args:
            bound: what is raised.
            particles: what was drawn.
            value: the bound itself, summed over data and scaled, if it is known.
        """
        if not isinstance(self, Explicit):
            raise NotImplementedError(f"{type(self).__name__} must define coefficients(bound, particles)")
        return assemble(self.coefficients(bound, particles), particles)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def differentiated(bound: Bound, particles: Particles, value: Tensor | None) -> Tensor:
    """The bound as it stands, summed over data and scaled: its gradient is the total derivative."""
    return particles.total(bound(particles.log_w)) if value is None else value


def assemble(found: Coefficients, particles: Particles) -> Tensor:
    """A 0-d tensor with the gradient that the coefficients say, summed over data and scaled."""
    total: Tensor | float = 0.0 if found.model is None else _through_model(found.model, found.path, particles)
    if found.path is not None:
        total = total - (found.path * particles.log_q).sum(0)
    if found.score is not None:
        log_q = particles.log_q if particles.detached else particles.log_q_at_fixed_values()
        total = total + (found.score * log_q).sum(0)
    if found.jump is not None:
        total = total + (found.jump * particles.jump_log_q()).sum(0)
    total = particles.total(torch.as_tensor(total))
    if found.model is None and found.path is not None:
        total = total + _path_alone(found.path, particles)
    return total if found.extra is None else total + found.extra


def _through_model(model: Tensor, path: Tensor | None, particles: Particles) -> Tensor:
    """What log p(x, z) adds to the gradient of the model's parameters, and of the guide's through draws; (batch,)."""
    if path is not None and path is not model:
        model = torch.where(model.abs() < SMALLEST, SMALLEST, model)
        for value, factor in particles.by_value(path / model):
            value.register_hook(partial(torch.mul, factor))
    return (model * particles.log_p).sum(0)


def _path_alone(path: Tensor, particles: Particles) -> Tensor | float:
    """sum_k path_k (d log p / d z_k) z_k with the derivative held constant, a 0-d tensor, scaled; 0 without draws."""
    pairs = particles.by_value(path * particles.scale)
    values = [value for value, _ in pairs]
    found = torch.autograd.grad(particles.log_p.sum(), values, allow_unused=True) if values else ()
    slopes = zip(pairs, found, strict=True)
    return sum((value * factor * slope).sum() for (value, factor), slope in slopes if slope is not None)


def shown(value: Tensor, trained: Tensor) -> Tensor:
    """``value``, differentiated as if it were ``trained``; both of one shape.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> y = shown(torch.tensor(1.0), x.square())
        >>> y.item(), torch.autograd.grad(y, x)[0].item()
        (1.0, 6.0)
    """
    return _Shown.apply(trained, value.detach())


class _Shown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trained: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
