"""The filtering variational objective: a bound by a particle filter, for programs over sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlvm.inference.bounds.bound import power_bound
from dlvm.inference.estimators.estimator import Coefficients
from dlvm.inference.objectives.objective import Fixed, Objective
from dlvm.inference.particles.filtering import Filtered, run_filter
from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.resampling import Resampling
from dlvm.inference.particles.stepwise import steps_of
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import is_count


@dataclass(frozen=True)
class FilteredParticles(Particles):
    """Particles of a filter, whose log-weights are of whole sequences, with all that the filter found."""

    filtered: Filtered | None = None


class FIVO(Objective):
    """The filtering variational objective, which is also called AESMC, and VSMC.

        E log p^(x_1..x_T) <= log p(x_1..x_T),   p^(x) = prod_t 1/K sum_k w_kt,   E p^(x) = p(x)

    A lower bound on log p(x), by a particle filter that draws from the guide and resamples; ``IWAE`` is the filter
    that never does. Its particles go out as exp of a sequence's length, those of a filter do not: the longer the
    sequences, the tighter it is beside IWAE of as many particles.

    The gradient goes through the draws and their weights; which particles are copied is taken for constant, as all
    three papers do: the gradient is biased, and has far less noise. With ``score`` that part is added, by the score
    function: of multinomial draws before every step it is then unbiased. Continuous latents only. The program and its
    guide must have steps, see ``Stepwise``: a chain that is one site has them by itself.

    Args:
        num_particles: K.
        resampling: when particles are drawn anew, and how; ``Resampling()`` unless told.
        score: whether the gradient has the score of the ancestors as well.
        truncate: cut gradients through states after so many steps, as truncated back-propagation through time does:
            what a step does to steps further ahead is left out of the gradient, and memory and value stay the same.
            Never unless told.

    Raises:
        ValueError: ``num_particles`` or ``truncate`` is no positive integer; ``score`` with draws that are not
            multinomial before every step; when used, a latent site cannot be reparametrised, or a program has no steps
            or ones of another density than its own.
        TypeError: ``resampling`` is none.

    References:
        Filtering Variational Objectives, Maddison, Lawson, Tucker, Heess, Norouzi, Mnih, Doucet, Teh, 2017,
            arXiv:1705.09279.
        Auto-Encoding Sequential Monte Carlo, Le, Igl, Rainforth, Jin, Wood, 2018, arXiv:1705.10306.
        Variational Sequential Monte Carlo, Naesseth, Linderman, Ranganath, Blei, 2018, arXiv:1705.11140.

    Example:
        >>> from dlvm.models import LinearGaussianSSM
        >>> model, x = LinearGaussianSSM(1, 2), torch.zeros(3, 5, 2)
        >>> FIVO(10).loss(model, model.guide, x) < 100
        True
    """

    resampling, score, truncate = Fixed(), Fixed(), Fixed()
    apart = False

    def __init__(
        self,
        num_particles: int = 8,
        resampling: Resampling | None = None,
        score: bool = False,
        truncate: int | None = None,
    ):
        if not isinstance(resampling, Resampling | None):
            raise TypeError(f"resampling must be a Resampling, as Resampling(below=0.5), got {resampling!r}")
        resampling = Resampling() if resampling is None else resampling
        if score and resampling != Resampling("multinomial", 1.0):
            raise ValueError(
                "score=True is the whole gradient of multinomial draws before every step alone; pass "
                f"resampling=Resampling('multinomial', below=1.0), got {resampling!r}"
            )
        if truncate is not None and not is_count(truncate):
            raise ValueError(f"truncate must be a positive integer, a number of steps, or None, got {truncate!r}")
        self.resampling, self.score, self.truncate = resampling, bool(score), truncate
        super().__init__(power_bound(1.0), num_particles)

    def _settings(self) -> list[str]:
        said = [*super()._settings(), f"resampling={self.resampling!r}"]
        more = ("score=True", self.score), (f"truncate={self.truncate}", self.truncate is not None)
        return [*said, *(text for text, told in more if told)]

    def draw(self, pair: Pair, args: tuple, kwargs: dict) -> Particles:
        with torch.no_grad():  # says where data stand, and what they are scaled by
            alone = weigh(pair, args, kwargs, 1)
        model, guide = steps_of(pair, args, kwargs)
        found = run_filter(model, guide, self.num_particles, self.resampling, self.truncate)
        return FilteredParticles(
            log_likelihood=found.log_w,
            terms={},
            layout=alone.layout._replace(num_particles=self.num_particles),
            joint=alone.joint,
            drawn=alone.drawn,
            programs=alone.programs,
            kl=alone.kl,
            shared=alone.shared,
            filtered=found,
        )

    def coefficients(self, particles: Particles) -> Coefficients | None:
        """None: weights of one step are not of one particle."""
        return None

    def surrogate(self, particles: Particles, value: Tensor | None = None) -> Tensor:
        value = particles.total(self.value(particles)) if value is None else value
        if not self.score or not isinstance(particles, FilteredParticles) or particles.filtered is None:
            return value
        return value + particles.total(particles.filtered.resampling_score)
