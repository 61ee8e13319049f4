"""In which order to infer a hierarchy? Guides of 2 to 5 latent layers, the same time for each, and what layers hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Literal

from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.layer_contents import layers_of
from dlvm.experiments.measures.over_seeds import OverSeeds, over_seeds
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, splits
from dlvm.experiments.options.guides import GUIDES, GuideWord
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.hvae import HVAESetup
from dlvm.experiments.setups.setup import num_parameters
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_time import TimeOptions, cost_of, race, reached
from dlvm.experiments.sweeps.sweep import Sweep
from dlvm.guides import Chain, Joint, Ladder, latents
from dlvm.inference import ELBO, Objective, check, evaluate, linear, tempered
from dlvm.inference.evaluation.active_units import ACTIVE_VARIANCE
from dlvm.inference.objectives.schedules import check_warm_up, warming
from dlvm.models import HVAE

OrderWord = Literal["independent", "bottom_up", "top_down", "chain", "ladder", "residual", "joint"]
ORDERS: dict[OrderWord, Callable] = {
    "independent": lambda guide, spec, encoder, model: guide(spec, encoder, order="independent"),
    "bottom_up": lambda guide, spec, encoder, model: guide(spec, encoder, order="bottom_up"),
    "top_down": lambda guide, spec, encoder, model: guide(spec, encoder, order="top_down"),
    "chain": lambda guide, spec, encoder, model: Chain(spec, encoder),
    "ladder": lambda guide, spec, encoder, model: Ladder(spec, encoder, model, merge="precision"),
    "residual": lambda guide, spec, encoder, model: Ladder(spec, encoder, model, merge="residual"),
    "joint": lambda guide, spec, encoder, model: Joint(spec, encoder),
}
LABELS: dict[OrderWord, str] = {
    "independent": "independent", "bottom_up": "bottom-up", "top_down": "top-down", "chain": "Markov chain",
    "ladder": "ladder (precision)", "residual": "ladder (residual)", "joint": "joint full-rank",
}  # fmt: skip

INTRO = (
    "p(zL) ... p(z1 | z2) p(x | z1) is a deep latent Gaussian model with z1 nearest the data, trained by the ELBO "
    "with one particle. The guides take the same encoder and differ in how layers depend on one another: not at "
    "all (independent), each on those below it (bottom-up) or above it (top-down), each on the one below alone "
    "(Markov chain), each merged with what the model expects of it (ladder, by precision or as a residual), or "
    "all at once (joint full-rank Gaussian). Each has {effort} of Adam steps; the clock counts the "
    "processor's time for steps alone, so that waiting for the processor costs nothing.\n\n"
    "Runs are judged by log p(x) by importance sampling. A layer's KL is E log q(z_l | ...) / p(z_l | z_(l+1)). "
    "Under bottom-up guides it is no divergence, since q is given what p is not, and may be negative; all layers' "
    "sum is the rate KL(q(z | x) || p(z)). For the joint guide, q is taken apart by the chain rule from the top."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, TimeOptions, DataOptions):
    """Train hierarchies of several depths, each under guides of several inference orders, for the same time."""

    layers: tuple[int, ...] = (2, 3, 5)
    """Depths of the hierarchy: how many of the latent layers below there are, z1 first."""
    orders: tuple[OrderWord, ...] = tuple(ORDERS)
    """In which order a guide infers. With the family of --guide at every layer: independent, bottom_up, top_down; with
    diagonal Gaussians: chain (bottom up, each layer seeing the one below it alone); merged with the model's own
    distribution: ladder (by precision), residual; joint is one full-rank Gaussian over all layers."""
    guide: GuideWord = "diagonal"
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
    looks: int = 8
    layer_particles: int = 50
    """Samples per test datum for the KL and the active units of each layer."""
    out: Path = Path("runs/hierarchy")


def pair(config: Config, depth: int, order: OrderWord, train: Loader) -> tuple[HVAE, nn.Module]:
    """A fresh hierarchy of so many layers and a fresh guide of it."""
    setup = HVAESetup(config.sizes[:depth], config.hidden[:depth], config.encoder)
    model, encoder = setup.model(train), setup.encoder(train)
    return model, ORDERS[order](GUIDES[config.guide], latents(model, train.example), encoder, model)


def objective_of(config: Config) -> Objective:
    """The ELBO with the KL of a layer in closed form where that is right, after a warm-up if one is asked for."""
    bound = ELBO(analytic_kl=True)
    return tempered(bound, linear(0.0, 1.0, steps=config.warm_up)) if config.warm_up else bound


def trained(config: Config, depth: int, order: OrderWord, seed: int) -> Done:
    """One pair: what it is worth, what its layers hold, and what its training cost."""
    data, objective = splits(config), objective_of(config)
    racer = race(config, seed, partial(pair, config, depth, order, data.train), objective, data)
    row = {"layers": depth, "order": LABELS[order], "seed": seed, "definition": repr(objective)}
    if racer.error is not None:
        return Done(row | {"history": racer.looks, "error": racer.error}, {})
    model, guide, test = racer.model, racer.guide, data.test
    held = layers_of(model, guide, test, config.layer_particles)
    more = {"sizes": list(config.sizes[:depth]), "warming": warming(objective), "history": racer.looks}
    more |= {"parameters": num_parameters(model, guide)}
    found = dataclasses.asdict(evaluate(model, guide, test, num_particles=config.eval_particles))
    return Done(row | cost_of(racer.looks) | found | held._asdict() | more, states(model, guide))


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every depth and order with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{counted(depth, 'layer')}, {LABELS[order]}, seed {seed}", trained, config, names, checksums, facts)
        for seed, depth, order in product(range(config.seeds), config.layers, config.orders)
        for names in [{"depth": depth, "order": order, "seed": seed}]
        for facts in [{"layers": depth, "order": LABELS[order], "seed": seed}]
    ]


Means = dict[tuple[int, str], OverSeeds]  # by depth and order


def means(rows: list[dict]) -> Means:
    """Runs by depth and order, shallow ones first and within a depth the highest log p(x) first."""
    found = over_seeds(rows, "layers", "order").items()
    return dict(sorted(found, key=lambda item: (item[0][0], -item[1].log_px)))


def worth(found: Means, rows: list[dict], config: Config) -> Table:
    """What each order reaches at each depth, and at what price."""
    lines = [
        [depth, order, (runs.log_px, runs.log_px_se), runs.spread, runs.mean("elbo"), runs.log_px - runs.mean("elbo")]
        + [runs.mean("khat_bad"), runs.mean("ms_per_step"), round(runs.mean("steps"))]
        for (depth, order), runs in found.items()
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


def holdings(found: Means, config: Config) -> Table:
    """KL and active units of every layer."""
    sites = [f"z{i + 1}" for i in range(max(config.layers))]
    kl, active = [f"KL {site}" for site in sites], [f"active {site}" for site in sites]
    lines = [
        [depth, order, runs.mean("rate")]
        + [runs.means(name).get(site) for name in ("kl", "active") for site in sites]
        + [" ".join(runs.first["analytic"]) or "none"]
        for (depth, order), runs in found.items()
    ]
    return Table(
        ["layers", "order", "rate", *kl, *active, "closed form"],
        lines,
        f"What each layer holds: KL in nats per datum, E log q(z_l | ...) / p(z_l | z_(l+1)), which sum to the rate; "
        f"active units, of {' '.join(map(str, config.sizes[: max(config.layers)]))}: dimensions whose posterior mean "
        f"varies over data by more than {ACTIVE_VARIANCE}; closed form: layers whose KL was not sampled in training.",
        {column: ".2f" for column in ("rate", *kl)} | {column: ".1f" for column in active},
    )


def verdict(found: Means, rows: list[dict], config: Config) -> str:
    """What the numbers say: the best order at each depth, ladder against bottom-up, what depth and a step cost."""
    log_px = {cell: runs.log_px for cell, runs in found.items()}
    depths = sorted({depth for depth, _ in found})
    best = [max((cell for cell in found if cell[0] == depth), key=log_px.__getitem__) for depth in depths]
    leads = ", ".join(f"{order} with {depth} ({log_px[depth, order]:.2f})" for depth, order in best)
    said = [f"After {config.effort} each, the highest log p(x), in nats per datum, by number of layers: {leads}."]
    ladder, bottom_up = LABELS["ladder"], LABELS["bottom_up"]
    if shared := [d for d in depths if {(d, ladder), (d, bottom_up)} <= set(found)]:
        leads = ", ".join(f"{log_px[d, ladder] - log_px[d, bottom_up]:+.2f} with {d}" for d in shared)
        said.append(f"The precision-weighted ladder minus bottom-up: {leads}.")
    spreads = [runs.spread for runs in found.values() if runs.spread is not None]
    if spreads:
        least = 2 * (2 * fmean(spread**2 for spread in spreads) / config.seeds) ** 0.5
        said.append(
            f"Differences below {least:.2f} nats are not told from zero (twice the standard error of a difference "
            f"between means over {config.seeds} seeds)."
        )
    else:
        said.append("One seed each: how much of a difference is the seed's is not known.")
    if len(depths) > 1 and (changes := gains(log_px, depths[0], depths[-1])):
        each = ", ".join(f"{order} {change:+.2f}" for order, change in changes)
        said.append(f"From {depths[0]} to {depths[-1]} layers log p(x) changes by: {each}.")
    said += [top_layer(found), costs(found)]
    if any(row["warming"] for row in rows):
        said.append(f"Some runs ended before their warm-up of {config.warm_up} steps did; train longer.")
    return " ".join(said)


def gains(log_px: dict[tuple[int, str], float], shallow: int, deep: int) -> list[tuple[str, float]]:
    """What the deep hierarchy has over the shallow one under each order, the largest gain first."""
    orders = [order for depth, order in log_px if depth == shallow and (deep, order) in log_px]
    found = [(order, log_px[deep, order] - log_px[shallow, order]) for order in orders]
    return sorted(found, key=lambda pair: -pair[1])


def top_layer(found: Means) -> str:
    """How much of the top layer of the deepest hierarchy is in use, at least and at most."""
    deepest = max(depth for depth, _ in found)
    top = {order: runs for (depth, order), runs in found.items() if depth == deepest}
    units = {order: runs.means("active")[f"z{deepest}"] for order, runs in top.items()}
    least, most = min(units, key=units.__getitem__), max(units, key=units.__getitem__)
    size = next(iter(top.values())).first["sizes"][-1]
    if units[least] == units[most]:
        return f"The top layer of {deepest} has {units[most]:.1f} active units of {size} under every order."
    return (
        f"The top layer of {deepest} has from {units[least]:.1f} ({least}) to {units[most]:.1f} ({most}) active units "
        f"of {size}."
    )


def costs(found: Means) -> str:
    """What the cheapest and the dearest step take."""
    cost = {cell: runs.mean("ms_per_step") for cell, runs in found.items()}
    ends = [choose(cost, key=cost.__getitem__) for choose in (min, max)]
    said = [f"{cost[depth, order]:.2f} ms ({order}, {counted(depth, 'layer')})" for depth, order in ends]
    return f"A step takes from {' to '.join(said)}."


def pictures(config: Config, rows: list[dict], name: str) -> Iterator[Picture]:
    """Both figures."""
    from dlvm.experiments.figures import by_depth, layer_kl

    warm = f", KL warm-up of {config.warm_up} steps" if config.warm_up else ""
    context = f"{name}, {config.effort} per run{warm}"
    yield (
        "depth",
        by_depth(rows, context),
        f"Test log p(x) of each inference order against the number of latent layers, after {config.effort} each.",
    )
    yield (
        "layers",
        layer_kl(rows, context),
        "Where the information lies: KL and active units of each layer, for each order and depth.",
    )


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
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
    study = Study(config)
    data = checked(config)  # what cannot work is found before a folder is made
    order_of = {label: order for order, label in LABELS.items()}

    def answer(done: list[Done]) -> Answer:
        rows = Sweep(done, {}).results
        pairs = (pair(config, row["layers"], order_of[row["order"]], data.train) for row in rows)
        study.keep(done, ("layers", "order", "seed"), pairs, data.train.x_dim)
        found = means(rows)
        tables, drawn = [worth(found, rows, config), holdings(found, config)], pictures(config, rows, data.train.name)
        title = f"In which order to infer a hierarchy on {config.data}?"
        return Answer(title, INTRO.format(effort=config.effort), tables, verdict(found, rows, config), drawn)

    return study.compare(cells(config, data), reached, answer)


if __name__ == "__main__":
    start(main, Config, "hierarchy")
