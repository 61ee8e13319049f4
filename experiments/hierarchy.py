"""In which order to infer a hierarchy? Guides of 2 to 5 latent layers, the same time for each, and what layers hold."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from torch import nn

from dlvm.experiments import figures
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.layer_contents import layers_of
from dlvm.experiments.options import common, guides
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.options.common import splits
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table, print_table
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_time import cost_of, counted, race, reached
from dlvm.experiments.sweeps.sweep import Sweep, sweep
from dlvm.experiments.sweeps.workers import Backend, Workers
from dlvm.guides import Chain, Joint, Ladder, latents
from dlvm.inference import ELBO, Objective, check, evaluate, linear, tempered
from dlvm.inference.evaluation.active_units import ACTIVE_VARIANCE
from dlvm.inference.objectives.schedules import check_warm_up, warming
from dlvm.models import HVAE, burda
from dlvm.nets import MLP

ORDERS: dict[str, Callable] = {
    "independent": lambda guide, spec, encoder, model: guide(spec, encoder, order="independent"),
    "bottom_up": lambda guide, spec, encoder, model: guide(spec, encoder, order="bottom_up"),
    "top_down": lambda guide, spec, encoder, model: guide(spec, encoder, order="top_down"),
    "chain": lambda guide, spec, encoder, model: Chain(spec, encoder),
    "ladder": lambda guide, spec, encoder, model: Ladder(spec, encoder, model, merge="precision"),
    "residual": lambda guide, spec, encoder, model: Ladder(spec, encoder, model, merge="residual"),
    "joint": lambda guide, spec, encoder, model: Joint(spec, encoder),
}
LABELS = {
    "independent": "independent",
    "bottom_up": "bottom-up",
    "top_down": "top-down",
    "chain": "Markov chain",
    "ladder": "ladder (precision)",
    "residual": "ladder (residual)",
    "joint": "joint full-rank",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train hierarchies of several depths, each under guides of several inference orders, for the same time."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, or a path to an .npz, .npy or .csv file of grey or binary data."""
    key: str | None = None
    """Which array of an .npz file."""
    scale: float | None = None
    """Divide a file's numbers by this first (255 for 8-bit images)."""
    layers: tuple[int, ...] = (2, 3, 5)
    """Depths of the hierarchy: how many of the latent layers below there are, z1 first."""
    orders: tuple[Literal["independent", "bottom_up", "top_down", "chain", "ladder", "residual", "joint"], ...] = tuple(
        ORDERS
    )
    """In which order a guide infers. With the family of --guide at every layer: independent, bottom_up, top_down; with
    diagonal Gaussians: chain (bottom up, each layer seeing the one below it alone); merged with the model's own
    distribution: ladder (by precision), residual; joint is one full-rank Gaussian over all layers."""
    guide: guides.GuideWord = "diagonal"
    """Family of q at every layer, for independent, bottom_up and top_down."""
    sizes: tuple[int, ...] = (32, 16, 12, 8, 6)
    """Dimensions of z1, z2, ...; a shallower hierarchy takes the first of them. 64 32 16 8 4 suits mnist."""
    hidden: tuple[int, ...] = (100, 64, 48, 32, 24)
    """Width of the two hidden tanh layers below z1, z2, ...; 512 256 128 64 64 suits mnist."""
    encoder: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder, the same for every guide; tanh."""
    warm_up: int = 500
    """Steps over which the KL's weight rises from 0 to 1; 0 for none, under which upper layers fall asleep."""
    seeds: int = 1
    """Runs of each depth and order."""
    seconds: float = 9.0
    """Processor time for the steps of each run, the same for all."""
    epochs: int | None = None
    """Instead of seconds: passes over the training data, the same number for all."""
    batch_size: int = 50
    """Data per step."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    engine: Literal["captured", "eager"] = "captured"
    """How steps run, the same for all; the time of a capture counts."""
    looks: int = 8
    """How often in a run log p(x) is estimated on validation data; the best state is kept."""
    valid_particles: int = 50
    """Importance samples per validation datum."""
    eval_particles: int = 1000
    """Importance samples per test datum."""
    layer_particles: int = 50
    """Samples per test datum for the KL and the active units of each layer."""
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
    out: Path = Path("runs/hierarchy")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder; without it, the same command goes on with one that has not finished."""

    @property
    def effort(self) -> str:
        return f"{self.seconds:g} s" if self.epochs is None else counted(self.epochs, "epoch")


def pair(config: Config, depth: int, order: str, train: Loader) -> tuple[HVAE, nn.Module]:
    """A fresh hierarchy of so many layers and a fresh guide of it."""
    model = burda(train.x_dim, config.sizes[:depth], config.hidden[:depth], train.mean)
    encoder = MLP(train.x_dim, *config.encoder, activation=nn.Tanh)
    return model, ORDERS[order](guides.GUIDES[config.guide], latents(model, train.example), encoder, model)


def objective_of(config: Config) -> Objective:
    """The ELBO with the KL of a layer in closed form where that is right, after a warm-up if one is asked for."""
    bound = ELBO(analytic_kl=True)
    return tempered(bound, linear(0.0, 1.0, steps=config.warm_up)) if config.warm_up else bound


def trained(config: Config, depth: int, order: str, seed: int) -> Done:
    """One pair: what it is worth, what its layers hold, and what its training cost."""
    data, objective = splits(config), objective_of(config)
    racer = race(config, seed, partial(pair, config, depth, order, data.train), objective, data)
    row = {"layers": depth, "order": LABELS[order], "seed": seed, "definition": repr(objective)}
    if racer.error is not None:
        return Done(row | {"history": racer.looks, "error": racer.error}, {})
    model, guide, test = racer.model, racer.guide, data.test
    held = layers_of(model, guide, test, config.layer_particles)
    more = {
        "sizes": list(config.sizes[:depth]),
        "warming": warming(objective),
        "parameters": common.count(model, guide),
        "history": racer.looks,
    }
    found = dataclasses.asdict(evaluate(model, guide, test, num_particles=config.eval_particles))
    return Done(row | cost_of(racer.looks) | found | held._asdict() | more, states(model, guide))


def all_runs(config: Config, data: Splits, run: Run) -> Sweep:
    """Every depth and order with every seed."""
    checksums = fingerprints(data)
    cells = [
        Cell(
            f"{counted(depth, 'layer')}, {LABELS[order]}, seed {seed}",
            trained,
            config,
            {"depth": depth, "order": order, "seed": seed},
            checksums,
            {"layers": depth, "order": LABELS[order], "seed": seed},
        )
        for seed in range(config.seeds)
        for depth in config.layers
        for order in config.orders
    ]
    return sweep(cells, run, Workers.of(config), reached)


class Mean(NamedTuple):
    """One order at one depth: means over seeds, nats per datum; ``seeds`` holds log p(x) of each."""

    layers: int
    order: str
    seeds: list[float]
    se: float
    mean: dict[str, float]
    kl: dict[str, float]
    active: dict[str, float]
    sizes: list[int]
    analytic: list[str]

    @property
    def log_px(self) -> float:
        return fmean(self.seeds)


def means(rows: list[dict]) -> list[Mean]:
    """Runs by depth and order, shallow ones first and within a depth the highest log p(x) first."""
    groups: dict[tuple[int, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["layers"], row["order"]), []).append(row)
    found = [
        Mean(
            *key,
            [row["log_px"] for row in runs],
            fmean(row["log_px_se"] ** 2 for row in runs) ** 0.5 / len(runs) ** 0.5,
            {k: fmean(row[k] for row in runs) for k in ("elbo", "rate", "khat_bad", "ms_per_step", "steps")},
            {site: fmean(row["kl"][site] for row in runs) for site in runs[0]["kl"]},
            {site: fmean(row["active"][site] for row in runs) for site in runs[0]["active"]},
            runs[0]["sizes"],
            runs[0]["analytic"],
        )
        for key, runs in groups.items()
    ]
    return sorted(found, key=lambda cell: (cell.layers, -cell.log_px))


def worth(found: list[Mean], rows: list[dict], config: Config) -> Table:
    """What each order reaches at each depth, and at what price."""
    lines = [
        [cell.layers, cell.order, (cell.log_px, cell.se), stdev(cell.seeds) if len(cell.seeds) > 1 else None]
        + [cell.mean["elbo"], cell.log_px - cell.mean["elbo"], cell.mean["khat_bad"], cell.mean["ms_per_step"]]
        + [round(cell.mean["steps"])]
        for cell in found
    ]
    fine = ("sd of seeds", "ELBO", "gap", "k-hat > 0.7", "ms / step")
    return Table(
        ["layers", "order", "log p(x)", *fine, "steps"],
        lines,
        f"{rows[0]['num_data']} test data, nats per datum; means over {counted(config.seeds, 'seed')}, {config.effort} "
        f"of steps each; ± is the Monte Carlo standard error of {config.eval_particles} importance samples; gap is "
        "log p(x) minus ELBO; where k-hat exceeds 0.7 for many data, log p(x) is too low by more than the error.",
        {"log p(x)": ".3f"} | {column: ".2f" for column in fine},
        {"log p(x)": max, "ELBO": max, "gap": min, "ms / step": min},
    )


def holdings(found: list[Mean], config: Config) -> Table:
    """KL and active units of every layer."""
    sites = [f"z{i + 1}" for i in range(max(config.layers))]
    kl, active = [f"KL {site}" for site in sites], [f"active {site}" for site in sites]
    lines = [
        [cell.layers, cell.order, cell.mean["rate"]]
        + [cell.kl.get(site) for site in sites]
        + [cell.active.get(site) for site in sites]
        + [" ".join(cell.analytic) or "none"]
        for cell in found
    ]
    return Table(
        ["layers", "order", "rate", *kl, *active, "closed form"],
        lines,
        f"What each layer holds: KL in nats per datum, E log q(z_l | ...) / p(z_l | z_(l+1)), which sum to the rate; "
        f"active units, of {' '.join(map(str, config.sizes[: max(config.layers)]))}: dimensions whose posterior mean "
        f"varies over data by more than {ACTIVE_VARIANCE}; closed form: layers whose KL was not sampled in training.",
        {column: ".2f" for column in ("rate", *kl)} | {column: ".1f" for column in active},
    )


def verdict(found: list[Mean], rows: list[dict], config: Config) -> str:
    """What the numbers say: the best order at each depth, ladder against bottom-up, what depth and a step cost."""
    by = {(cell.layers, cell.order): cell for cell in found}
    depths = sorted({cell.layers for cell in found})
    best = {depth: max((c for c in found if c.layers == depth), key=lambda c: c.log_px) for depth in depths}
    leads = ", ".join(f"{best[d].order} with {d} ({best[d].log_px:.2f})" for d in depths)
    said = [f"After {config.effort} each, the highest log p(x), in nats per datum, by number of layers: {leads}."]
    shared = [d for d in depths if {(d, LABELS["ladder"]), (d, LABELS["bottom_up"])} <= set(by)]
    if shared:
        lead = {d: by[d, LABELS["ladder"]].log_px - by[d, LABELS["bottom_up"]].log_px for d in shared}
        leads = ", ".join(f"{lead[d]:+.2f} with {d}" for d in shared)
        said.append(f"The precision-weighted ladder minus bottom-up: {leads}.")
    variances = [stdev(cell.seeds) ** 2 for cell in found if len(cell.seeds) > 1]
    if variances:
        least = 2 * (2 * fmean(variances) / config.seeds) ** 0.5
        said.append(
            f"Differences below {least:.2f} nats are not told from zero (twice the standard error of a difference "
            f"between means over {config.seeds} seeds)."
        )
    else:
        said.append("One seed each: how much of a difference is the seed's is not known.")
    if len(depths) > 1 and (changes := gains(by, depths[0], depths[-1])):
        each = ", ".join(f"{order} {change:+.2f}" for order, change in changes)
        said.append(f"From {depths[0]} to {depths[-1]} layers log p(x) changes by: {each}.")
    said += [top_layer(found), costs(found)]
    if any(row["warming"] for row in rows):
        said.append(f"Some runs ended before their warm-up of {config.warm_up} steps did; train longer.")
    return " ".join(said)


def gains(by: dict[tuple[int, str], Mean], shallow: int, deep: int) -> list[tuple[str, float]]:
    """What the deep hierarchy has over the shallow one under each order, the largest gain first."""
    orders = [order for depth, order in by if depth == shallow and (deep, order) in by]
    found = [(order, by[deep, order].log_px - by[shallow, order].log_px) for order in orders]
    return sorted(found, key=lambda pair: -pair[1])


def top_layer(found: list[Mean]) -> str:
    """How much of the top layer of the deepest hierarchy is in use, at least and at most."""
    depth = max(cell.layers for cell in found)
    units = {cell.order: cell.active[f"z{depth}"] for cell in found if cell.layers == depth}
    least, most = min(units, key=units.__getitem__), max(units, key=units.__getitem__)
    size = next(cell.sizes[-1] for cell in found if cell.layers == depth)
    if units[least] == units[most]:
        return f"The top layer of {depth} has {units[most]:.1f} active units of {size} under every order."
    return (
        f"The top layer of {depth} has from {units[least]:.1f} ({least}) to {units[most]:.1f} ({most}) active units "
        f"of {size}."
    )


def costs(found: list[Mean]) -> str:
    """What the cheapest and the dearest step take."""
    ends = (choose(found, key=lambda cell: cell.mean["ms_per_step"]) for choose in (min, max))
    said = [f"{c.mean['ms_per_step']:.2f} ms ({c.order}, {counted(c.layers, 'layer')})" for c in ends]
    return f"A step takes from {' to '.join(said)}."


def draw(config: Config, rows: list[dict], name: str, run: Run) -> None:
    """Both figures."""
    warm = f", KL warm-up of {config.warm_up} steps" if config.warm_up else ""
    context = f"{name}, {config.effort} per run{warm}"
    run.figure(
        "depth",
        figures.by_depth(rows, context),
        f"Test log p(x) of each inference order against the number of latent layers, after {config.effort} each.",
    )
    run.figure(
        "layers",
        figures.layer_kl(rows, context),
        "Where the information lies: KL and active units of each layer, for each order and depth.",
    )


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    check_options(config)
    for name in ("layers", "orders"):
        chosen = getattr(config, name)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"{name} must name at least one, and none twice; got {chosen}")
    most = min(len(config.sizes), len(config.hidden))
    if not all(1 <= depth <= min(most, 9) for depth in config.layers):
        raise ValueError(
            f"layers must lie between 1 and {min(most, 9)}, the number of sizes and hidden, got {config.layers}; add "
            "an entry to --sizes and --hidden for each further layer, up to 9"
        )
    if config.layer_particles < 2:
        raise ValueError(f"layer_particles must be at least 2, to tell units from noise, got {config.layer_particles}")
    data = splits(config)
    if config.epochs is not None:
        check_warm_up(objective_of(config), config.epochs * len(data.train))
    for depth in config.layers:
        for order in config.orders:
            check(*pair(config, depth, order, data.train), objective_of(config), data.train.example)
    return data


def main(config: Config) -> list[dict]:
    started = time.perf_counter()
    torch.set_num_threads(1)
    data = checked(config)  # what cannot work is found before a folder is made
    run = Run(config.out, dataclasses.asdict(config), overwrite=config.overwrite, goes_on=True)
    runs = all_runs(config, data, run)
    rows = [{k: v for k, v in row.items() if k != "history"} for row in runs.rows]
    run.result(runs=rows, failed=runs.failed)
    if not rows:
        runs.end(run)
    found = means(rows)
    tables = [worth(found, rows, config), holdings(found, config), *runs.tables()]
    said = verdict(found, rows, config)
    for table in tables:
        print_table(table)
    draw(config, rows, data.train.name, run)
    intro = (
        "p(zL) ... p(z1 | z2) p(x | z1) is a deep latent Gaussian model with z1 nearest the data, trained by the ELBO "
        "with one particle. The guides take the same encoder and differ in how layers depend on one another: not at "
        "all (independent), each on those below it (bottom-up) or above it (top-down), each on the one below alone "
        "(Markov chain), each merged with what the model expects of it (ladder, by precision or as a residual), or all "
        "at once (joint full-rank Gaussian). "
        f"Each has {config.effort} of Adam steps; the clock counts the processor's time for steps alone, so that "
        "waiting for the processor costs nothing.\n\n"
        "Runs are judged by log p(x) by importance sampling. A layer's KL is E log q(z_l | ...) / p(z_l | z_(l+1)). "
        "Under bottom-up guides it is no divergence, since q is given what p is not, and may be negative; the sum over "
        "layers is the rate KL(q(z | x) || p(z)) for every order. For the joint guide, q is taken apart by its chain "
        "rule from the top down."
    )
    report = run.report(f"In which order to infer a hierarchy on {config.data}?", intro, tables, said)
    print(said)
    print(f"{time.perf_counter() - started:.0f} s; report: {report}")
    runs.end(run)
    return rows


if __name__ == "__main__":
    start(main, Config, "hierarchy")
