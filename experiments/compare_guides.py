"""Which guide gives the tighter bound? Guides of any family under three objectives, several seeds, on one data set."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import pyro
import torch
import tyro
from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.experiments.options import common, guides, objectives
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.options.common import splits
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table, print_table
from dlvm.experiments.setups import pictures, vae
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.sweep import Sweep, sweep
from dlvm.experiments.sweeps.workers import Backend, Workers
from dlvm.guides import latents
from dlvm.inference import NonFinite, evaluate, fit
from dlvm.inference.training.run_state import under
from dlvm.models import VAE
from dlvm.nets import MLP

MOST_BY_GRID = 300
OBJECTIVES = {"elbo": "ELBO", "analytic_kl": "analytic-KL ELBO", "iwae": "IWAE"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare guides under {ELBO, analytic-KL ELBO, IWAE} on a data set, by name or file."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, or a path to an .npz, .npy or .csv file of grey or binary data."""
    key: str | None = None
    """Which array of an .npz file."""
    scale: float | None = None
    """Divide a file's numbers by this first (255 for 8-bit images)."""
    guides: tuple[guides.GuideWord, ...] = ("diagonal", "full_rank", "iaf")
    """Families of q(z | x)."""
    z_dim: int = 2
    """Latent dimensions; with 2, posteriors are drawn and log p(x) comes from a grid."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder, and in reverse of the decoder; tanh."""
    num_particles: int = 5
    """Samples of z per datum for IWAE."""
    seeds: int = 3
    """Runs per guide and objective."""
    epochs: int = 50
    """Passes over the training data."""
    batch_size: int = 50
    """Data per step."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    eval_particles: int = 1000
    """Importance samples per test datum."""
    eval_data: int | None = None
    """Evaluate on so many test data only."""
    jobs: int = 2
    """Runs at a time, one CPU thread each; -1 for all cores."""
    backend: Backend = "loky"
    """Where runs go: processes of this machine, or a Dask or Ray cluster."""
    cluster: str | None = None
    """Address of the cluster, such as tcp://host:8786."""
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/compare_guides")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder; without it, the same command goes on with one that has not finished."""


def label_of(guide: str) -> str:
    """What tables and figures call a guide."""
    return guides.GUIDES[guide].__name__


def pair(config: Config, guide: str, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    likelihood = vae.bernoulli(config.z_dim, config.hidden[::-1], train.x_dim, nn.Tanh, train.mean)
    model = VAE(config.z_dim, likelihood)
    encoder = MLP(train.x_dim, *config.hidden, activation=nn.Tanh)
    return model, guides.GUIDES[guide](latents(model, train.example), encoder)


def restored(config: Config, done: Done, train: Loader) -> tuple[nn.Module, nn.Module]:
    """The trained model and guide of a finished run."""
    model, guide = pair(config, done.record["guide"], train)
    model.load_state_dict(under(done.tensors, "model"))
    guide.load_state_dict(under(done.tensors, "guide"))
    return model, guide


def trained(config: Config, guide: str, objective: str, seed: int, frozen: dict | None = None) -> Done:
    """Trains and evaluates one pair; with ``frozen``, the state of a trained model, only the guide is trained."""
    train, valid, test = splits(config)
    pyro.set_rng_seed(seed)
    model, q = pair(config, guide, train)
    if frozen is not None:
        model.load_state_dict(frozen)
        model.requires_grad_(False)
    bound = objectives.objective(objective, objectives.Numbers(config.num_particles if objective == "iwae" else 1))
    adam = partial(torch.optim.Adam, lr=config.lr, fused=True)
    name = {"guide": guide, "objective": objective, "seed": seed}
    history = []
    try:
        for epoch in fit(model, q, bound, train, valid, config.epochs, adam, seed=seed, progress=False):
            history.append(dataclasses.asdict(epoch))
    except NonFinite as error:
        return Done(name | {"history": history, "error": str(error)}, {})
    result = dataclasses.asdict(evaluate(model, q, test, num_particles=config.eval_particles))
    more = {
        "history": history,
        "kl": "analytic" if "analytic" in history[-1]["kl"].values() else "Monte Carlo",
        "seconds": fmean(record["seconds"] for record in history),
        "parameters": common.count(model, q),
    }
    return Done(name | result | more, states(model, q))


def grid_of_runs(config: Config, data: Splits, run: Run) -> Sweep:
    """Every guide under every objective with every seed."""
    checksums = fingerprints(data)
    cells = [
        Cell(f"{guide} / {objective} / seed {seed}", trained, config, names, checksums, names)
        for guide, objective, seed in product(config.guides, OBJECTIVES, range(config.seeds))
        for names in [{"guide": guide, "objective": objective, "seed": seed}]
    ]
    return sweep(cells, run, Workers.of(config), told)


def told(row: dict) -> str:
    return f"ELBO {row['elbo']:.2f}   log p(x) {row['log_px']:.2f}"


def summary(rows: list[dict], config: Config) -> Table:
    """One line per guide and objective, means over seeds."""
    lines = []
    for guide, objective in product(config.guides, OBJECTIVES):
        seeds = [row for row in rows if (row["guide"], row["objective"]) == (guide, objective)]
        if not seeds:
            continue
        mean = {key: fmean(row[key] for row in seeds) for key in ("elbo", "log_px", "active_units", "seconds")}
        se = fmean(row["log_px_se"] ** 2 for row in seeds) ** 0.5 / len(seeds) ** 0.5
        spread = stdev(row["log_px"] for row in seeds) if len(seeds) > 1 else None
        gap = mean["log_px"] - mean["elbo"]
        kl, size = seeds[0]["kl"], seeds[0]["parameters"]
        lines.append(
            [label_of(guide), OBJECTIVES[objective], kl, mean["elbo"], (mean["log_px"], se), spread, gap]
            + [mean["active_units"], mean["seconds"], size]
        )
    columns = ["guide", "objective", "KL", "test ELBO", "log p(x)", "sd of seeds", "gap", "active units", "s / epoch"]
    return Table(
        [*columns, "parameters"],
        lines,
        f"{rows[0]['num_data']} test data, nats per datum; means over {config.seeds} seeds; ± is the Monte Carlo "
        f"standard error of {config.eval_particles} importance samples; model and guide trained together.",
        {
            "test ELBO": ".2f",
            "log p(x)": ".3f",
            "sd of seeds": ".2f",
            "gap": ".3f",
            "active units": ".1f",
            "s / epoch": ".2f",
        },
        {"test ELBO": max, "log p(x)": max},
    )


def on_one_model(config: Config, done: list[Done], run: Run) -> tuple[Table, nn.Module, dict[str, nn.Module], Sweep]:
    """Every guide trained anew on one frozen model, so that only the guide differs: table, model, guides, cells."""
    by_bound = [found for found in done if found.record["objective"] != "iwae"]
    chosen = max(by_bound, key=lambda found: found.record["log_px"], default=done[0])
    best, frozen = chosen.record, under(chosen.tensors, "model")
    fewer = dataclasses.replace(config, eval_data=min(MOST_BY_GRID, config.eval_data or MOST_BY_GRID))
    train, _, few = data = splits(fewer)
    checksums = fingerprints(data)
    cells = [
        Cell(f"{guide} on one model", trained, fewer, names, checksums)
        for guide in config.guides
        for names in [{"guide": guide, "objective": "elbo", "seed": 0, "frozen": frozen}]
    ]
    found = sweep(cells, run, Workers.of(config), told)
    if not found.done:
        found.end(run)
    refits = {label_of(row["guide"]): row for row in found.rows}
    pairs = {label: restored(config, one, train) for label, one in zip(refits, found.done, strict=True)}
    model = next(iter(pairs.values()))[0]
    if config.z_dim == 2:
        log_px, how = densities(model, {}, few.x).log_px.mean().item(), "by a grid"
    else:
        log_px, how = max(row["log_px"] for row in refits.values()), "at least: the highest estimate"
    columns = ["guide", "test ELBO", "gap", "log p(x) by sampling", "k-hat > 0.7"]
    table = Table(
        columns,
        [
            [label, row["elbo"], log_px - row["elbo"], (row["log_px"], row["log_px_se"]), row["khat_bad"]]
            for label, row in refits.items()
        ],
        f"One frozen model for all ({label_of(best['guide'])}, {OBJECTIVES[best['objective']]}, seed {best['seed']}), "
        f"only the guide trained, by the ELBO; {few.num_data} test data. log p(x) is {log_px:.3f} ({how}); the gap "
        "below it is KL(q(z | x) || p(z | x)).",
        dict.fromkeys(columns[1:], ".3f"),
        {"test ELBO": max, "gap": min},
    )
    return table, model, {label: guide for label, (_, guide) in pairs.items()}, found


def draw(config: Config, done: list[Done], model: nn.Module, programs: dict[str, nn.Module], run: Run) -> None:
    """Every figure of the comparison."""
    train, _, test = splits(config)
    context = f"{train.name}, {config.z_dim} latent dimensions"
    rows = [found.record for found in done]
    named = [row | {"guide": label_of(row["guide"]), "objective": OBJECTIVES[row["objective"]]} for row in rows]
    shown = [found for found in done if found.record["seed"] == 0 and found.record["objective"] == "elbo"]
    pairs = {label_of(found.record["guide"]): restored(config, found, train) for found in shown}
    for name, figure, caption in pictures.of_comparison(named, pairs, test, context):
        run.figure(name, figure, caption)
    if config.z_dim == 2:
        for name, figure, caption in pictures.of_one_model(model, programs, test, context):
            run.figure(name, figure, caption)


def verdict(table: Table) -> str:
    """Which guide is tighter, from the table with one frozen model."""
    order = sorted(table.rows, key=lambda row: row[2])
    said = ", ".join(f"{row[0]} {row[2]:.3f}" for row in order)
    return (
        f"{order[0][0]} gives the tightest bound. Gap between log p(x) and the ELBO on one frozen model, nats per "
        f"datum: {said}."
    )


def main(config: Config) -> list[dict]:
    started = time.perf_counter()
    torch.set_num_threads(1)
    check_options(config)
    data = splits(config)  # what cannot be loaded is found before a folder is made
    run = Run(config.out, dataclasses.asdict(config), overwrite=config.overwrite, goes_on=True)
    grid = grid_of_runs(config, data, run)
    plain = [{k: v for k, v in row.items() if k != "history"} for row in grid.rows]
    run.result(runs=plain, failed=grid.failed)
    if not grid.done:
        grid.end(run)
    first = summary(grid.rows, config)
    second, model, programs, refits = on_one_model(config, grid.done, run)
    both = Sweep(grid.done + refits.done, grid.failed | refits.failed)
    run.result(runs=plain, one_model=second.text, failed=both.failed)
    tables = [first, second, *both.tables()]
    for table in tables:
        print_table(table)
    with pyro.get_param_store().scope():
        draw(config, grid.done, model, programs, run)
    intro = (
        "p(z) p(x | z) is a VAE with a Bernoulli decoder; q(z | x) is amortised by a network of the same size for "
        f"every guide. {config.epochs} epochs of Adam, {config.num_particles} particles for IWAE.\n\n"
        "ELBO = log p(x) - KL(q(z | x) || p(z | x)): a better guide narrows the gap, and lets the model use what "
        "it gains."
    )
    report = run.report(f"Which guide gives the tighter bound on {config.data}?", intro, tables, verdict(second))
    print(verdict(second))
    print(f"{time.perf_counter() - started:.0f} s; report: {report}")
    both.end(run)
    return grid.rows


if __name__ == "__main__":
    start(main, Config, "compare_guides")
