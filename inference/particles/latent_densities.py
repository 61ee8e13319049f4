"""Whether p and q of latent sites can be divided: counted once by both, angles in one period, no point masses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Transform

from dlvm.distributions.normal import AtPoint
from dlvm.distributions.supports import inner, is_periodic, is_real, latent_support
from dlvm.inference.programs.plates import outer_scale, same


def check_counted_once(joint: list[dict], plates: Sequence) -> None:
    """Raises ValueError where the model counts a latent site other than its data, so that p(x, z) is no density.

    Args:
        joint: sites of a model.
        plates: around all of them.
    """
    common = outer_scale(joint, plates)
    for site in (site for site in joint if not site["is_observed"]):
        if not same(site["scale"], common):
            raise ValueError(
                f"latent site {site['name']!r} has scale {_short(site['scale'])} in the model and the data "
                f"{_short(common)}, so that there is no p(x, z) to weigh: anneal by tempered(objective, beta), or call "
                "the programs so that poutine.scale around the site is 1"
            )


def check_densities(joint: list[dict], drawn: list[dict]) -> None:
    """Holds how the guide draws sites against the model's densities.

    Raises:
        ValueError: a site has another scale in the guide, or an angle is drawn from all real numbers, over which its
            density has no integral.
    """
    sites = {site["name"]: site for site in joint if not site["is_observed"]}
    for q in (site for site in drawn if site["name"] in sites):
        p = sites[q["name"]]
        if not same(p["scale"], q["scale"]):
            raise ValueError(
                f"latent site {q['name']!r} has scale {_short(p['scale'])} in the model and {_short(q['scale'])} in "
                "the guide; put poutine.scale around both"
            )
        if is_periodic(p["fn"]) and not is_periodic(q["fn"]) and _is_unbounded(q["fn"]):
            raise ValueError(
                f"latent site {q['name']!r} is an angle, whose density in the model repeats itself in every period, "
                "and the guide draws it from all real numbers, so that an angle would be counted several times; draw "
                "it from VonMises, or map a real number by biject_to(constraints.interval(-math.pi, math.pi))"
            )


def refuse_points(drawn: Iterable[Mapping[str, Any]], objective: str) -> None:
    """Raises ValueError where a guide draws from the point masses of an autoencoder, under an objective of this name.

    A Delta of Pyro's is let pass, as AutoDelta makes it: what is raised is then log p(x, z) at a point, as MAP has it.
    """
    if points := [site["name"] for site in drawn if isinstance(inner(site["fn"]), AtPoint)]:
        raise ValueError(
            f"the guide draws {points} from point masses, whose entropy is minus infinity: {objective} would be no "
            "bound on log p(x); train an autoencoder by Reconstruction(), or draw from a density, as Diagonal"
        )


def check_estimable(joint: list[dict], drawn: list[dict]) -> None:
    """As ``check_densities``, and that the mean weight is p(x).

    Raises:
        ValueError: moreover, a guide gives a site one value, against which a density is no weight.
    """
    check_densities(joint, drawn)
    if any(site["infer"].get("is_auxiliary") for site in drawn):  # Deltas may hand on what these have drawn
        return
    sites = {site["name"]: site for site in joint if not site["is_observed"]}
    for q in (site for site in drawn if site["name"] in sites and _is_point(site)):
        p = sites[q["name"]]
        if not _is_point(p) and not latent_support(p["fn"]).is_discrete:
            trained = "Reconstruction()" if isinstance(inner(q["fn"]), AtPoint) else "ELBO() or Trace_ELBO()"
            raise ValueError(
                f"the guide gives latent site {q['name']!r} one value, as a Delta, and the model a density: their "
                f"quotient is no weight, and log p(x) cannot be had from it; train so by {trained}, and "
                "evaluate with a guide that draws the site from a density of its own, as Normal(value, scale)"
            )


def _is_point(site: dict) -> bool:
    return isinstance(inner(site["fn"]), Delta)


def _is_unbounded(fn: Any) -> bool:
    """Whether values are all real numbers; an affine map of a bounded one says so of its own."""
    return is_real(fn.support) and all(is_real(part.codomain) for part in _parts(getattr(inner(fn), "transforms", ())))


def _parts(transforms: Sequence[Transform]) -> Iterator[Transform]:
    for transform in transforms:
        within = getattr(transform, "parts", None) or [getattr(transform, "base_transform", None)]
        yield from _parts(within) if within[0] is not None else [transform]


def _short(scale: Tensor | float) -> str:
    return f"of shape {tuple(scale.shape)}" if isinstance(scale, Tensor) and scale.dim() else str(float(scale))
