"""What Pyro's own objectives ask of a pair, beyond what all do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pyro import poutine
from pyro.infer import ELBO, RenyiELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.analytic_kl import mean_field_violations
from dlvm.inference.particles.latent_densities import refuse_points
from dlvm.inference.programs.pair import Pair

Nodes = Mapping[str, Mapping[str, Any]]  # of a trace, by name


def kl_terms(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> dict[str, str]:
    """How ``TraceMeanField_ELBO`` gets each latent site's KL: {site: "analytic" | "Monte Carlo"}."""
    terms = {}
    drawn, joint = cast(Nodes, guide_trace.nodes), cast(Nodes, model_trace.nodes)
    for name, site in drawn.items():
        if site["type"] == "sample" and name in joint:
            try:
                kl_divergence(site["fn"], joint[name]["fn"])
                terms[name] = "analytic"
            except NotImplementedError:
                terms[name] = "Monte Carlo"
    return terms


def require_mean_field(pair: Pair, args: tuple, kwargs: dict) -> None:
    """Proves that an analytic KL per site is right for this pair, see ``mean_field_violations``.

    Raises:
        ValueError: a site breaks the condition.
    """
    for site, broken in mean_field_violations(pair, args, kwargs).items():
        if broken:
            raise ValueError(
                f"TraceMeanField_ELBO is wrong for latent site {site!r}: {sorted(broken)} generate it in the model "
                "and are inferred from it in the guide, so its KL is no expectation over one site; use Trace_ELBO, "
                "ELBO(analytic_kl=True), which takes such a site by Monte Carlo, or order='top_down'"
            )


def require(
    objective: ELBO, pair: Pair, args: tuple, kwargs: dict, model_trace: poutine.Trace, guide_trace: poutine.Trace
) -> None:
    """Raises ValueError where the objective cannot work for this pair."""
    drawn: list[Mapping[str, Any]] = [site for site in guide_trace.nodes.values() if site["type"] == "sample"]
    if not isinstance(objective, Objective):  # ours say by themselves what they take
        refuse_points(drawn, type(objective).__name__)
    if isinstance(objective, TraceMeanField_ELBO):
        for site in drawn:
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"TraceMeanField_ELBO differentiates through the latent sites, but {site['name']!r} "
                    f"({type(site['fn']).__name__}) cannot be reparametrised; use Trace_ELBO, TraceGraph_ELBO or "
                    "ELBO(estimator=ScoreFunction()), or sum the site out with TraceEnum_ELBO"
                )
    if isinstance(objective, TraceMeanField_ELBO):
        require_mean_field(pair, args, kwargs)
    if isinstance(objective, RenyiELBO):
        for site in (*drawn, *(s for s in model_trace.nodes.values() if s["type"] == "sample")):
            if not isinstance(site["scale"], float) or site["scale"] != 1.0:
                raise ValueError(
                    f"pyro.infer.RenyiELBO puts the scale of site {site['name']!r} ({site['scale']}) inside its "
                    "logarithm, where it is no bound "
                    "on log p(x); use dlvm.inference.Renyi(alpha, num_particles), which scales each datum's bound"
                )
