"""What does a latent buy where a part of an image is seen? A CVAE beside a network and beside nearest neighbours."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal, cast

import pyro
import torch
from torch import Tensor

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.columns import quadrants
from dlvm.experiments.options.command_line import check_different, start
from dlvm.experiments.options.common import DataOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.cvae import CVAESetup, completed
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints
from dlvm.experiments.sweeps.equal_steps import Course, StepsOptions, check_warm_up
from dlvm.guides import Diagonal, FullyObserved
from dlvm.inference import log_px
from dlvm.models import CVAE, Conditional
from dlvm.nets import MLP

Way = Literal["neighbours", "network", "cvae"]
LABELS: dict[Way, str] = {"neighbours": "nearest neighbours", "network": "network", "cvae": "CVAE"}
SEEN = {1: "1 quadrant seen", 2: "2 quadrants seen", 3: "3 quadrants seen"}
NEAREST, ADDED = (1, 3, 10, 30, 100), (0.1, 0.3, 1.0)
CHOSEN_BY, SHOWN = 500, 6  # validation images that choose how many neighbours, test images in the figure
INTRO = (
    "Images are made of zeros and ones once. Of each, one, two or three quadrants are seen, and the rest is told by "
    "three densities p(x_unseen | x_seen). Nearest neighbours: the mean of the training images that differ least where "
    "it is seen; how many, and how much is added to both counts, is chosen on validation images. A network of the seen "
    "pixels alone gives each unseen one a probability of its own, given which they are independent. The CVAE has a "
    "latent vector beside, and says which unseen pixels belong together."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, StepsOptions, DataOptions):
    """Show a part of images, and compare what densities of the rest are worth."""

    data: str = "mnist"
    quadrants: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
    """How many quadrants are seen: 1, the lower left; 2, the left half; 3, all but the upper right."""
    ways: tuple[Way, ...] = tuple(LABELS)
    """neighbours; network, of the seen pixels, without latents; cvae."""
    z_dim: int = 16
    """Latent dimensions of cvae."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of every net."""
    train_data: int | None = None
    """Train on so many images only, the first."""
    eval_data: int | None = None
    """Score so many test images only."""
    eval_particles: int = 200
    """Importance samples for each test image."""
    epochs: int = 30
    warm_up: int = 5
    batch_size: int = 100
    seeds: int = 1
    """Times that nets are trained."""
    out: Path = Path("runs/inpainting")


def data_of(config: Config) -> Splits:
    """The images, of as many rows as are asked for."""
    train, valid, test = config.splits(binarize="static").tested_on(config.eval_data)
    few = config.train_data
    return Splits(train if few is None or few >= train.num_data else train.take(few), valid, test)


def measured(config: Config, number: int, way: Way, seed: int) -> Done:
    """What one density gives the unseen pixels of each test image, and what it makes of a few."""
    began = time.perf_counter()
    data = data_of(config)
    seen = quadrants(data.train, number)
    found = {"neighbours": by_neighbours, "network": by_network, "cvae": by_cvae}[way](config, data, seen, seed)
    values, filled = found
    record = {
        "quadrants": number,
        "way": way,
        "seed": seed,
        "log_px": values.mean().item(),
        "log_px_se": error_of(values),
        "seconds": time.perf_counter() - began,
    }
    return Done(record, {"log_px": values, "filled": filled, "data": data.test.x[:SHOWN]})


def by_neighbours(config: Config, data: Splits, seen: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Log p of the unseen pixels under rates of the nearest training images, and these rates of a few."""
    train, valid, test = data.train.x, data.valid.x[:CHOSEN_BY], data.test.x
    near = nearest(train[:, seen], valid[:, seen], min(NEAREST[-1], len(train)))
    grid = [(k, added) for k, added in product(NEAREST, ADDED) if k <= len(train)]
    hidden, wanted = train[:, ~seen], valid[:, ~seen]
    scores = [log_bits(wanted, rates(hidden, near[:, :k], added)).mean().item() for k, added in grid]
    k, added = grid[max(range(len(grid)), key=scores.__getitem__)]
    told = rates(hidden, nearest(train[:, seen], test[:, seen], k), added)
    whole = test[:SHOWN].clone()
    whole[:, ~seen] = told[:SHOWN]
    return log_bits(test[:, ~seen], told).double(), whole[None]


def nearest(train: Tensor, x: Tensor, k: int) -> Tensor:
    """The k training rows that differ from each row in fewest places, the nearest first; (rows of x, k).

    Args:
        train, x: zeros and ones.
        k: how many.
    """
    found = [
        (train.sum(1) - 2 * rows @ train.T).topk(k, largest=False).indices  # and the sum of each row, the same for all
        for rows in x.split(500)
    ]
    return torch.cat(found)


def rates(hidden: Tensor, near: Tensor, added: float) -> Tensor:
    """Probabilities of unseen pixels, (ones + added) / (k + 2 added) of k training images.

    Args:
        hidden: shape (training images, unseen pixels), zeros and ones.
        near: shape (n, k), which training images.
        added: to the ones and to the zeros of each pixel.

    Example:
        >>> rates(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[0, 1]]), 0.5)
        tensor([[0.5000, 0.8333]])
    """
    ones = torch.stack([hidden[rows].sum(0) for rows in near])
    return (ones + added) / (near.shape[1] + 2 * added)


def log_bits(x: Tensor, p: Tensor) -> Tensor:
    """Log-probability of independent bits, nats, one number for each row."""
    return torch.where(x > 0.5, p, 1 - p).log().sum(1)


def by_network(config: Config, data: Splits, seen: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Log p of the unseen pixels by a net of the seen ones, exact, and its probabilities of a few."""
    pyro.set_rng_seed(seed)
    parts = [Loader(p.x[:, seen], p.batch_size, p.shuffle, seed=seed, more={"y": p.x[:, ~seen]}) for p in data]
    train, valid, test = (loader.giving("x", "y") for loader in parts)
    net = MLP(train.x_dim, *config.hidden, int((~seen).sum()), activation=torch.nn.Tanh)
    model, guide = Conditional(Bernoulli(net, train["y"].mean(0))), FullyObserved()
    course = Course(dataclasses.replace(config, warm_up=0), model, guide, train, valid, seed)
    check_ended(course)
    with torch.no_grad():
        whole = data.test.x[:SHOWN].clone()
        whole[:, ~seen] = net(whole[:, seen]).sigmoid()
    return log_px(model, guide, (test["x"], test["y"])).log_px, whole[None]


def by_cvae(config: Config, data: Splits, seen: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Log p of the unseen pixels by importance sampling, and three completions of a few."""
    pyro.set_rng_seed(seed)
    number = next(n for n in SEEN if torch.equal(quadrants(data.train, n), seen))
    setup = CVAESetup(config.z_dim, config.hidden, given="quadrants", quadrants=cast(Literal[1, 2, 3], number))
    model, guide = fresh_pair(setup, data.train, Diagonal)
    check_ended(Course(config, model, guide, data.train, data.valid, seed))
    values = log_px(model, guide, data.test.x, config.eval_particles, seed).log_px
    drawn = completed(cast(CVAE, model), data.test, min(SHOWN, data.test.num_data))
    return values, torch.stack([each for label, each in drawn.items() if label.startswith("completed")])


def check_ended(course: Course) -> None:
    """Raises ValueError where training ended before its time."""
    if course.error is not None:
        raise ValueError(f"lr led to numbers that are not finite: {course.error}; pass a smaller --lr")


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every number of quadrants with every way and seed; neighbours know no seed."""
    checksums = fingerprints(data)
    grid = product(config.quadrants, config.ways, range(config.seeds))
    return [
        Cell(f"{SEEN[number]} / {way} / seed {seed}", measured, config, names, checksums, names)
        for number, way, seed in grid
        if way != "neighbours" or not seed
        for names in [{"number": number, "way": way, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"log p {row['log_px']:.2f}   {row['seconds']:.0f} s"


def by_way(done: list[Done]) -> dict[tuple[int, Way], Tensor]:
    """{(quadrants, way): log p of each test image, mean over seeds}."""
    found: dict[tuple[int, Way], list[Tensor]] = {}
    for one in done:
        found.setdefault((one.record["quadrants"], one.record["way"]), []).append(one.tensors["log_px"].double())
    return {key: torch.stack(values).mean(0) for key, values in found.items()}


def table(config: Config, done: list[Done], number: int) -> Table:
    """log p(x_unseen | x_seen) by each way, the best first, and how much the best is ahead, paired by image."""
    found = {way: values for (n, way), values in by_way(done).items() if n == number}
    ways = sorted(found, key=lambda way: -found[way].mean().item())
    lines = []
    for way in ways:
        values, behind = found[way], found[ways[0]] - found[way]
        paired = None if way == ways[0] else (behind.mean().item(), error_of(behind))
        lines.append([LABELS[way], (values.mean().item(), error_of(values)), paired])
    return Table(
        [SEEN[number], "log p(x_unseen | x_seen)", "behind the best"],
        lines,
        f"Nats per image, {len(values)} test images, {counted(config.seeds, 'seed')}, with standard errors over "
        f"images, of differences paired by image. That of the CVAE is estimated by {config.eval_particles} importance "
        "samples, rather too low than too high.",
        dict.fromkeys(("log p(x_unseen | x_seen)", "behind the best"), ".2f"),
    )


def error_of(values: Tensor) -> float:
    return values.std().item() / len(values) ** 0.5


def verdict(done: list[Done]) -> str:
    """Who tells the rest best, and whether images tell it from the second."""
    said = []
    found = by_way(done)
    for number in dict.fromkeys(number for number, _ in found):
        ways = sorted((w for n, w in found if n == number), key=lambda w: -found[number, w].mean().item())
        line = f"{SEEN[number]}: {LABELS[ways[0]]} is best, {found[number, ways[0]].mean():.2f} nats"
        if len(ways) > 1:
            ahead = found[number, ways[0]] - found[number, ways[1]]
            sure = ahead.mean().item() > 2 * error_of(ahead)
            line += f", {ahead.mean():.2f} ahead of {LABELS[ways[1]]}" + (
                "" if sure else ", which images do not tell apart"
            )
        said.append(line + ".")
    return " ".join(said)


def pictures(config: Config, done: list[Done], test: Loader) -> Iterator[Picture]:
    """What each way makes of the same images."""
    from dlvm.experiments.figures import completions

    panels: dict[str, dict[str, Tensor]] = {}
    for one in done:
        number, way = one.record["quadrants"], cast(Way, one.record["way"])
        if one.record["seed"]:
            continue
        x = one.tensors["data"]
        rows = panels.setdefault(SEEN[number], {"seen": x.masked_fill(~quadrants(test, number), torch.nan)})
        filled = one.tensors["filled"]
        labels = [LABELS[way]] if len(filled) == 1 else [f"{LABELS[way]} {k + 1}" for k in range(len(filled))]
        rows |= dict(zip(labels, filled, strict=True))
        rows["data"] = rows.pop("data", x)
    title = "What is made of the part that is not seen"
    yield (
        "completions",
        completions(
            panels, cast(tuple[int, ...], test.image_shape), f"{test.name}: means of p(x_unseen | ...).", title
        ),
        "Probabilities of unseen pixels; of the CVAE for three draws of z from p(z | x_seen).",
    )


def main(config: Config) -> list[dict]:
    study = Study(config)
    check_warm_up(config.epochs, config.warm_up)
    check_different(config, "quadrants")
    data = data_of(config)
    for number in config.quadrants:
        quadrants(data.train, number)

    def answer(done: list[Done]) -> Answer:
        tables = [table(config, done, n) for n in dict.fromkeys(one.record["quadrants"] for one in done)]
        title = f"What do parts of {config.data} say of the rest?"
        return Answer(title, INTRO, tables, verdict(done), pictures(config, done, data.test))

    return study.compare(cells(config, data), told, answer)


if __name__ == "__main__":
    start(main, Config, "inpainting")
