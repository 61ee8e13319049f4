"""What fills holes best? Means, regressions, linear components, MIWAE and not-MIWAE, where the truth is known."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import pyro
import torch
from torch import Tensor

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.imputers import Holes, Standard, by_components, by_means, by_regressions, hidden
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, adam
from dlvm.experiments.options.guides import own
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.not_at_random import NotAtRandomSetup
from dlvm.experiments.setups.setup import Setup, fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints
from dlvm.guides import Diagonal
from dlvm.inference import IWAE, fit, impute

Way = Literal["mean", "iterative", "ppca", "miwae", "not_miwae"]
LABELS: dict[Way, str] = {
    "mean": "mean of the column",
    "iterative": "IterativeImputer",
    "ppca": "PPCA, exact",
    "miwae": "MIWAE",
    "not_miwae": "not-MIWAE",
}
INTRO = (
    "Numbers that are there are hidden, in training, validation and test data alike, and those of test data filled in "
    "by what was learned of training data with their holes. At random, each number is hidden alike; not at random, "
    "every other column loses its large numbers, by a logistic of the number itself, which no method is told. What was "
    "missing to begin with stays so, and counts in no error."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, DataOptions):
    """Hide numbers, fill them in by several methods, and compare the errors."""

    holes: tuple[Holes, ...] = ("random", "not_at_random")
    """Which numbers are hidden: random, each alike; not_at_random, of every other column, large ones rather."""
    share: float = 0.3
    """Of numbers that are hidden at random, and otherwise of those at their column's mean."""
    slope: float = 3.0
    """Not at random: of the logit of being hidden, per standard deviation of the column."""
    ways: tuple[Way, ...] = tuple(LABELS)
    """mean of the column; iterative, scikit-learn's IterativeImputer; ppca, by EM with exact conditional means; miwae
    and not_miwae, by importance sampling."""
    z_dim: int = 5
    """Latent dimensions of ppca, miwae and not_miwae."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of encoder and decoder."""
    likelihood: Literal["normal", "normal_learned", "normal_fixed", "laplace", "student_t"] = "normal_learned"
    """p(x | z) of miwae and not_miwae; see --model vae."""
    num_particles: int = 10
    """Of the bound in training."""
    eval_particles: int = 1000
    """Importance samples per datum that is filled in."""
    eval_data: int | None = None
    """Fill in so many test data only."""
    epochs: int = 50
    """Passes over the training data; the parameters of the best validation bound are kept."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    batch_size: int = 100
    """Data per step."""
    seeds: int = 3
    """Times that numbers are hidden and methods fitted."""
    out: Path = Path("runs/imputation")


def data_of(config: Config) -> Splits:
    """The data, of as many test rows as are asked for."""
    return config.splits().tested_on(config.eval_data)


def parts_of(config: Config, holes: Holes, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Training, validation and test data with holes, the truth of the last, and which numbers were hidden there."""
    whole = [part.x for part in data_of(config)]
    varies = (whole[0] - whole[0].nanmean(0)).square().nanmean(0) > 0
    whole = [x[:, varies] for x in whole]
    gone = [hidden(x, holes, config.share, config.slope, 3 * seed + i) for i, x in enumerate(whole)]
    return [x.masked_fill(m, torch.nan) for x, m in zip(whole, gone, strict=True)], whole[-1], gone[-1]


def measured(config: Config, holes: Holes, way: Way, seed: int) -> Done:
    """Fills in what was hidden of the test data, in one way."""
    parts, truth, gone = parts_of(config, holes, seed)
    began = time.perf_counter()
    found = filled(config, way, parts, seed)
    away = ((found - truth) / Standard.of(parts[0]).sd)[gone]
    record = {
        "rmse": away.square().mean().sqrt().item(),
        "bias": away.mean().item(),
        "hidden": int(gone.sum()),
        "seconds": time.perf_counter() - began,
    }
    return Done({"holes": holes, "way": way, "seed": seed} | record, {})


def filled(config: Config, way: Way, parts: list[Tensor], seed: int) -> Tensor:
    """The test data without holes."""
    train, valid, test = parts
    if way == "mean":
        return by_means(train, test)
    if way == "iterative":
        return by_regressions(train, test, seed)
    if way == "ppca":
        return by_components(train, test, config.z_dim, seed)
    return by_pair(config, way, Loader(train, config.batch_size, True, seed=seed, missing=True), valid, test, seed)


def setup_of(config: Config, way: Way) -> Setup:
    """The model of this way."""
    kind = VAESetup if way == "miwae" else NotAtRandomSetup
    return kind(config.z_dim, config.hidden, likelihood=config.likelihood)


def by_pair(config: Config, way: Way, train: Loader, valid: Tensor, test: Tensor, seed: int) -> Tensor:
    """What is missing by a trained model and guide: means under importance weights."""
    pyro.set_rng_seed(seed)
    model, guide = fresh_pair(setup_of(config, way), train, Diagonal if way == "miwae" else own)
    checked = Loader(valid, config.batch_size, missing=True)
    for _ in fit(
        model, guide, IWAE(config.num_particles), train, checked, config.epochs, adam(config.lr),
        seed=seed, progress=False, patience=config.epochs, engine="captured",
    ):  # fmt: skip
        pass
    return impute(model, guide, test, num_particles=config.eval_particles, seed=seed).mean


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every way with every kind of holes and every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{holes} / {way} / seed {seed}", measured, config, names, checksums, names)
        for seed, holes, way in product(range(config.seeds), config.holes, config.ways)
        for names in [{"holes": holes, "way": way, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"RMSE {row['rmse']:.3f} sd   {row['seconds']:.0f} s"


def errors_of(rows: list[dict], name: str = "rmse") -> dict[tuple[str, str], tuple[float, float | None]]:
    """{(holes, way): mean over seeds and its standard error, None of one seed}."""
    runs: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        runs.setdefault((row["holes"], row["way"]), []).append(row[name])
    return {key: (fmean(v), stdev(v) / len(v) ** 0.5 if len(v) > 1 else None) for key, v in runs.items()}


def table(config: Config, rows: list[dict], holes: str) -> Table:
    """Errors under one kind of holes, the least first."""
    errors, bias, seconds = (errors_of(rows, name) for name in ("rmse", "bias", "seconds"))
    ways = sorted((way for kind, way in errors if kind == holes), key=lambda way: errors[holes, way][0])
    lines = [[LABELS[w], *errors[holes, w], bias[holes, w][0], seconds[holes, w][0]] for w in ways]  # type: ignore[index]  # a mean is there
    return Table(
        [f"holes: {holes}", "RMSE", "standard error", "bias", "seconds"],
        lines,
        f"Root mean squared error of hidden numbers of test data, in standard deviations of what is left of their "
        f"column in training data, and mean error; means over {counted(config.seeds, 'seed')}.",
        {"RMSE": ".4f", "standard error": ".4f", "bias": ".3f", "seconds": ".1f"},
        {"RMSE": min},
    )


def verdict(rows: list[dict]) -> str:
    """Who comes first, and whether seeds tell it from the second."""
    errors, said = errors_of(rows), []
    for holes in dict.fromkeys(kind for kind, _ in errors):
        ways = sorted((way for kind, way in errors if kind == holes), key=lambda way: errors[holes, way][0])
        first, *rest = [(LABELS[way], *errors[holes, way]) for way in ways]  # type: ignore[index]  # as above
        line = f"{holes}: {first[0]} errs least, {first[1]:.3f} sd"
        if rest:
            width = 2 * ((first[2] or 0) ** 2 + (rest[0][2] or 0) ** 2) ** 0.5
            sure = first[2] is not None and rest[0][1] - first[1] > width
            line += f"; then {rest[0][0]}, {rest[0][1]:.3f}" + ("" if sure else ", which seeds do not tell from it")
        said.append(line + ".")
    return " ".join(said)


def pictures(config: Config, rows: list[dict], name: str) -> Iterator[Picture]:
    """The errors of all ways, side by side."""
    from dlvm.experiments.figures import imputation_errors

    points = [row | {"label": LABELS[row["way"]]} for row in rows]
    context = f"{name}, {counted(config.seeds, 'seed')}."
    yield "errors", imputation_errors(points, context), "Errors of hidden numbers of test data, by method."


def main(config: Config) -> list[dict]:
    study = Study(config)
    if not 0 < config.share < 1:
        raise ValueError(f"share must be between 0 and 1, got {config.share}; change --share")
    data = data_of(config)
    width = parts_of(config, config.holes[0], 0)[1].shape[1]
    if config.z_dim >= width:
        raise ValueError(f"z_dim must be below the {width} columns that vary, got {config.z_dim}; change --z-dim")

    def answer(done: list[Done]) -> Answer:
        rows = [one.record for one in done]
        tables = [table(config, rows, holes) for holes in dict.fromkeys(row["holes"] for row in rows)]
        drawn = pictures(config, rows, data.test.name)
        return Answer(f"What fills the holes of {config.data}?", INTRO, tables, verdict(rows), drawn)

    return study.compare(cells(config, data), told, answer)


if __name__ == "__main__":
    start(main, Config, "imputation")
