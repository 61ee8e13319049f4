"""Which objective trains best? One guide, many objectives, the same time for each, several seeds, on one data set."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from dlvm.experiments import figures
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options import guides, objectives
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.options.common import splits
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table, print_table
from dlvm.experiments.setups import vae
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_time import cost_of, counted, race, reached
from dlvm.experiments.sweeps.sweep import Sweep, sweep
from dlvm.experiments.sweeps.workers import Backend, Workers
from dlvm.guides import latents
from dlvm.inference import SVI, Objective, check, evaluate
from dlvm.inference.programs.randomness import untouched
from dlvm.models import VAE
from dlvm.nets import MLP

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
    "total": "",
    "stl": "STL",
    "dreg": "DReG",
    "score": "score function",
    "vimco": "VIMCO",
}
DRAWS_OF_THE_BOUND = 20


@dataclasses.dataclass(frozen=True)
class Config:
    """Train one model and guide by every objective for the same time, and compare what log p(x) they reach."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, or a path to an .npz, .npy or .csv file of grey or binary data."""
    key: str | None = None
    """Which array of an .npz file."""
    scale: float | None = None
    """Divide a file's numbers by this first (255 for 8-bit images)."""
    objectives: tuple[str, ...] = (
        "elbo", "analytic_kl", "iwae", "iwae:dreg", "renyi", "vr_max", "miwae", "piwae", "ciwae", "tvo",
        "wake_sleep", "rws", "rws:dreg",
    )  # fmt: skip
    """What is compared: a word of --objective in dlvm.experiments.train, alone or as word:estimator. cubo needs tens of
    particles, see its documentation."""
    guide: guides.GuideWord = "diagonal"
    """Family of q(z | x), the same for all."""
    z_dim: int = 8
    """Latent dimensions."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder, and in reverse of the decoder; tanh."""
    num_particles: int = 8
    """Samples of z per datum at every step, in all, for every objective."""
    groups: int = 2
    """For miwae and piwae: in how many groups the particles are drawn."""
    alpha: float = 0.5
    """For renyi: order of the bound."""
    beta: float = 0.5
    """For ciwae: share of the ELBO."""
    order: float = 2.0
    """For cubo: order of the chi bound."""
    intervals: int = 5
    """For tvo: into how many the path from q to p is cut."""
    sleep: float = 0.5
    """For rws: share of the sleep phase in the guide's update."""
    seeds: int = 2
    """Runs per objective."""
    seconds: float = 8.0
    """Processor time for the steps of each run, the same for all."""
    epochs: int | None = None
    """Instead of seconds: passes over the training data, the same number for all."""
    batch_size: int = 50
    """Data per step."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    engine: Literal["captured", "eager"] = "captured"
    """How steps run, the same for all; the time of a capture counts."""
    looks: int = 20
    """How often in a run log p(x) is estimated on validation data; the best state is kept."""
    valid_particles: int = 50
    """Importance samples per validation datum."""
    eval_particles: int = 1000
    """Importance samples per test datum."""
    eval_data: int | None = None
    """Evaluate on so many test data only."""
    jobs: int = 1
    """Runs at a time, one CPU thread each; -1 for all cores. Times are best compared with 1."""
    backend: Backend = "loky"
    """Where runs go: processes of this machine, or a Dask or Ray cluster."""
    cluster: str | None = None
    """Address of the cluster, such as tcp://host:8786."""
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/compare_bounds")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder; without it, the same command goes on with one that has not finished."""

    @property
    def family(self) -> str:
        return guides.GUIDES[self.guide].__name__

    @property
    def effort(self) -> str:
        return f"{self.seconds:g} s" if self.epochs is None else counted(self.epochs, "epoch")


def pair(config: Config, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    likelihood = vae.bernoulli(config.z_dim, config.hidden[::-1], train.x_dim, nn.Tanh, train.mean)
    model = VAE(config.z_dim, likelihood)
    encoder = MLP(train.x_dim, *config.hidden, activation=nn.Tanh)
    return model, guides.GUIDES[config.guide](latents(model, train.example), encoder)


def objective_of(config: Config, name: str) -> Objective:
    """The objective for a word or word:estimator."""
    word, _, estimator = name.partition(":")
    try:
        return objectives.objective(word, objectives.Numbers.of(config), estimator or "total")
    except ValueError as error:
        raise ValueError(f"objectives, {name!r}: {error}") from error


def label(name: str) -> str:
    return ", ".join(filter(None, (LABELS[word] for word in name.split(":") if word)))


def own_bound(objective: Objective, model: nn.Module, guide: nn.Module, test: Loader) -> float:
    """What the objective itself says of the test data, nats per datum, averaged over draws."""
    svi = SVI(model, guide, torch.optim.Adam, objective, engine="eager")
    with untouched(0):
        losses = [sum(svi.evaluate_loss(*batch) for batch in test) for _ in range(DRAWS_OF_THE_BOUND)]
    return -fmean(losses) / test.num_data


def trained(config: Config, name: str, seed: int) -> Done:
    """One pair by one objective: what it is worth, what its training cost, and how it went."""
    data = splits(config)
    objective = objective_of(config, name)
    racer = race(config, seed, partial(pair, config, data.train), objective, data)
    row = {"objective": label(name), "seed": seed, "definition": repr(objective), "history": racer.looks}
    if racer.error is not None:
        return Done(row | {"error": racer.error}, {})
    found = evaluate(racer.model, racer.guide, data.test, num_particles=config.eval_particles)
    own = {"bound": own_bound(objective, racer.model, racer.guide, data.test), "lower": objective.bound.side == "lower"}
    return Done(row | cost_of(racer.looks) | dataclasses.asdict(found) | own, states(racer.model, racer.guide))


def all_runs(config: Config, data: Splits, run: Run) -> Sweep:
    """Every objective with every seed."""
    checksums = fingerprints(data)
    cells = [
        Cell(
            f"{label(name)}, seed {seed}",
            trained,
            config,
            {"name": name, "seed": seed},
            checksums,
            {"objective": label(name), "seed": seed},
        )
        for seed in range(config.seeds)
        for name in config.objectives
    ]
    return sweep(cells, run, Workers.of(config), reached)


def summary(rows: list[dict], config: Config) -> Table:
    """One line an objective, means over seeds, the highest log p(x) first."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["objective"], []).append(row)
    lines = []
    for name, seeds in groups.items():
        mean = {key: fmean(row[key] for row in seeds) for key, value in seeds[0].items() if isinstance(value, float)}
        se = fmean(row["log_px_se"] ** 2 for row in seeds) ** 0.5 / len(seeds) ** 0.5
        spread = stdev(row["log_px"] for row in seeds) if len(seeds) > 1 else None
        lines.append(
            [name, (mean["log_px"], se), spread, mean["elbo"], mean["bound"]]
            + ["below" if seeds[0]["lower"] else "no bound", mean["rate"], mean["distortion"]]
            + [fmean(row["active_units"] for row in seeds), mean["khat_bad"]]
            + [mean["ms_per_step"], round(fmean(row["steps"] for row in seeds))]
        )
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
    names = list(dict.fromkeys(row["objective"] for row in rows))
    seeds = {name: [row for row in rows if row["objective"] == name] for name in names}
    mean = {name: {k: fmean(r[k] for r in seeds[name]) for k in ("log_px", "elbo", "ms_per_step")} for name in names}
    order = sorted(names, key=lambda name: -mean[name]["log_px"])
    best = order[0]
    reached = f"{best} reaches the highest log p(x): {mean[best]['log_px']:.2f} nats per datum."
    said = [f"After {config.effort} each, {reached}"]
    spreads = [stdev(row["log_px"] for row in runs) for runs in seeds.values() if len(runs) > 1]
    if spreads and len(names) > 1:
        least = 2 * median(spreads) * (2 / config.seeds) ** 0.5
        close = [name for name in order[1:] if mean[best]["log_px"] - mean[name]["log_px"] < least]
        worst = order[-1]
        said.append(
            f"Not to be told from it ({least:.2f} nats, twice the standard error of a difference between means over "
            f"{config.seeds} seeds): {', '.join(close) or 'none'}."
        )
        if worst not in close:
            said.append(f"{worst} comes last with {mean[worst]['log_px']:,.2f}.")
    if len(names) == 1:
        return " ".join(said)
    gap = {name: mean[name]["log_px"] - mean[name]["elbo"] for name in names}
    tight, quick, slow = min(names, key=gap.get), *(f(names, key=lambda n: mean[n]["ms_per_step"]) for f in (min, max))
    said.append(f"{tight} trains the guide closest to the posterior: ELBO {gap[tight]:.2f} nats below log p(x).")
    costs = [f"{mean[name]['ms_per_step']:.2f} ms ({name})" for name in (quick, slow)]
    said.append(f"A step takes from {' to '.join(costs)}.")
    return " ".join(said)


def draw(config: Config, rows: list[dict], name: str, run: Run) -> None:
    """Every figure of the comparison."""
    context = f"{name}, {config.family} guide, {config.z_dim} latent dimensions, {config.effort} per run"
    clock = "seconds" if config.epochs is None else "epochs"
    histories: dict[str, list] = {}
    for row in rows:
        histories.setdefault(row["objective"], []).append(row["history"])
    run.figure(
        "reached",
        figures.reached(rows, context),
        "Test log p(x) of each objective, and what its step costs; an arrow stands for a value beyond the axis.",
    )
    run.figure(
        "timed_curves",
        figures.timed_curves(histories, context, clock),
        f"Validation log p(x) against {clock} of training, by {config.valid_particles} importance samples.",
    )
    run.figure(
        "own_bounds",
        figures.own_bounds(rows, context),
        "The ELBO, what the objective itself reports, and log p(x), all on the test data.",
    )


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    check_options(config)
    if not config.objectives:
        raise ValueError("objectives must name at least one; elbo, or iwae:dreg")
    data = splits(config)
    model, guide = pair(config, data.train)
    for name in config.objectives:
        check(model, guide, objective_of(config, name), data.train.example)
    if len({label(name) for name in config.objectives}) < len(config.objectives):
        raise ValueError(
            f"objectives must differ, got {' '.join(config.objectives)}; for more runs of each set --seeds"
        )
    return data


def main(config: Config) -> list[dict]:
    started = time.perf_counter()
    torch.set_num_threads(1)
    data = checked(config)  # what cannot work is found before a folder is made
    run = Run(config.out, dataclasses.asdict(config), overwrite=config.overwrite, goes_on=True)
    found = all_runs(config, data, run)
    rows = found.rows
    run.result(runs=[{k: v for k, v in row.items() if k != "history"} for row in rows], failed=found.failed)
    if not rows:
        found.end(run)
    tables, said = [summary(rows, config), *found.tables()], verdict(rows, config)
    for table in tables:
        print_table(table)
    draw(config, rows, data.train.name, run)
    intro = (
        f"p(z) p(x | z) is a VAE with a Bernoulli decoder, q(z | x) a {config.family} guide: the same "
        f"networks, data and {config.num_particles} particles for every objective, {config.effort} of Adam steps each. "
        "The clock counts the processor's time for steps alone, so that waiting for the processor costs nothing.\n\n"
        "Objectives cannot be compared by their own bounds, which differ in what they leave out. So every run is "
        f"judged by one number, log p(x) by importance sampling: with {config.valid_particles} samples on the "
        "validation data, to keep the best state of a run, and with more on the test data, for what is reported."
    )
    report = run.report(f"Which objective trains best on {config.data}?", intro, tables, said)
    print(said)
    print(f"{time.perf_counter() - started:.0f} s; report: {report}")
    found.end(run)
    return rows


if __name__ == "__main__":
    start(main, Config, "compare_bounds")
