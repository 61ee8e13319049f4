"""Can a trained VAE forget a class, or thick strokes? A decoder fitted to erased dreams, beside a fresh start."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import pyro
import torch
from torch import Tensor, nn

from dlvm.distributions import Categorical
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, FolderOptions
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.runs.restore import keep, recipe_of, restore
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Study
from dlvm.experiments.sweeps.equal_steps import Course, StepsOptions, check_warm_up
from dlvm.experiments.unlearning_report import Carries, pictures, scored, table, verdict
from dlvm.guides import FullyObserved
from dlvm.inference import decode, encode, generate, predict
from dlvm.models import VAE, Conditional
from dlvm.nets import MLP

STEPS = (1.0, 1.5, 2.0, 3.0)  # along the direction, until the attribute is gone
LEAST = 0.005  # share of draws below which there is nothing to unlearn
THICK = 0.8  # quantile of ink above which an image is thick
INTRO = (
    "A trained VAE is to draw no image that carries the attribute, and all others as before. The direction of the "
    "attribute is the mean code of training images that carry it less that of the others. Draws of z from the prior "
    "whose images carry it, by a classifier, are moved back along it until their images no longer do (those that never "
    "do are replaced by others), and the decoder is fitted to give the old decoder's images of the moved z, and those "
    "of all other z as they were; the guide stays. Beside it: a pair trained from scratch without these images.\n\n"
    "Feature Unlearning for Pre-trained GANs and VAEs, Moon, Cho, Kim, 2023 (arXiv:2303.05699)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, StepsOptions, ModelOptions, DataOptions):
    """Erase an attribute from a trained VAE's decoder: how much of it is left, and how much of the rest is kept."""

    run: Path | None = None
    """Folder of a run of train --model vae, whose pair and data are taken; otherwise one is trained."""
    attribute: Literal["class", "thickness"] = "class"
    """What to erase: a class of the labels, or thick strokes, the fifth of the training images with most ink."""
    erase: int = 0
    """The class, where that is the attribute."""
    setup: Setup = VAESetup(16)
    eval_data: int | None = None
    """Score so many test data only."""
    eval_particles: int = 200
    """Importance samples for each test datum."""
    dreams: int = 10_000
    """Draws that the decoder is fitted to."""
    unlearn_epochs: int = 20
    """Passes over them."""
    batch_size: int = 100
    epochs: int = 60
    """Passes over the training data, of the pair, of the one from scratch, and of the classifier."""
    seed: int = 0
    """Of everything."""
    out: Path = Path("runs/unlearning")


class Direction(NamedTuple):
    """Where codes with an attribute lie from those without.

    Attributes:
        unit: shape (z_dim,), of length 1.
        level: how far along it the mean code without the attribute lies.
    """

    unit: Tensor
    level: Tensor

    @classmethod
    def between(cls, codes: Tensor, has: Tensor) -> Direction:
        """From codes, shape (n, z_dim), and bools of who has the attribute, shape (n,).

        Raises:
            ValueError: all have it, or none.
        """
        if bool(has.all()) or not bool(has.any()):
            raise ValueError(
                f"erase must name an attribute that some data have and some lack, got {int(has.sum())} of {len(has)}; "
                "there is nothing to unlearn; change --erase or --attribute"
            )
        away = codes[has].mean(0) - codes[~has].mean(0)
        unit = away / away.norm()
        return cls(unit, codes[~has].mean(0) @ unit)

    def erased(self, z: Tensor, strength: float = 1.0) -> Tensor:
        """z moved back along the direction, by ``strength`` times what it is beyond the level; no z moves forward."""
        return z - strength * (z @ self.unit - self.level).clamp_min(0)[:, None] * self.unit


class Dreams(NamedTuple):
    """What the decoder is to give: (z, x), shape (n, z_dim) and (n, x_dim), and how it came about.

    Attributes:
        carried: share of the old decoder's draws with the attribute.
        redrawn: of these, how many were never rid of it by moving z, and are replaced by others.
    """

    z: Tensor
    x: Tensor
    carried: float
    redrawn: float


@torch.no_grad()
def erased_dreams(model: VAE, direction: Direction, carries: Carries, n: int, seed: int) -> Dreams:
    """Draws of z from the prior, and the old decoder's x of them, or of z without the attribute.

    Args:
        model: trained.
        direction: of the attribute.
        carries: whether rows of x have it.
        n: how many.
        seed: of the draws.

    Raises:
        ValueError: the model draws the attribute so seldom that there is nothing to unlearn, or nothing else.
    """
    drawn = generate(model, n, seed=seed)
    z, x = drawn["z"], drawn["x"].clone()
    has = carries(x)
    share = has.double().mean().item()
    if not LEAST < share < 1 - LEAST:
        raise ValueError(
            f"erase must name an attribute that the model draws and is not all it draws, got it in {share:.1%} of {n} "
            "draws: there is nothing to unlearn, or nothing would be left; change --erase or --attribute"
        )
    left = has.clone()
    for strength in STEPS:
        rows = left.nonzero()[:, 0]
        if not len(rows):
            break
        x[rows] = decode(model, direction.erased(z[rows], strength), draw=True, seed=seed)
        left[rows] = carries(x[rows])
    others = (~has).nonzero()[:, 0]
    x[left] = x[others[torch.arange(int(left.sum())) % len(others)]]
    return Dreams(z, x, share, left.double().sum().item() / has.double().sum().item())


def unlearned(model: VAE, dreams: Dreams, config: Config) -> VAE:
    """A copy of the model whose decoder gives these x for these z, by maximum likelihood; prior and model stay.

    Raises:
        ValueError: training led to numbers that are not finite.
    """
    found = copy.deepcopy(model)
    few = max(1, len(dreams.z) // 10)
    parts = [(dreams.z[few:], dreams.x[few:]), (dreams.z[:few], dreams.x[:few])]
    train, valid = (
        Loader(z, config.batch_size, i == 0, seed=config.seed, more={"y": x}).giving("x", "y")
        for i, (z, x) in enumerate(parts)
    )
    how = dataclasses.replace(config, epochs=config.unlearn_epochs, warm_up=0)
    trained(how, Conditional(found.likelihood), FullyObserved(), train, valid)
    return found


def trained(config: Config, model: nn.Module, guide: nn.Module, train: Loader, valid: Loader) -> None:
    """Trains a pair by the script's steps."""
    if (error := Course(config, model, guide, train, valid, config.seed).error) is not None:
        raise ValueError(f"lr led to numbers that are not finite: {error}; pass a smaller --lr")


def having(config: Config, data: Splits) -> list[Tensor]:
    """Who carries the attribute, bools for the rows of each part.

    Raises:
        ValueError: the data have no labels, or none of that class.
    """
    if config.attribute == "thickness":
        edge = data.train.x.mean(1).quantile(THICK)
        return [part.x.mean(1) > edge for part in data]
    if any(part.labels is None for part in data):
        raise ValueError("attribute class needs data with labels, got none; take others, or --attribute thickness")
    known = data.train["y"].unique().tolist()
    if config.erase not in known:
        raise ValueError(f"erase must be a class of the data, {known}, got {config.erase}: there is nothing to unlearn")
    return [part["y"] == config.erase for part in data]


def classifier(config: Config, data: Splits, has: list[Tensor]) -> tuple[Carries, float, float]:
    """A network that tells who carries the attribute; its accuracy and its recall on test data."""
    pyro.set_rng_seed(config.seed)
    x = [part.first(part.num_data) for part in data]
    train, valid = (
        Loader(rows, config.batch_size, not i, more={"y": has[i].long()}).giving("x", "y")
        for i, rows in enumerate(x[:2])
    )
    model, guide = Conditional(Categorical(MLP(train.x_dim, 200, 2))), FullyObserved()
    trained(dataclasses.replace(config, warm_up=0), model, guide, train, valid)

    def carries(rows: Tensor) -> Tensor:
        return predict(model, guide, (rows, None), "y", num_particles=1).probabilities[:, 1] > 0.5

    said = carries(x[2])
    return carries, (said == has[2]).double().mean().item(), said[has[2]].double().mean().item()


def without(data: Splits, has: list[Tensor]) -> Splits:
    """The rows that do not carry the attribute, in batches as before."""
    kept = [
        Loader.of(p.rows.select(~h), p.batch_size, p.shuffle, p.dynamic, p.seed) for p, h in zip(data, has, strict=True)
    ]
    return Splits(*kept)


def subject(config: Config, data: Splits, recipe: Recipe) -> tuple[VAE, nn.Module]:
    """The pair: a run's, or one that is to be trained here.

    Raises:
        ValueError: its model is no VAE of one latent vector and x alone.
    """
    pyro.set_rng_seed(config.seed)
    model, guide = recipe.pair(data.train) if config.run is None else restore(config.run)
    if not isinstance(model, VAE) or recipe.setup.inputs != ("x",):
        raise ValueError(f"model must be a VAE, p(z) p(x | z), got {type(model).__name__}; pass --model vae")
    return model, guide


def main(config: Config) -> list[dict]:
    study = Study(config)
    check_warm_up(config.epochs, config.warm_up)
    recipe = Recipe.by(config) if config.run is None else recipe_of(config.run, config.data_dir)
    data = recipe.splits().tested_on(config.eval_data)
    has = having(config, data)
    model, guide = subject(config, data, recipe)
    run = study.open()
    if config.run is None:
        trained(config, model, guide, data.train, data.valid)
    carries, accuracy, recall = classifier(config, data, has)
    codes = encode(model, guide, data.train.first(data.train.num_data))["z"].mean
    dreams = erased_dreams(model, Direction.between(codes, has[0]), carries, config.dreams, config.seed)
    pairs: dict[str, Any] = {"trained": (model, guide), "unlearned": (unlearned(model, dreams, config), guide)}
    pyro.set_rng_seed(config.seed)
    rest = without(data, has)
    fresh, another = recipe.pair(rest.train)
    trained(config, fresh, another, rest.train, rest.valid)
    pairs["from scratch"] = (fresh, another)
    x = data.test.first(data.test.num_data)
    how = {"particles": config.eval_particles, "seed": config.seed}
    found = {label: scored(pair, x, has[2], carries, **how) for label, pair in pairs.items()}
    keep(run.folder, pairs["unlearned"][0], guide, data.train.x_dim)
    said = verdict(found, dreams.carried, dreams.redrawn)
    rows = [
        {"model": k, "share": v.share[0], "others": v.others.mean().item(), "erased": v.erased.mean().item()}
        for k, v in found.items()
    ]
    run.result(
        runs=rows, accuracy=accuracy, recall=recall, carried=dreams.carried, redrawn=dreams.redrawn, verdict=said
    )
    tables = [table(found, accuracy, recall)]
    study.show(tables)
    models = {label: cast(VAE, pair[0]) for label, pair in pairs.items()}
    shown = pictures(models, carries, data.test, config.seed)
    study.report(f"What is left of {attribute_of(config)} in a decoder?", INTRO, tables, said, shown)
    return rows


def attribute_of(config: Config) -> str:
    return f"class {config.erase}" if config.attribute == "class" else "thickness"


if __name__ == "__main__":
    start(main, Config, "unlearning")
