"""Which guide gives the tighter bound? Guides of any family under three objectives, several seeds, on one data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain, product
from pathlib import Path
from statistics import fmean

import pyro
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.draws import dream, posterior_means, reconstruct
from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, adam, splits
from dlvm.experiments.options.guides import GUIDES, GuideWord
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.objectives import Numbers, objective_of
from dlvm.experiments.runs.report import Table
from dlvm.experiments.setups.setup import fresh_pair, num_parameters
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.sweep import Sweep
from dlvm.inference import NonFinite, evaluate, fit
from dlvm.inference.training.run_state import under

MOST_BY_GRID = 300
CANDIDATES, SHOWN = 8, 4  # data whose posteriors are looked at, and drawn
FROZEN = "one frozen model"
OBJECTIVES = {"elbo": "ELBO", "analytic_kl": "analytic-KL ELBO", "iwae": "IWAE"}


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, DataOptions):
    """Compare guides under {ELBO, analytic-KL ELBO, IWAE} on a data set, by name or file."""

    guides: tuple[GuideWord, ...] = ("diagonal", "full_rank", "iaf")
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
    lr: float = 3e-3
    """Learning rate of Adam."""
    jobs: int = 2
    """Runs at a time, one CPU thread each; -1 for all cores."""
    out: Path = Path("runs/compare_guides")


def label_of(guide: str) -> str:
    return GUIDES[guide].__name__


def pair(config: Config, guide: str, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    return fresh_pair(VAESetup(config.z_dim, config.hidden), train, GUIDES[guide])


def restored(config: Config, done: Done, train: Loader) -> tuple[nn.Module, nn.Module]:
    """The trained model and guide of a finished run."""
    model, guide = pair(config, done.record["guide"], train)
    model.load_state_dict(under(done.tensors, "model"))
    guide.load_state_dict(under(done.tensors, "guide"))
    return model, guide


def trained(config: Config, guide: str, objective: str, seed: int, frozen: dict | None = None) -> Done:
    """Trains and evaluates one pair; with ``frozen``, the state of a trained model, only the guide, to convergence.

    On a frozen model the learning rate falls to 0 by a cosine: at a constant one the last step's noise, a tenth of a
    nat, hides what the families differ by. A model that still learns would be stopped short by it.
    """
    train, valid, test = splits(config)
    pyro.set_rng_seed(seed)
    model, q = pair(config, guide, train)
    if frozen is not None:
        model.load_state_dict(frozen)
        model.requires_grad_(False)
    falling = None if frozen is None else partial(CosineAnnealingLR, T_max=config.epochs)
    bound = objective_of(objective, Numbers(config.num_particles if objective == "iwae" else 1))
    name = {"guide": guide, "objective": objective, "seed": seed}
    history = []
    try:
        for epoch in fit(
            model, q, bound, train, valid, config.epochs, adam(config.lr), falling, seed=seed, progress=False
        ):
            history.append(dataclasses.asdict(epoch))
    except NonFinite as error:
        return Done(name | {"history": history, "error": str(error)}, {})
    result = dataclasses.asdict(evaluate(model, q, test, num_particles=config.eval_particles))
    more = {
        "history": history,
        "kl": "analytic" if "analytic" in history[-1]["kl"].values() else "Monte Carlo",
        "seconds": fmean(record["seconds"] for record in history),
        "parameters": num_parameters(model, q),
    }
    return Done(name | result | more, states(model, q))


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every guide under every objective with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{guide} / {objective} / seed {seed}", trained, config, names, checksums, names)
        for guide, objective, seed in product(config.guides, OBJECTIVES, range(config.seeds))
        for names in [{"guide": guide, "objective": objective, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"ELBO {row['elbo']:.2f}   log p(x) {row['log_px']:.2f}"


def summary(rows: list[dict], config: Config) -> Table:
    """One line per guide and objective, means over seeds."""
    found, lines = over_seeds(rows, "guide", "objective"), []
    for guide, objective in product(config.guides, OBJECTIVES):
        if (runs := found.get((guide, objective))) is None:
            continue
        lines.append(
            [label_of(guide), OBJECTIVES[objective], runs.first["kl"], runs.mean("elbo")]
            + [(runs.log_px, runs.log_px_se), runs.spread, runs.log_px - runs.mean("elbo")]
            + [runs.mean("active_units"), runs.mean("seconds"), runs.first["parameters"]]
        )
    columns = ["guide", "objective", "KL", "test ELBO", "log p(x)", "sd of seeds", "gap", "active units", "s / epoch"]
    return Table(
        [*columns, "parameters"],
        lines,
        f"{rows[0]['num_data']} test data, nats per datum; means over {config.seeds} seeds; ± is the Monte Carlo "
        f"standard error of {config.eval_particles} importance samples; model and guide trained together.",
        dict(zip(columns[3:], (".2f", ".3f", ".2f", ".3f", ".1f", ".2f"), strict=True)),
        {"test ELBO": max, "log p(x)": max},
    )


def on_one_model(
    config: Config, done: list[Done], study: Study
) -> tuple[Table, nn.Module, dict[str, nn.Module], Sweep]:
    """Every guide trained anew on one frozen model, so that only the guide differs: table, model, guides, cells."""
    by_bound = [found for found in done if found.record["objective"] != "iwae"]
    chosen = max(by_bound, key=lambda found: found.record["log_px"], default=done[0])
    best, frozen = chosen.record, under(chosen.tensors, "model")
    fewer = dataclasses.replace(config, eval_data=min(MOST_BY_GRID, config.eval_data or MOST_BY_GRID))
    train, _, few = data = splits(fewer)
    checksums = fingerprints(data)
    refitting = [
        Cell(f"{guide} on one model", trained, fewer, names, checksums)
        for guide in config.guides
        for names in [{"guide": guide, "objective": "elbo", "seed": 0, "frozen": frozen}]
    ]
    found = study.sweep(refitting, told)
    if not found.done:
        found.end(study.run)
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
        "only the guide trained, by the ELBO, at a learning rate that falls to 0; "
        f"{few.num_data} test data. log p(x) is {log_px:.3f} ({how}); the gap below it is KL(q(z | x) || p(z | x)).",
        dict.fromkeys(columns[1:], ".3f"),
        {"test ELBO": max, "gap": min},
    )
    return table, model, {label: guide for label, (_, guide) in pairs.items()}, found


def pictures(config: Config, done: list[Done], table: Table) -> Iterator[Picture]:
    """What tells pairs apart that were trained each for itself, beside the table with one frozen model."""
    from dlvm.experiments.figures import bounds, learning_curves, reconstructions, samples

    train, _, test = splits(config)
    context = f"{context_of(config, test)}, a model for each guide and seed"
    rows = [found.record for found in done]
    rows = [row | {"guide": label_of(row["guide"]), "objective": OBJECTIVES[row["objective"]]} for row in rows]
    alone = [
        {"guide": label, "objective": FROZEN, "elbo": elbo, "log_px": elbo + gap} for label, elbo, gap, *_ in table.rows
    ]
    caption = f"Test ELBO (open) and log p(x) (full) of each guide and objective; last the guides on {FROZEN}."
    yield "bounds", bounds([*rows, *alone], f"{context}, and {FROZEN}", headline(table)), caption
    runs_of = over_seeds(rows, "guide", "objective").items()
    curves = learning_curves({(guide, bound): runs.all("history") for (guide, bound), runs in runs_of}, context=context)
    yield "learning_curves", curves, "Validation bound while training."
    shown = [found for found in done if found.record["seed"] == 0 and found.record["objective"] == "elbo"]
    pairs = {label_of(found.record["guide"]): restored(config, found, train) for found in shown}
    x, shape = test.x[:8], test.image_shape
    means = {label: reconstruct(model, guide, x) for label, (model, guide) in pairs.items()}
    caption = "Test data, and the mean of p(x | z) for one z from each guide; trained by the ELBO, seed 0."
    yield "reconstructions", reconstructions(x, means, shape, context), caption
    drawn = {label: dream(model, 36) for label, (model, _) in pairs.items()}
    yield "samples", samples(drawn, shape, context), "Means of p(x | z) for z from the prior; the same models."


def pictures_of_one_model(
    config: Config, model: nn.Module, programs: Mapping[str, nn.Module], said: str
) -> Iterator[Picture]:
    """The posteriors of one model with two latent dimensions, and what each guide makes of them; ``said`` above all."""
    from dlvm.experiments.figures import latent_space, posteriors

    test = splits(config).test
    context, x = f"{context_of(config, test)}, {FROZEN}", test.x[:CANDIDATES]
    found = densities(model, programs, x)
    order = torch.stack(list(found.kl.values())).mean(0).argsort()
    typical = order[(len(order) - SHOWN) // 2 :][:SHOWN] if len(order) > SHOWN else order
    q = {label: log_q[typical] for label, log_q in found.guides.items()}
    kl = {label: values[typical] for label, values in found.kl.items()}
    axes = (found.axes[0][typical], found.axes[1][typical])
    caption = (
        f"The true posterior by a grid, and each guide's density over it, for {FROZEN}: of {len(x)} test data, those "
        f"{len(typical)} that guides fit neither best nor worst."
    )
    drawn = posteriors(x[typical], axes, found.posterior[typical], q, kl, test.image_shape, context, said)
    yield "posteriors", drawn, caption
    label, guide = list(programs.items())[-1]
    means = posterior_means(guide, test.x)
    caption = f"Means of the {label} guide's q(z | x) of test data."
    yield "latent_space", latent_space(means, test.labels, context), caption


def context_of(config: Config, test: Loader) -> str:
    return f"{test.name}, {config.z_dim} latent dimensions"


def headline(table: Table) -> str:
    """Which guide is tightest, from the table with one frozen model."""
    best = min(table.rows, key=lambda row: row[2])
    return f"{best[0]} gives the tightest bound on {FROZEN}: {best[2]:.3f} nats below log p(x)"


def verdict(table: Table, together: Table) -> str:
    """The headline, what it rests on, and what the figures of models trained together with their guides show besides.

    Args:
        table: with one frozen model.
        together: with a model for each guide and objective.
    """
    order = sorted(table.rows, key=lambda row: row[2])
    said = ", ".join(f"{row[0]} {row[2]:.3f}" for row in order)
    gap = together.columns.index("gap")
    best = min(together.rows, key=lambda row: row[gap])
    return (
        f"{headline(table)}. Gaps of all, nats per datum: {said}. Where every guide has a model of its own, whose "
        f"posteriors it shapes, {best[0]} trained with {best[1]} leaves the smallest gap, {best[gap]:.3f}."
    )


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = splits(config)  # what cannot be loaded is found before a folder is made
    run = study.open()
    grid = study.sweep(cells(config, data), told)
    run.result(runs=grid.results, failed=grid.failed)
    if not grid.done:
        grid.end(run)
    first = summary(grid.rows, config)
    second, model, programs, refits = on_one_model(config, grid.done, study)
    both = Sweep(grid.done + refits.done, grid.failed | refits.failed)
    run.result(runs=grid.results, one_model=second.text, failed=both.failed)
    tables, said = [first, second, *both.tables()], verdict(second, first)
    study.show(tables)
    intro = (
        "p(z) p(x | z) is a VAE with a Bernoulli decoder; q(z | x) is amortised by a network of the same size for "
        f"every guide. {config.epochs} epochs of Adam, {config.num_particles} particles for IWAE.\n\n"
        "ELBO = log p(x) - KL(q(z | x) || p(z | x)): a better guide narrows the gap, and lets the model use what "
        "it gains."
    )
    alone = pictures_of_one_model(config, model, programs, headline(second)) if config.z_dim == 2 else ()
    drawn = chain(pictures(config, grid.done, second), alone)
    study.report(f"Which guide gives the tighter bound on {config.data}?", intro, tables, said, drawn)
    both.end(run)
    return grid.rows


if __name__ == "__main__":
    start(main, Config, "compare_guides")
