"""Pictures of a trained pair, whatever its data are: images, two columns, a table, and its latents.

Figures are imported where one is drawn: the numbers of a cell do not depend on them, and --help does not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.data.readers.writing import END
from dlvm.experiments.measures.draws import dreams, latent_sites, posterior_means
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.guides import Point
from dlvm.inference import generate, reconstruct
from dlvm.inference.use.asking import data_site
from dlvm.models import Dequantised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawing = tuple[str, Callable[[], "Figure"], str]  # name, what draws it, caption
FEW, MANY, WRITTEN = 8, 2000, 30


def pictures(model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
    """The name of each picture that suits the data and the latents, what draws it, and its caption."""
    if data.kind == "sequence":
        if data.vocabulary is not None:
            yield "samples", partial(_written, model, data), "Test data, and draws of the model, as they are written."
        return
    width, sites = data.x_dim, latent_sites(model, data)
    if not sites:
        yield from drawn_beside(model, data)
        return
    if data.image_shape is not None:
        yield "reconstructions", partial(_images, model, guide, data), "Test data, and E p(x | z) for z ~ q(z | x)."
    elif width == 2:
        yield "plane", partial(_plane, model, guide, data), "Test data, E p(x | z) for z ~ q(z | x), and draws of p(x)."
    else:
        yield "reconstructions", partial(_columns, model, guide, data), "Test data against E p(x | z), z ~ q(z | x)."
    if width != 2:
        drawn = partial(_samples, model, data)
        yield "samples", drawn, "Means of p(x | z) for z drawn from the prior."
    flat = [name for name, site in sites.items() if site.shape == (2,) and not site.support.is_discrete]
    for name in flat:
        title = "latent_space" if len(sites) == 1 else f"latent_space_{name}"
        yield title, partial(_latent_space, model, guide, data, name), f"Means of q({name} | x) of test data."
    density = not isinstance(model, Dequantised) and not isinstance(guide, Point)
    if len(sites) == 1 and flat and data.given == ("x",) and density:
        yield (
            "posteriors",
            partial(_posteriors, model, guide, data, flat[0]),
            "The true posterior of four test data, by a grid, and the guide's density over it.",
        )


def drawn_beside(model: nn.Module, data: Loader) -> Iterator[Drawing]:
    """Draws of a model whose p(x) has no means to show."""
    name = "plane" if data.x_dim == 2 else "samples"
    yield name, partial(_drawn, model, data), "Test data, and draws of the model."


def described(model: nn.Module, data: Loader) -> str:
    """The latent sites in words, as "z1 (32) and z2 (16)"."""
    if not (found := latent_sites(model, data)):
        return "no latent sites"
    each = [f"{name} ({'x'.join(map(str, site.shape)) or '1'})" for name, site in found.items()]
    return f"latent {' and '.join(filter(None, [', '.join(each[:-1]), each[-1]]))}"


def rebuilt(model: nn.Module, guide: nn.Module, data: Loader, most: int) -> tuple[Tensor, Tensor]:
    """The first rows of x, and E p(x | z) for one z of each; (rows, x_dim) each."""
    args = together(data, most)
    return args[0], reconstruct(model, guide, args if len(args) > 1 else args[0], num_particles=1)


def together(data: Loader, most: int) -> tuple[Tensor, ...]:
    """The first rows of all that a model takes, as one batch."""
    parts = zip(*data.take(min(most, data.num_data)), strict=True)
    return tuple(torch.cat(part) for part in parts)


def names_of(data: Loader) -> tuple[str, ...] | None:
    return getattr(data, "columns", None)


def _images(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import reconstructions

    x, found = rebuilt(model, guide, data, FEW)
    return reconstructions(x, {"reconstruction": found}, data.image_shape)


def _columns(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import columns

    return columns(*rebuilt(model, guide, data, MANY // 4), names_of(data))


def _plane(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import plane

    x, found = rebuilt(model, guide, data, MANY)
    groups = {"data": x, "reconstruction": found, "draws of the model": dreams(model, len(x))[0]}
    return plane(groups, names_of(data))


def _samples(model: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import samples

    _, means = dreams(model, 64)
    return samples({"prior samples": means}, data.image_shape)


def _drawn(model: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import plane, samples

    x = together(data, MANY if data.x_dim == 2 else 64)[0]
    groups = {"data": x, "draws": generate(model, len(x))[data_site(model)]}
    if data.x_dim == 2:
        return plane(groups, names_of(data))
    return samples(groups, data.image_shape, title="Data, and draws of the model", note="Draws of x itself, no means.")


def _written(model: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import writings

    x = data.x[:WRITTEN]
    groups = {"data": x, "draws": generate(model, len(x))[data_site(model)]}
    return writings({label: ["".join(words(row, data.vocabulary)) for row in rows] for label, rows in groups.items()})


def words(tokens: Tensor, vocabulary: tuple[str, ...]) -> list[str]:
    """What a row of tokens stands for, up to its end."""
    found = tokens.tolist()
    if vocabulary[0] == END and 0 in found:
        found = found[: found.index(0)]
    return [vocabulary[token] for token in found]


def _latent_space(model: nn.Module, guide: nn.Module, data: Loader, site: str) -> Figure:
    from dlvm.experiments.figures import latent_space

    args = together(data, MANY)
    labels = None if data.labels is None else data.labels[: len(args[0])]
    means = posterior_means(model, guide, args if len(args) > 1 else args[0], site)
    return latent_space(means, labels, class_names=data.label_names)


def _posteriors(model: nn.Module, guide: nn.Module, data: Loader, site: str) -> Figure:
    from dlvm.experiments.figures import posteriors

    x = data.first(4)
    found = densities(model, {"guide": guide}, x, site=site)
    return posteriors(x, found.axes, found.posterior, found.guides, found.kl, data.image_shape)
