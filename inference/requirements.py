"""What single objectives ask of a model and a guide, proved from their traces."""

from __future__ import annotations

from collections.abc import Callable

from pyro import poutine
from pyro.infer import RenyiELBO, TraceMeanField_ELBO
from pyro.infer.inspect import get_dependencies
from torch.distributions import kl_divergence

from inference.objectives import Objective
from inference.ownership import own


def kl_terms(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> dict[str, str]:
    """How ``TraceMeanField_ELBO`` gets each latent site's KL: {site: "analytic" | "Monte Carlo"}."""
    terms = {}
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample" and name in model_trace.nodes:
            try:
                kl_divergence(site["fn"], model_trace.nodes[name]["fn"])
                terms[name] = "analytic"
            except NotImplementedError:
                terms[name] = "Monte Carlo"
    return terms


def require_mean_field(model: Callable, guide: Callable, args: tuple, kwargs: dict) -> None:
    """Proves that an analytic KL per site is right for this pair.

    The condition: no parent of a latent site in the model is its descendant in the guide.

    Raises:
        ValueError: a site breaks the condition.
    """
    parents = _parents(model, args, kwargs)
    descendants = _descendants(_parents(guide, args, kwargs))
    for site, below in descendants.items():
        if broken := parents.get(site, set()) & below:
            raise ValueError(
                f"TraceMeanField_ELBO is wrong for latent site {site!r}: {sorted(broken)} generate it in the model "
                "and are inferred "
                "from it in the guide, so its KL is no expectation over one site; use Trace_ELBO, or order='top_down'"
            )


def _parents(program: Callable, args: tuple, kwargs: dict) -> dict[str, set[str]]:
    found = get_dependencies(own(program), args, kwargs)["prior_dependencies"]
    return {site: set(upstream) - {site} for site, upstream in found.items()}


def _descendants(parents: dict[str, set[str]]) -> dict[str, set[str]]:
    below: dict[str, set[str]] = {site: set() for site in parents}
    for site in parents:  # generation order, so ancestors are complete before their children
        stack = list(parents[site])
        while stack:
            ancestor = stack.pop()
            if site not in below.setdefault(ancestor, set()):
                below[ancestor].add(site)
                stack.extend(parents.get(ancestor, ()))
    return below


def require(objective, model, guide, args, kwargs, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Raises ValueError where the objective cannot work for this pair."""
    name = type(objective).__name__
    drawn = [site for site in guide_trace.nodes.values() if site["type"] == "sample"]
    if isinstance(objective, (Objective, TraceMeanField_ELBO)):
        for site in drawn:
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"{name} differentiates through the latent sites, but {site['name']!r} "
                    f"({type(site['fn']).__name__}) cannot be "
                    "reparametrised; use Trace_ELBO or TraceGraph_ELBO, or sum the site out with TraceEnum_ELBO"
                )
    if isinstance(objective, TraceMeanField_ELBO):
        require_mean_field(model, guide, args, kwargs)
    if isinstance(objective, RenyiELBO):
        for site in (*drawn, *(s for s in model_trace.nodes.values() if s["type"] == "sample")):
            if not isinstance(site["scale"], float) or site["scale"] != 1.0:
                raise ValueError(
                    f"pyro.infer.RenyiELBO puts the scale of site {site['name']!r} ({site['scale']}) inside its "
                    "logarithm, where it is no bound "
                    "on log p(x); use inference.Renyi(alpha, num_particles), which scales each datum's bound"
                )
