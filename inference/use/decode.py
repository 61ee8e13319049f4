"""From latents to data: the mean of p(x | z), or a draw of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import check_seed, untouched
from dlvm.inference.use.arrays import Kind, as_tensor, dtype_of
from dlvm.inference.use.asking import Asked, as_example, by_name
from dlvm.inference.use.by_datum import by_datum, columns, names_of


@torch.no_grad()
def decode(model: Callable, z: Any, draw: bool = False, seed: int = 0, example: Any = None) -> Any:
    """Finds what data some latents stand for.

        E[x | z], or x ~ p(x | z)

    Latent sites that are not given are drawn from the model: those between z and x, as z1 below a given z2, given
    what lies above them. Modules are in evaluation mode meanwhile; the process's random state stays as it was.

    Returns:
        shape (n, *event), an array of the kind that z is.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``; or any other, with ``example``.
        z: values of the latent site, n rows; or {site or argument: values} of several, as for inputs and for layers.
        draw: give a draw of p(x | z) instead of its mean.
        seed: of what is drawn.
        example: a batch of data, for a model without ``n``: shapes are taken from it, and inputs that are not given.

    Raises:
        TypeError: z is no array, or the model takes no ``n`` and there is no example.
        ValueError: there is no such site, z does not fit it, or the likelihood does not know its mean.

    Example:
        >>> from dlvm.models import PPCA
        >>> decode(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.ones(1, 2))
        tensor([[2., 2., 2.]])
    """
    check_seed(seed)
    batch = as_example(model, example)
    values, kind = named_latents(model, z, batch)
    with untouched(seed):
        x, name = decoded(model, values, draw, batch)
    return kind.back(x, columns(name, x[0].numel()))


def decoded(
    model: Callable, values: dict[str, Tensor], draw: bool = False, example: tuple | None = None
) -> tuple[Tensor, str]:
    """The same of tensors by name, in the random stream that there is, and the name of the site."""
    n = len(next(iter(values.values())))
    asked = Asked(model, n, values, "z", example)
    with asked.free.evaluating():
        site = asked.sites(asked.run())[asked.x]
        _check_upstream(asked)
    return by_datum(site["value"] if draw else mean_of(site), site, asked.layout)[0], asked.x


def mean_of(site: dict) -> Tensor:
    """The mean of a site's distribution.

    Raises:
        ValueError: it does not know it, or has none.
    """
    try:
        mean = site["fn"].mean
    except (NotImplementedError, AttributeError):
        mean = None
    if mean is None or mean.isnan().all():
        raise ValueError(
            f"site {site['name']!r} has a distribution, {type(site['fn']).__name__}, that knows no mean; draw from it "
            "(decode with draw=True), or use predict, which has the probabilities of classes"
        )
    return mean


def named_latents(model: Callable, z: Any, example: tuple | None = None) -> tuple[dict[str, Tensor], Kind]:
    """Latents by the names of their sites, and what kind of array they are.

    Raises:
        ValueError: z is one array, and the model has several latent sites, or none.
    """
    if isinstance(z, Mapping):
        if not z:
            raise ValueError("z must hold at least one site's values, got none; pass {'z': z}")
        return by_name(model, z, "z")
    value = as_tensor(z, dtype_of(Pair(model)), "z")
    if not value.dim() or not len(value):
        raise ValueError(f"z must have one row per datum, got shape {tuple(value.shape)}; pass one as z[None]")
    with untouched(0):
        asked = Asked(model, 1, {}, example=example)
        latent = [site for site in sample_sites(asked.run()) if site["name"] != asked.x]
    if len(latent) != 1:
        raise ValueError(
            f"z must be a dictionary {{site: values}} for a model with the latent sites {names_of(latent)}, got one "
            f"array; name the site that it is of"
        )
    return {latent[0]["name"]: value}, Kind(z)


def _check_upstream(asked: Asked) -> None:
    """Refuses to draw what lies above a given site and goes into x: the prior is not what is known of it then."""
    with untouched():
        if not (below := asked.below()):
            return
        one, other = (asked.sites(asked.run())[asked.x]["fn"] for _ in range(2))
        value = asked.sites(asked.run())[asked.x]["value"]
        if not torch.equal(one.log_prob(value), other.log_prob(value)):
            raise ValueError(
                f"z gives {below[0]!r} and leaves out sites above it that {asked.x!r} depends on; give these as well, "
                f"or use generate(model, n, given=..., num_particles=1000)"
            )
