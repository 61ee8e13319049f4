"""What two programs make side by side: codes of data and of the prior, data and dreams, as rows of numbers."""

from __future__ import annotations

from collections.abc import Iterable

from pyro import poutine
from pyro.distributions import Bernoulli, Independent, TorchDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor, cat

from dlvm.distributions.bernoulli import IndependentBernoulli
from dlvm.inference.objectives.wake_sleep import echoes
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.data_sites import data_of
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.plates import sample_sites


class Dreams:
    """One ancestral run of the model for each datum of a batch, whose draws carry the gradient of its parameters.

    Args:
        particles: one draw per datum of the guide, with what was run.
        what: who asks, for errors.

    Raises:
        ValueError: there are several draws per datum, no latent sites or some whose draws carry no gradient, or sites
            in more than one plate over data.
    """

    def __init__(self, particles: Particles, what: str):
        self.particles, self.what = particles, what
        if particles.layout.num_particles > 1 or particles.parts:
            raise ValueError(f"{what} takes one draw of the guide per datum; pass an objective with num_particles=1")
        if not particles.drawn:
            raise ValueError(f"{what} needs latent sites, and the guide draws none; train by MaximumLikelihood()")
        if particles.jumps:
            raise ValueError(
                f"{what} goes through the draws of {particles.jumps[0]['name']!r}, which carry no gradient; use a "
                "guide that is reparametrised, and a bound with Total()"
            )
        programs, subsampled = particles.programs, poutine.Trace()  # the rows that the guide has picked
        for name, site in programs.guide_trace.nodes.items():
            if site_is_subsample(site):
                subsampled.add_node(name, **site)
        with statistics_kept(programs.pair.model):
            run = poutine.trace(poutine.replay(programs.pair.model, trace=subsampled))
            self.sites = {site["name"]: site for site in sample_sites(run.get_trace(*programs.args, **programs.kwargs))}

    @property
    def codes(self) -> tuple[Tensor, Tensor]:
        """Draws of q(z | x) and of p(z), shape (batch, all latent dimensions) each."""
        drawn = {site["name"]: site for site in self.particles.drawn}
        if strange := sorted(drawn.keys() - self.sites.keys()):
            raise ValueError(f"{self.what} needs draws of {strange} from the model, which has no such sites")
        return self._rows(drawn.values()), self._rows(self.sites[name] for name in drawn)

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """Data and dreams of the model, shape (batch, all observed dimensions) each; binary ones are straight-through.

        Raises:
            ValueError: moreover, the model makes x's distribution of x, or it has no draws that carry a gradient.
        """
        programs = self.particles.programs
        if programs.pair.recall(echoes, programs.args, programs.kwargs):
            raise ValueError(
                f"{self.what} dreams, and the model draws from distributions that are made of the data it is called "
                "with; take a likelihood without them"
            )
        names = [site["name"] for site in data_of(self.particles.joint)]
        dreamt = [{**self.sites[name], "value": self._drawn(name, self.sites[name]["fn"])} for name in names]
        return self._rows(data_of(self.particles.joint)), self._rows(dreamt)

    @property
    def means(self) -> Tensor:
        """Means of p(x | z) at the guide's draws, shape (batch, all observed dimensions)."""
        return self._rows({**site, "value": site["fn"].mean} for site in data_of(self.particles.joint))

    def _drawn(self, name: str, fn: TorchDistribution) -> Tensor:
        if fn.has_rsample:
            return fn.rsample()
        binary = isinstance(fn, IndependentBernoulli) or (
            isinstance(fn, Independent) and isinstance(fn.base_dist, Bernoulli)
        )
        if not binary:
            raise ValueError(
                f"{self.what} differentiates draws of {name!r}, and {type(fn).__name__} has none that carry a "
                "gradient; take a likelihood of real numbers, as normal, or Bernoulli"
            )
        return fn.sample() + (fn.mean - fn.mean.detach())

    def _rows(self, sites: Iterable[dict]) -> Tensor:
        found, batch = [], self.particles.layout.batch
        for site in sites:
            value, rank = site["value"], site["fn"].event_dim
            if value.dim() != 1 + rank or len(value) != batch:
                raise ValueError(
                    f"{self.what} needs {site['name']!r} in one plate over data and no other, at dim=-1, got shape "
                    f"{tuple(value.shape)} for {batch} data"
                )
            found.append(value.reshape(batch, -1))
        return cat(found, -1)
