"""The evidence lower bound with K averaged particles."""

from __future__ import annotations

from dlvm.inference.bounds.bound import mean_bound
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.estimators.pathwise import Total
from dlvm.inference.estimators.score_function import VIMCO, ScoreFunction
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.analytic_kl import with_analytic_kl
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair


class ELBO(Objective):
    """The evidence lower bound.

        E_q 1/K sum_k log w_k = log p(x) - KL(q(z | x) || p(z | x))

    A lower bound on log p(x). Particles lower the variance, not the gap.

    Args:
        num_particles: K.
        estimator: of the gradient, see ``Objective``.
        analytic_kl: take each site's KL in closed form where that is proved to be right and a formula is known; the
            other sites keep their Monte Carlo estimate, and ``check`` and ``fit`` say which.
        strict: raise instead of keeping a Monte Carlo estimate.

    Raises:
        ValueError: ``strict`` without ``analytic_kl``; ``analytic_kl`` with an estimator that takes the density of
            draws apart (STL, DReG); when used, a site without an analytic KL under ``strict``.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, sections 2.2 and 2.7, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> ELBO(2).bound(torch.tensor([[0.0], [1.0]]))
        tensor([0.5000])
    """

    def __init__(
        self,
        num_particles: int = 1,
        estimator: Estimator | None = None,
        analytic_kl: bool = False,
        strict: bool = False,
    ):
        if strict and not analytic_kl:
            raise ValueError("strict=True is about analytic KLs; pass analytic_kl=True as well")
        if analytic_kl and not isinstance(estimator, Total | ScoreFunction | VIMCO | None):
            raise ValueError(
                f"analytic_kl=True leaves no sampled log q for {estimator!r} to take apart; use estimator=Total(), "
                "ScoreFunction() or VIMCO()"
            )
        self.analytic_kl, self.strict = analytic_kl, strict
        super().__init__(mean_bound(), num_particles, estimator)

    def _settings(self) -> list[str]:
        said = [f"{name}=True" for name in ("analytic_kl", "strict") if getattr(self, name)]
        return [*super()._settings(), *said]

    def draw(self, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        particles = super().draw(pair, args, kwargs)
        return with_analytic_kl(particles, self.strict) if self.analytic_kl else particles
