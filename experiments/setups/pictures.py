"""The figures of a trained pair, from the pair itself: what dlvm.experiments.figures draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pyro
import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from dlvm.experiments import figures
from dlvm.experiments.data import Loader
from dlvm.experiments.measures.posterior_grid import densities

Picture = tuple[str, Figure, str]
CANDIDATES, SHOWN = 8, 4


@torch.no_grad()
def reconstruct(model: Callable, guide: Callable, x: Tensor) -> Tensor:
    """E p(x | z) for one z ~ q(z | x) per datum; shape of x."""
    drawn = poutine.trace(guide).get_trace(x)
    site = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x).nodes["x"]
    return site["fn"].mean.expand_as(x)


@torch.no_grad()
def dream(model: Callable, n: int) -> Tensor:
    """E p(x | z) for n draws of z from the prior; shape (n, x_dim)."""
    return poutine.trace(model).get_trace(n=n).nodes["x"]["fn"].mean


@torch.no_grad()
def posterior_means(guide: Callable, x: Tensor, num_particles: int = 50) -> Tensor:
    """Means of z ~ q(z | x), shape (n, z_dim)."""
    return torch.stack([poutine.trace(guide).get_trace(x).nodes["z"]["value"] for _ in range(num_particles)]).mean(0)


def of_training(model: Callable, guide: Callable, test: Loader, history: Sequence[dict]) -> Iterator[Picture]:
    """Name, figure and caption of everything worth seeing of one run."""
    with pyro.get_param_store().scope():
        x = test.x[:8]
        yield (
            "learning_curves",
            figures.learning_curves({"validation": [history]}),
            "The objective's bound on the validation data, nats per datum.",
        )
        yield (
            "reconstructions",
            figures.reconstructions(x, {"reconstruction": reconstruct(model, guide, x)}, test.image_shape),
            "Test data, and the mean of p(x | z) for one z drawn from the guide.",
        )
        yield (
            "samples",
            figures.samples({"prior samples": dream(model, 64)}, test.image_shape),
            "Means of p(x | z) for z drawn from the prior.",
        )
        if latent_size(model) != 2:
            return
        means = posterior_means(guide, test.x[:2000])
        labels = None if test.labels is None else test.labels[:2000]
        yield "latent_space", figures.latent_space(means, labels), "Means of q(z | x) of test data."
        found = densities(model, {"guide": guide}, x[:4])
        yield (
            "posteriors",
            figures.posteriors(x[:4], found.axes, found.posterior, found.guides, found.kl, test.image_shape),
            "The true posterior of four test data, by a grid, and the guide's density over it.",
        )


def of_comparison(
    rows: Sequence[dict], trained: Mapping[str, tuple[Callable, Callable]], test: Loader, context: str
) -> Iterator[Picture]:
    """What tells pairs apart that were trained each for itself.

    Args:
        rows: one per run, with guide, objective, history, elbo, log_px and log_px_se.
        trained: label -> (model, guide), for images.
        test: where reconstructions come from.
        context: a few words on data and model.
    """
    histories: dict[tuple[str, str], list] = {}
    for row in rows:
        histories.setdefault((row["guide"], row["objective"]), []).append(row["history"])
    yield "bounds", figures.bounds(rows, context), "Test ELBO (open) and log p(x) (full) of each guide and objective."
    yield "learning_curves", figures.learning_curves(histories, context=context), "Validation bound while training."
    x, shape = test.x[:8], test.image_shape
    means = {label: reconstruct(model, guide, x) for label, (model, guide) in trained.items()}
    caption = "Test data, and the mean of p(x | z) for one z from each guide; trained by the ELBO, seed 0."
    yield "reconstructions", figures.reconstructions(x, means, shape, context), caption
    drawn = {label: dream(model, 36) for label, (model, _) in trained.items()}
    yield "samples", figures.samples(drawn, shape, context), "Means of p(x | z) for z from the prior; the same models."


def of_one_model(model: Callable, guides: Mapping[str, Callable], test: Loader, context: str) -> Iterator[Picture]:
    """The posteriors of one model with two latent dimensions, and what each guide makes of them."""
    x = test.x[:CANDIDATES]
    found = densities(model, guides, x)
    worst = max(found.kl.values(), key=lambda kl: kl.mean()).argsort(descending=True)[:SHOWN]
    q = {label: log_q[worst] for label, log_q in found.guides.items()}
    kl = {label: values[worst] for label, values in found.kl.items()}
    axes = (found.axes[0][worst], found.axes[1][worst])
    yield (
        "posteriors",
        figures.posteriors(x[worst], axes, found.posterior[worst], q, kl, test.image_shape, context),
        f"The true posterior by a grid, and each guide's density over it, for one frozen model: of {len(x)} test data, "
        f"the {SHOWN} on which a guide fits worst.",
    )
    label, guide = list(guides.items())[-1]
    means = posterior_means(guide, test.x)
    yield (
        "latent_space",
        figures.latent_space(means, test.labels, context),
        f"Means of the {label} guide's q(z | x) of test data.",
    )


@torch.no_grad()
def latent_size(model: Callable) -> int:
    """Number of latent dimensions of the site z."""
    return poutine.trace(model).get_trace(n=1).nodes["z"]["value"].shape[-1]
