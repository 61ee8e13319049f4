"""KL divergences in closed form, for the sites where that is proved to be right."""

from __future__ import annotations

import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from dlvm.inference.particles.alone import stacked
from dlvm.inference.particles.descent import descendants, parents
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair, remembered
from dlvm.inference.programs.randomness import untouched


def with_analytic_kl(particles: Particles, strict: bool = False) -> Particles:
    """The same draws, with the KL of every site in closed form where that is right and known.

    Right means that no parent of the site in the model is its descendant in the guide; known, that torch or Pyro or
    ``distributions`` has a formula. Other sites keep their Monte Carlo estimate; ``particles.kl`` says which.

    Raises:
        ValueError: ``strict``, and a site has no such KL.
    """
    if particles.parts:
        return stacked([with_analytic_kl(part, strict) for part in particles.parts])
    programs, prior = particles.programs, {site["name"]: site for site in particles.joint}
    broken = mean_field_violations(programs.pair, programs.args, programs.kwargs)
    terms, kl = {}, dict(particles.kl)
    for site in particles.drawn:
        name = site["name"]
        closed = None
        if not broken.get(name) and name in prior:
            closed = closed_form(site["fn"], prior[name]["fn"])
        if closed is not None:
            terms[name] = particles.terms[name]._replace(kl=particles.layout.reduce(closed, site))
            kl[name] = "analytic"
        elif strict:
            reason = f"{sorted(broken[name])} generate it in the model and are inferred from it in the guide"
            if not broken.get(name):
                other = f"{type(prior[name]['fn']).__name__}" if name in prior else "no site of the model"
                reason = f"no formula is known for {type(site['fn']).__name__} against {other}"
            raise ValueError(
                f"latent site {name!r} has no analytic KL: {reason}; pass strict=False for a Monte Carlo estimate of "
                "it, or order='top_down' or another family"
            )
    return particles.changed(terms, kl=kl)


def closed_form(q: torch.distributions.Distribution, p: torch.distributions.Distribution) -> Tensor | None:
    """KL(q || p) over one event, shape (*batch), nats; None where no formula is known.

    A Delta has none: its density relative to a continuous prior is a convention, which differs between guides.
    """
    inner = q
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, Delta):
        return None
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


@remembered
def mean_field_violations(pair: Pair, args: tuple, kwargs: dict) -> dict[str, set[str]]:
    """{latent site: its parents in the model that are its descendants in the guide}; remembered for a pair.

    An analytic KL per site is right where the set is empty.
    """
    with untouched(), torch.no_grad(), poutine.block(), pair.evaluating():
        generated = parents(pair.model, args, kwargs)
        below = descendants(parents(pair.guide, args, kwargs))
    return {site: generated.get(site, set()) & found for site, found in below.items()}
