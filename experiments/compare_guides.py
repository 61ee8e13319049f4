"""Which guide gives the tighter bound? Guides of any family under three objectives, several seeds, on one data set."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import pyro
import torch
import tyro
from joblib import Parallel, delayed
from torch import nn

from experiments import choices, pictures
from experiments.choices import splits
from experiments.cli import start
from experiments.data import Loader
from experiments.grids import densities
from experiments.report import Table, print_table
from experiments.runs import Run
from guides import latents
from inference import NonFinite, evaluate, fit
from models import VAE
from nets import MLP

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
    guides: tuple[choices.GuideWord, ...] = ("diagonal", "full_rank", "iaf")
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
    """Runs at a time, one CPU thread each."""
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/compare_guides")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder."""


def label_of(guide: str) -> str:
    """What tables and figures call a guide."""
    return choices.GUIDES[guide].__name__


def pair(config: Config, guide: str, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    likelihood = choices.bernoulli(config.z_dim, config.hidden[::-1], train.x_dim, nn.Tanh, train.mean)
    model = VAE(config.z_dim, likelihood)
    encoder = MLP(train.x_dim, *config.hidden, activation=nn.Tanh)
    return model, choices.GUIDES[guide](latents(model, train.example), encoder)


def restored(config: Config, row: dict, train: Loader) -> tuple[nn.Module, nn.Module]:
    """The trained model and guide of a finished run."""
    model, guide = pair(config, row["guide"], train)
    model.load_state_dict(row["model"])
    guide.load_state_dict(row["guide_state"])
    return model, guide


def cell(config: Config, guide_name: str, objective: str, seed: int, frozen: dict | None = None) -> dict:
    """Trains and evaluates one pair; with ``frozen``, the state of a trained model, only the guide is trained."""
    torch.set_num_threads(1)
    train, valid, test = splits(config)
    pyro.set_rng_seed(seed)
    model, guide = pair(config, guide_name, train)
    if frozen is not None:
        model.load_state_dict(frozen)
        model.requires_grad_(False)
    bound = choices.objective(objective, choices.Numbers(config.num_particles if objective == "iwae" else 1))
    adam = partial(torch.optim.Adam, lr=config.lr, fused=True)
    name = {"guide": guide_name, "objective": objective, "seed": seed}
    history = []
    try:
        for epoch in fit(model, guide, bound, train, valid, config.epochs, adam, seed=seed, progress=False):
            history.append(dataclasses.asdict(epoch))
    except NonFinite as error:
        return name | {"history": history, "error": str(error)}
    result = dataclasses.asdict(evaluate(model, guide, test, num_particles=config.eval_particles))
    return (
        name
        | result
        | {
            "history": history,
            "kl": "analytic" if "analytic" in history[-1]["kl"].values() else "Monte Carlo",
            "seconds": fmean(record["seconds"] for record in history),
            "parameters": choices.count(model, guide),
            "model": model.state_dict(),
            "guide_state": guide.state_dict(),
        }
    )


def grid_of_runs(config: Config, run: Run) -> list[dict]:
    """Every guide under every objective with every seed; failed ones are reported and left out."""
    wanted = list(product(config.guides, OBJECTIVES, range(config.seeds)))
    done = []
    for found in parallel(config, (delayed(cell)(config, *names) for names in wanted)):
        label = f"{found['guide']} / {found['objective']} / seed {found['seed']}"
        for record in found["history"]:
            run.log(guide=found["guide"], objective=found["objective"], seed=found["seed"], **record)
        if "error" in found:
            print(f"{label}: stopped: {found['error']}", flush=True)
            continue
        done.append(found)
        print(
            f"[{len(done):2d}/{len(wanted)}] {label}: ELBO {found['elbo']:.2f}   log p(x) {found['log_px']:.2f}",
            flush=True,
        )
    return done


def parallel(config: Config, calls: Iterable) -> Iterable[dict]:
    return Parallel(n_jobs=config.jobs, return_as="generator")(calls)


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


def on_one_model(config: Config, rows: list[dict]) -> tuple[Table, nn.Module, dict[str, nn.Module]]:
    """Every guide trained anew on one frozen model, so that only the guide differs: table, model, guides."""
    best = max((row for row in rows if row["objective"] != "iwae"), key=lambda row: row["log_px"], default=rows[0])
    fewer = dataclasses.replace(config, eval_data=min(MOST_BY_GRID, config.eval_data or MOST_BY_GRID))
    found = list(parallel(config, (delayed(cell)(fewer, guide, "elbo", 0, best["model"]) for guide in config.guides)))
    refits = {label_of(row["guide"]): row for row in found if "error" not in row}
    if not refits:
        raise SystemExit(f"no guide could be trained on the frozen model: {found[0]['error']}; try a smaller --lr")
    train, _, few = splits(fewer)
    pairs = {label: restored(config, row, train) for label, row in refits.items()}
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
    return table, model, {label: guide for label, (_, guide) in pairs.items()}


def draw(config: Config, rows: list[dict], model: nn.Module, programs: dict[str, nn.Module], run: Run) -> None:
    """Every figure of the comparison."""
    train, _, test = splits(config)
    context = f"{train.name}, {config.z_dim} latent dimensions"
    named = [row | {"guide": label_of(row["guide"]), "objective": OBJECTIVES[row["objective"]]} for row in rows]
    shown = [row for row in rows if row["seed"] == 0 and row["objective"] == "elbo"]
    trained = {label_of(row["guide"]): restored(config, row, train) for row in shown}
    for name, figure, caption in pictures.of_comparison(named, trained, test, context):
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
    splits(config)  # what cannot be loaded is found before a folder is made
    run = Run(config.out, dataclasses.asdict(config), overwrite=config.overwrite)
    rows = grid_of_runs(config, run)
    kept = ("history", "model", "guide_state")
    plain = [{k: v for k, v in row.items() if k not in kept} for row in rows]
    run.result(runs=plain)
    if not rows:
        raise SystemExit(f"every run stopped; metrics are in {run.folder}; try a smaller --lr")
    first = summary(rows, config)
    second, model, programs = on_one_model(config, rows)
    run.result(runs=plain, one_model=second.text)
    for table in (first, second):
        print_table(table)
    with pyro.get_param_store().scope():
        draw(config, rows, model, programs, run)
    intro = (
        "p(z) p(x | z) is a VAE with a Bernoulli decoder; q(z | x) is amortised by a network of the same size for "
        f"every guide. {config.epochs} epochs of Adam, {config.num_particles} particles for IWAE.\n\n"
        "ELBO = log p(x) - KL(q(z | x) || p(z | x)): a better guide narrows the gap, and lets the model use what "
        "it gains."
    )
    report = run.report(
        f"Which guide gives the tighter bound on {config.data}?", intro, [first, second], verdict(second)
    )
    print(verdict(second))
    print(f"{time.perf_counter() - started:.0f} s; report: {report}")
    return rows


if __name__ == "__main__":
    start(main, Config, "compare_guides")
