"""What is measured of a trained autoencoder: how it reconstructs, what it generates, its codes, and log p(x)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dlvm.experiments.data import Splits
from dlvm.experiments.generated.ex_post import fitted_guide
from dlvm.experiments.generated.two_samples import Components, c2st, precision_recall
from dlvm.experiments.measures.draws import dreams
from dlvm.experiments.measures.linear_probe import probe
from dlvm.guides import Point
from dlvm.inference import Reconstruction, evaluate, mmd
from dlvm.models import VAE

MOST = 2000  # rows of samples that are compared
SHOWN = 36


class Later(NamedTuple):
    """What is fitted and drawn after the training.

    Attributes:
        density: (model, codes, seed) -> the model with a density fitted to codes for its prior.
        encoder: a fresh one, of the guide that is fitted where the pair's own has no density.
        epochs: in which it is.
        particles: importance samples per test datum.
        seed: of all of it.
    """

    density: Callable[[VAE, Tensor, int], VAE]
    encoder: nn.Module
    epochs: int
    particles: int
    seed: int


def measured(model: VAE, guide: nn.Module, data: Splits, later: Later) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Numbers by name, and means of what is dreamt from the prior and from the density fitted to codes.

    log p(x) is that of the pair as it is; of a guide of points, that of this density as p(z) and of a Gaussian guide
    that is fitted to this model: another model than was trained, as whoever shows it is to say.
    """
    train, _, test = data
    x, seed = test.first(MOST), later.seed
    seen = train.first(MOST)
    codes, held = codes_of(guide, seen), codes_of(guide, x)
    fitted = later.density(model, codes, seed)
    found: dict[str, Any] = {"rows": len(x), "reconstruction": -Reconstruction().loss(model, guide, x) / len(x)}
    features, drawn = Components(seen), {}
    for word, generating in (("prior", model), ("ex_post", fitted)):
        dreamt, means = dreams(generating, len(x))
        told, covered = c2st(x, dreamt, seed), precision_recall(features(x), features(dreamt))
        found |= {f"told_{word}": told.accuracy, f"told_{word}_se": told.error}
        found |= {f"precision_{word}": covered.precision, f"recall_{word}": covered.recall}
        drawn[f"dreams_{word}"] = means[:SHOWN]
    with torch.no_grad():
        prior = model.prior().sample((len(held),))
    hole = c2st(held, prior, seed)
    found |= {"hole": hole.accuracy, "hole_se": hole.error, "mmd": mmd(held, prior).item()}
    found["probe"] = probe(model, guide, data)
    judged, q = model, guide
    if isinstance(guide, Point):
        judged, q = fitted, fitted_guide(fitted, later.encoder, train, later.epochs, seed)
    result = evaluate(judged, q, test, num_particles=later.particles)
    names = ("log_px", "log_px_se", "elbo", "khat_bad")
    return found | {name: getattr(result, name) for name in names}, drawn


@torch.no_grad()
def codes_of(guide: nn.Module, x: Tensor) -> Tensor:
    """One draw of q(z | x) for each row, shape (rows, z_dim)."""
    return guide.eval()(x)["z"]
