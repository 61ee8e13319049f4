"""Which objective trains best? One guide, many objectives, the same time for each, several seeds, on one data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import cast

import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.over_seeds import OverSeeds, over_seeds
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions
from dlvm.experiments.options.guides import GuideName, guide_label, guide_named
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.objectives import Numbers, baseline_of, objective_of
from dlvm.experiments.runs.recipe import data_of
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_time import TimeOptions, cost_of, race, reached
from dlvm.inference import SVI, Objective, check, evaluate
from dlvm.inference.programs.randomness import untouched

LABELS = {
    "elbo": "ELBO",
    "analytic_kl": "ELBO, analytic KL",
    "iwae": "IWAE",
    "renyi": "Renyi",
    "vr_max": "VR-max",
    "miwae": "MIWAE",
    "piwae": "PIWAE",
    "ciwae": "CIWAE",
    "cubo": "IWAE + CUBO",
    "tvo": "TVO",
    "wake_sleep": "wake-sleep",
    "rws": "RWS",
    "fivo": "FIVO",
    "maximum_likelihood": "maximum likelihood",
    "total": "",
    "stl": "STL",
    "dreg": "DReG",
    "score": "score function",
    "nvil": "NVIL",
    "gumbel": "Gumbel-softmax",
    "straight_through": "straight-through",
    "disarm": "DisARM",
    "rebar": "REBAR",
    "relax": "RELAX",
    "relax_net": "RELAX, net alone",
    "gumbel_rao": "Gumbel-Rao",
    "enumeration": "summed over classes",
    "vimco": "VIMCO",
}
DRAWS_OF_THE_BOUND = 20


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, TimeOptions, Numbers, ModelOptions, DataOptions):
    """Train one model and guide by every objective for the same time, and compare what log p(x) they reach."""

    objectives: tuple[str, ...] = (
        "elbo", "analytic_kl", "iwae", "iwae:dreg", "renyi", "vr_max", "miwae", "piwae", "ciwae", "tvo",
        "wake_sleep", "rws", "rws:dreg",
    )  # fmt: skip
    """What is compared: a word of --objective in dlvm.experiments.train, alone or as word:estimator. cubo needs tens of
    particles, see its documentation."""
    guide: GuideName = "diagonal"
    setup: Setup = VAESetup(8, (100, 100))
    num_particles: int = 8
    """Samples of z per datum at every step, in all, for every objective."""
    seeds: int = 2
    """Runs per objective."""
    out: Path = Path("runs/compare_bounds")

    @property
    def family(self) -> str:
        return guide_label(self.guide)


def pair(config: Config, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    return fresh_pair(config.setup, train, guide_named(config.guide))


def objective_named(config: Config, name: str, train: Loader) -> Objective:
    """The objective for a word or word:estimator."""
    word, _, estimator = name.partition(":")
    try:
        return objective_of(word, config, estimator or "total", baseline_of(train, lambda: pair(config, train)[1]))
    except ValueError as error:
        raise ValueError(f"objectives, {name!r}: {error}") from error


def label(name: str) -> str:
    return ", ".join(filter(None, (LABELS[word] for word in name.split(":") if word)))


def own_bound(objective: Objective, model: nn.Module, guide: nn.Module, test: Loader) -> float:
    """What the objective itself says of the test data, nats per datum, averaged over draws."""
    svi = SVI(model, guide, torch.optim.Adam, objective, engine="eager")

    def loss_of(batch: tuple[Tensor, ...]) -> float:
        return cast(float, svi.evaluate_loss(*batch))  # an objective of ours has one

    with untouched(0):
        losses = [sum(map(loss_of, test)) for _ in range(DRAWS_OF_THE_BOUND)]
    return -fmean(losses) / test.num_data


def trained(config: Config, name: str, seed: int) -> Done:
    """One pair by one objective: what it is worth, what its training cost, and how it went."""
    data = data_of(config)
    objective = objective_named(config, name, data.train)
    racer = race(config, seed, partial(pair, config, data.train), objective, data)
    row = {"objective": label(name), "seed": seed, "definition": repr(objective), "history": racer.looks}
    if racer.error is not None:
        return Done(row | {"error": racer.error}, {})
    found = evaluate(racer.model, racer.guide, data.test, num_particles=config.eval_particles)
    own = {"bound": own_bound(objective, racer.model, racer.guide, data.test), "lower": objective.bound.side == "lower"}
    return Done(row | cost_of(racer.looks) | dataclasses.asdict(found) | own, states(racer.model, racer.guide))


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every objective with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{word}, seed {seed}", trained, config, names, checksums, {"objective": word, "seed": seed})
        for seed in range(config.seeds)
        for name in config.objectives
        for word, names in [(label(name), {"name": name, "seed": seed})]
    ]


def line(name: str, runs: OverSeeds) -> list:
    """An objective's line of the table."""
    return (
        [name, (runs.log_px, runs.log_px_se), runs.spread, runs.mean("elbo"), runs.mean("bound")]
        + ["below" if runs.first["lower"] else "no bound", runs.mean("rate"), runs.mean("distortion")]
        + [runs.mean("active_units"), runs.mean("khat_bad"), runs.mean("ms_per_step"), round(runs.mean("steps"))]
    )


def summary(rows: list[dict], config: Config) -> Table:
    """One line an objective, means over seeds, the highest log p(x) first."""
    lines = [line(name, runs) for (name,), runs in over_seeds(rows, "objective").items()]
    columns = ["objective", "log p(x)", "sd of seeds", "ELBO", "own bound", "side", "rate", "distortion"]
    columns += ["active units", "k-hat > 0.7", "ms / step", "steps"]
    fine = ("sd of seeds", "ELBO", "own bound", "k-hat > 0.7", "ms / step")
    return Table(
        columns,
        sorted(lines, key=lambda line: -line[1][0]),
        f"{rows[0]['num_data']} test data, nats per datum; means over {counted(config.seeds, 'seed')}, "
        f"{config.effort} of steps each, {config.num_particles} particles; ± is the Monte Carlo standard error of "
        f"{config.eval_particles} importance samples; where k-hat exceeds 0.7 for many data, log p(x) is too low by "
        "more than that.",
        {"log p(x)": ".3f"}
        | {column: ".2f" for column in fine}
        | {column: ".1f" for column in ("rate", "distortion", "active units")},
        {"log p(x)": max, "ELBO": max, "ms / step": min},
    )


def verdict(rows: list[dict], config: Config) -> str:
    """What the numbers say: who is best, who cannot be told from that, whose guide is closest, what a step costs."""
    found = {name: runs for (name,), runs in over_seeds(rows, "objective").items()}
    names, log_px = list(found), {name: runs.log_px for name, runs in found.items()}
    order = sorted(names, key=lambda name: -log_px[name])
    best = order[0]
    said = [f"After {config.effort} each, {best} reaches the highest log p(x): {log_px[best]:.2f} nats per datum."]
    spreads = [runs.spread for runs in found.values() if runs.spread is not None]
    if spreads and len(names) > 1:
        least = 2 * median(spreads) * (2 / config.seeds) ** 0.5
        close = [name for name in order[1:] if log_px[best] - log_px[name] < least]
        worst = order[-1]
        said.append(
            f"Not to be told from it ({least:.2f} nats, twice the standard error of a difference between means over "
            f"{config.seeds} seeds): {', '.join(close) or 'none'}."
        )
        if worst not in close:
            said.append(f"{worst} comes last with {log_px[worst]:,.2f}.")
    if len(names) == 1:
        return " ".join(said)
    gap = {name: log_px[name] - runs.mean("elbo") for name, runs in found.items()}
    cost = {name: runs.mean("ms_per_step") for name, runs in found.items()}
    tight = min(names, key=gap.__getitem__)
    quick, slow = min(names, key=cost.__getitem__), max(names, key=cost.__getitem__)
    said.append(f"{tight} trains the guide closest to the posterior: ELBO {gap[tight]:.2f} nats below log p(x).")
    costs = [f"{cost[name]:.2f} ms ({name})" for name in (quick, slow)]
    said.append(f"A step takes from {' to '.join(costs)}.")
    return " ".join(said)


def pictures(config: Config, rows: list[dict], name: str) -> Iterator[Picture]:
    """Every figure of the comparison."""
    from dlvm.experiments.figures import own_bounds, reached, timed_curves

    context = f"{name}, {config.family} guide, {config.effort} per run"
    clock = "seconds" if config.epochs is None else "epochs"
    histories = {objective: runs.all("history") for (objective,), runs in over_seeds(rows, "objective").items()}
    yield (
        "reached",
        reached(rows, context),
        "Test log p(x) of each objective, and what its step costs; an arrow stands for a value beyond the axis.",
    )
    yield (
        "timed_curves",
        timed_curves(histories, context, clock),
        f"Validation log p(x) against {clock} of training, by {config.valid_particles} importance samples.",
    )
    yield (
        "own_bounds",
        own_bounds(rows, context),
        "The ELBO, what the objective itself reports, and log p(x), all on the test data.",
    )


def subject(config: Config, data: Splits) -> str:
    """The model in words."""
    return f"{word_of(type(config.setup))} with {described(config.setup.model(data.train), data.train)}"


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    if not config.objectives:
        raise ValueError("objectives must name at least one; elbo, or iwae:dreg")
    data = data_of(config)
    model, guide = pair(config, data.train)
    for name in config.objectives:
        check(model, guide, objective_named(config, name, data.train), *data.train.examples)
    if len({label(name) for name in config.objectives}) < len(config.objectives):
        raise ValueError(
            f"objectives must differ, got {' '.join(config.objectives)}; for more runs of each set --seeds"
        )
    return data


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = checked(config)  # what cannot work is found before a folder is made

    def answer(done: list[Done]) -> Answer:
        rows = [one.record for one in done]
        intro = (
            f"p(x, z) is {subject(config, data)}, q(z | x) a {config.family} guide: the same networks, data and "
            f"{config.num_particles} particles for every objective, {config.effort} of Adam steps each. The clock "
            "counts the processor's time for steps alone, so that waiting for the processor costs nothing.\n\n"
            "Objectives cannot be compared by their own bounds, which differ in what they leave out. So every run is "
            f"judged by one number, log p(x) by importance sampling: with {config.valid_particles} samples on the "
            "validation data, to keep the best state of a run, and with more on the test data, for what is reported."
        )
        title = f"Which objective trains best on {config.data}?"
        drawn = pictures(config, rows, f"{data.train.name}, {word_of(type(config.setup))}")
        return Answer(title, intro, [summary(rows, config)], verdict(rows, config), drawn)

    return study.compare(cells(config, data), reached, answer)


if __name__ == "__main__":
    start(main, Config, "compare_bounds")
