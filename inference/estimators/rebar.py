"""REBAR: the score function with a relaxation as its control variate, unbiased, with parameters fitted as it goes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.coupled import depths, without_scores
from dlvm.inference.estimators.estimator import Estimator, differentiated
from dlvm.inference.estimators.relaxations import check_relaxable, check_temperature
from dlvm.inference.estimators.soft_sites import Soft, jump, relaxed, soft_sites
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real

MOST = 0.02  # of the change of log-weights that slopes may leave over


class REBAR(Estimator):
    """REBAR: the score of discrete draws, less what a relaxation of the same draws knows of it.

        d logits: sum_k (L(b) - L_{-k}(b)) s_k - eta [(L(w) - L_{-k}(w)) s_k - r_k dL(w) / d noisy_k],
        w = soft(noisy / temperature),   noisy ~ p(noisy | b),   s = d log q(b) / d logits

    b are hard draws and w the soft ones that the noise behind b leads to; r is by how much more noisy logits follow the
    logits when noise is held than when b is, e^(noisy_i - max noisy) for classes. What is in brackets has mean zero,
    so that the estimate is unbiased for every bound, temperature and eta, where log-densities are continuous in w: a
    program that rounds or compares its draws is refused. L_{-k} is VIMCO's baseline, for two particles or more. eta,
    one number, is the one that earlier steps would have had least variance with, summed over logits; the temperature
    follows the gradient of that variance, by the optimizer that trains the pair, as a baseline does. Where the guide
    draws one discrete site from another, each depth is relaxed with all that is drawn from it: one run of both programs
    more for each. Sites that can be reparametrised get the total derivative.

    Args:
        temperature: positive; a number is where it starts, a 0-d tensor stays as it is and can be annealed in place.
        decay: weight of the past in eta, at least 0 and below 1.

    Raises:
        ValueError: ``temperature`` is not positive, or ``decay`` out of range; when used, a discrete site is neither
            Bernoulli nor OneHotCategorical, or densities jump as a soft draw moves.

    References:
        REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models, Tucker, Mnih, Maddison,
        Lawson, Sohl-Dickstein, 2017, arXiv:1703.07370.
        Backpropagation through the Void: Optimizing control variates for black-box gradient estimation, Grathwohl,
        Choi, Wu, Roeder, Duvenaud, 2018, arXiv:1711.00123.
    """

    shared: Tensor
    spread: Tensor
    held: Tensor | None

    def __init__(self, temperature: float | Tensor = 0.5, decay: float = 0.99):
        super().__init__()
        check_temperature(temperature)
        real(decay=decay)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.start, self.decay = float(temperature), decay
        self.register_buffer("held", temperature if isinstance(temperature, Tensor) else None)
        if self.held is None:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("shared", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spread", torch.zeros((), dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"temperature={self.start:g}, decay={self.decay:g}"

    @property
    def temperature(self) -> Tensor:
        """Of the soft draws, a 0-d tensor."""
        return self.log_temperature.exp() if self.held is None else self.held

    @property
    def eta(self) -> Tensor:
        """How much of the control variate is taken off, a 0-d tensor: 1 before the first step."""
        return torch.where(self.spread > 0, self.shared / self.spread, 1.0)

    def require(self, bound: Bound, particles: Particles) -> None:
        check_relaxable(type(self).__name__, particles)
        programs = particles.programs
        if particles.jumps and (share := jump(programs.pair, programs.args, programs.kwargs)) > MOST:
            names = [site["name"] for site in particles.jumps]
            raise ValueError(
                f"a log-density jumps where soft draws of {names} move, by {100 * share:.0f} % of what it changes by: "
                "a program rounds, compares, detaches or takes the argmax of them, and the estimate would be biased; "
                "write it in the values themselves, as z @ table, or pass estimator=DisARM() or VIMCO()"
            )

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        if not particles.jumps:
            return differentiated(bound, particles, value)
        total, eta = without_scores(bound, particles, value), self.eta
        signal, trained = _signals(bound, particles.log_w.detach()), [*self.parameters()]
        moments = torch.zeros(3, dtype=torch.float64, device=signal.device)
        for names in depths(particles):
            sites = soft_sites(particles, names)
            known = zip(sites, self.predicted(particles, sites), self.related(bound, particles, sites), strict=True)
            for site, predicted, other in known:
                one = site.score(signal) - predicted
                found = one - eta.to(one) * other
                total = total + particles.total(site.reduced(_times(found.detach(), site.logits)))
                products = (one * other, other.square(), found.square())
                moments = moments + torch.stack([site.reduced(each).sum().double() for each in products])
        self._learn(moments.detach() / particles.layout.batch)
        if not trained:
            return total
        slopes = torch.autograd.grad(moments[2], trained, retain_graph=True, allow_unused=True, materialize_grads=True)
        return total - sum((slope * each).sum() for slope, each in zip(slopes, trained, strict=True))

    def related(self, bound: Bound, particles: Particles, sites: list[Soft]) -> list[Tensor]:
        """What is known of each site's score by relaxing it, of mean zero; of the shape of its logits."""
        soft, again = relaxed(particles, sites, self.temperature).log_w, self.held is None
        slopes = torch.autograd.grad(
            bound(soft).sum(),
            [site.noisy for site in sites],
            create_graph=again,
            allow_unused=True,
            materialize_grads=True,
        )
        signal = _signals(bound, soft)
        pairs = zip(sites, slopes, strict=True)
        return [site.score(signal) - site.through_both(slope) for site, slope in pairs]

    def predicted(self, particles: Particles, sites: list[Soft]) -> list[Tensor]:
        """What else is, by what was learnt."""
        return [torch.zeros_like(site.noisy) for site in sites]

    def _learn(self, moments: Tensor) -> None:
        """Moves what eta is made of, after it has been used."""
        with torch.no_grad():
            known = moments.isfinite().all()
            for average, new in zip((self.shared, self.spread), moments, strict=False):
                average.add_(torch.where(known, (1 - self.decay) * (new - average), 0.0))


def _signals(bound: Bound, log_w: Tensor) -> Tensor:
    """What each particle's score is multiplied by, (num_particles, batch): less VIMCO's baseline, if it has others."""
    if len(log_w) == 1:
        return bound.signals(log_w)
    without = bound.left_out(log_w)
    return bound(log_w) - without.masked_fill(without == -math.inf, 0.0)


def _times(factor: Tensor, logits: Tensor) -> Tensor:
    """0 where the factor is, even for an infinite logit."""
    return factor * logits.masked_fill(factor == 0, 0.0)
