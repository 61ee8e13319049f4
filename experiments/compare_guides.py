"""Which guide gives the tighter bound? Guides of any family on one frozen model, and trained along with models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pyro
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.guides_report import FROZEN, OBJECTIVES, frozen_table, label_of, story, together_table, verdict
from dlvm.experiments.measures.draws import dreams, plane_of, posterior_means
from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.measures.paired_gaps import Gaps, headline, typical
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, adam
from dlvm.experiments.options.guides import guide_named
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.objectives import objective_for
from dlvm.experiments.runs.recipe import data_of
from dlvm.experiments.runs.report import Table
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, check_latent, fresh_pair, num_parameters
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.sweep import Sweep
from dlvm.inference import ELBO, NonFinite, Objective, check, evaluate, fit, log_weights, reconstruct
from dlvm.inference.bounds.importance import WORST_KHAT, log_mean_exp, pareto_k
from dlvm.inference.training.run_state import under

MOST_BY_GRID = 300
SHOWN = 4  # data whose posteriors are drawn


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, ModelOptions, DataOptions):
    """Compare guides: on one frozen model, and under {ELBO, analytic-KL ELBO, IWAE} on models trained with them."""

    guides: tuple[str, ...] = ("diagonal", "full_rank", "iaf")
    """Families of q(z | x), words of --guide in dlvm.experiments.train."""
    setup: Setup = VAESetup(2, (100, 100))
    num_particles: int = 5
    """Samples of z per datum for IWAE."""
    seeds: int = 3
    """Runs per guide on the frozen model."""
    joint_seeds: int = 2
    """Runs per guide and objective of models trained along with their guides; the frozen one is chosen among them."""
    epochs: int = 50
    """Passes over the training data of models trained along with their guides."""
    frozen_epochs: int = 100
    """Passes over the training data on the frozen model."""
    batch_size: int = 100
    """Data per step."""
    eval_particles: int = 500
    """Importance samples per test datum."""
    lr: float = 5e-3
    """Learning rate of Adam; on the frozen model it falls to 0."""
    jobs: int = 2
    """Runs at a time, one CPU thread each; -1 for all cores."""
    out: Path = Path("runs/compare_guides")


def pair(config: Config, guide: str, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    return fresh_pair(config.setup, train, guide_named(guide))


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
    train, valid, test = data_of(config)
    pyro.set_rng_seed(seed)
    model, q = pair(config, guide, train)
    if frozen is not None:
        model.load_state_dict(frozen)
        model.requires_grad_(False)
    epochs = config.epochs if frozen is None else config.frozen_epochs
    falling = None if frozen is None else partial(CosineAnnealingLR, T_max=epochs)
    bound = bound_of(config, objective)
    name = {"guide": guide, "objective": objective, "seed": seed}
    history: list[dict] = []
    try:
        for epoch in fit(model, q, bound, train, valid, epochs, adam(config.lr), falling, seed=seed, progress=False):
            history.append(dataclasses.asdict(epoch))
    except NonFinite as error:
        return Done(name | {"history": history, "error": str(error)}, {})
    more = {
        "history": history,
        "valid": history[-1]["valid"],
        "seconds": fmean(record["seconds"] for record in history),
        "parameters": num_parameters(model, q),
    }
    values: dict[str, Tensor] = {}
    if frozen is None:
        result = dataclasses.asdict(evaluate(model, q, test, num_particles=config.eval_particles))
    else:
        result, values = weighed(model, q, test, config.eval_particles)
    return Done(name | result | more, states(model, q) | values)


def bound_of(config: Config, objective: str) -> Objective:
    """The objective, with the gradient that the model needs."""
    several = "iwae" in objective or config.setup.defaults.get("estimator") == "vimco"
    return objective_for(objective, config.setup.defaults, config.num_particles if several else 1)


@torch.no_grad()
def weighed(model: nn.Module, guide: nn.Module, test: Loader, draws: int) -> tuple[dict, dict[str, Tensor]]:
    """What so many draws say of a guide, and its ELBO of each test datum, nats."""
    log_w = torch.cat([log_weights(model, guide, x, num_particles=draws).double() for (x,) in test], 1)
    elbo = log_w.mean(0)
    khat_bad = (pareto_k(log_w) > WORST_KHAT).double().mean().item()
    log_px = log_mean_exp(log_w).mean().item()
    found = {"elbo": elbo.mean().item(), "log_px": log_px, "khat_bad": khat_bad, "num_data": len(elbo)}
    return found, {"elbo_values": elbo}


def objectives_of(config: Config, guide: str, train: Loader) -> list[str]:
    """What this guide is trained by: the analytic KL is left out where no site has one, for it is the ELBO then."""
    try:
        check(*pair(config, guide, train), ELBO(analytic_kl=True, strict=True), *train.examples)
    except ValueError:
        return [word for word in OBJECTIVES if word != "analytic_kl"]
    return list(OBJECTIVES)


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every guide under every objective with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{guide} / {objective} / seed {seed}", trained, config, names, checksums, names)
        for guide in config.guides
        for objective, seed in product(objectives_of(config, guide, data.train), range(config.joint_seeds))
        for names in [{"guide": guide, "objective": objective, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"ELBO {row['elbo']:.2f}   log p(x) {row['log_px']:.2f}"


class OneModel(NamedTuple):
    """What guides reach on one frozen model: of each label the run that validation data like best, and all gaps."""

    model: nn.Module
    guides: dict[str, nn.Module]
    gaps: list[Gaps]
    sweep: Sweep
    log_px: float
    table: Table


def on_one_model(config: Config, done: list[Done], study: Study) -> OneModel:
    """Every guide trained anew on the model that validation data like best, so that only the guide differs."""
    by_bound = [found for found in done if found.record["objective"] != "iwae"]
    chosen = max(by_bound or done, key=lambda found: found.record["valid"])
    best, frozen = chosen.record, under(chosen.tensors, "model")
    config = dataclasses.replace(config, eval_data=min(MOST_BY_GRID, config.eval_data or MOST_BY_GRID))
    data = data_of(config)
    checksums = fingerprints(data)
    found = study.sweep(
        [
            Cell(f"{guide} on one model / seed {seed}", trained, config, names, checksums)
            for guide, seed in product(config.guides, range(config.seeds))
            for names in [{"guide": guide, "objective": "elbo", "seed": seed, "frozen": frozen}]
        ],
        told,
    )
    if not found.done:
        found.end(study.run)
    model = restored(config, found.done[0], data.train)[0]
    log_px, how = evidence_of(model, data.test, found.rows)
    runs = {guide: done for guide in config.guides if (done := [d for d in found.done if d.record["guide"] == guide])}
    gaps, guides = [], {}
    for guide, done in runs.items():
        values = torch.stack([log_px - one.tensors["elbo_values"] for one in done])
        gaps.append(one := Gaps(label_of(guide), values, [each.record["valid"] for each in done]))
        guides[one.label] = restored(config, done[one.chosen], data.train)[1]
    mean = log_px.mean().item()
    named = f"{label_of(best['guide'])}, {OBJECTIVES[best['objective']]}, seed {best['seed']}, the best by validation"
    table = frozen_table(gaps, found.rows, named, f"{mean:.3f} ({how})")
    return OneModel(model, guides, gaps, found, mean, table)


@torch.no_grad()
def evidence_of(model: nn.Module, test: Loader, rows: list[dict]) -> tuple[Tensor, str]:
    """log p(x) of each datum, nats, and how it was found."""
    x, site = test.x, plane_of(model, test)
    if site is not None:
        return densities(model, {}, x, site=site).log_px.double(), "by a grid"
    return x.new_full((len(x),), max(row["log_px"] for row in rows)).double(), "at least: the highest estimate"


def pictures(config: Config, done: list[Done], one: OneModel) -> Iterator[Picture]:
    """What tells pairs apart that were trained each for itself, beside those of one frozen model."""
    from dlvm.experiments.figures import bounds, learning_curves, reconstructions, samples

    train, _, test = data_of(config)
    context = f"{test.name}, {word_of(type(config.setup))}, a model for each guide and seed"
    rows = [found.record for found in done]
    rows = [row | {"guide": label_of(row["guide"]), "objective": OBJECTIVES[row["objective"]]} for row in rows]
    alone = [
        {"guide": gaps.label, "objective": FROZEN, "elbo": one.log_px - gap, "log_px": one.log_px}
        for gaps in one.gaps
        for gap in gaps.values.mean(1).tolist()
    ]
    caption = f"Test ELBO (open) and log p(x) (full) of each guide and objective; last the guides on {FROZEN}."
    yield "bounds", bounds([*rows, *alone], f"{context}, and {FROZEN}", headline(one.gaps, FROZEN)), caption
    runs_of = over_seeds(rows, "guide", "objective").items()
    curves = learning_curves({(guide, bound): runs.all("history") for (guide, bound), runs in runs_of}, context=context)
    yield "learning_curves", curves, "Validation bound while training."
    shown = [found for found in done if found.record["seed"] == 0 and found.record["objective"] == "elbo"]
    pairs = {label_of(found.record["guide"]): restored(config, found, train) for found in shown}
    x, shape = test.x[:8], test.image_shape
    means = {label: reconstruct(model, guide, x, num_particles=1) for label, (model, guide) in pairs.items()}
    caption = "Test data, and the mean of p(x | z) for one z from each guide; trained by the ELBO, seed 0."
    yield "reconstructions", reconstructions(x, means, shape, context), caption
    drawn = {label: dreams(model, 36)[1] for label, (model, _) in pairs.items()}
    yield "samples", samples(drawn, shape, context), "Means of p(x | z) for z from the prior; the same models."


def pictures_of_one_model(config: Config, one: OneModel) -> Iterator[Picture]:
    """The posteriors of one model with two latent dimensions, and what each guide makes of them."""
    from dlvm.experiments.figures import latent_space, posteriors

    test = data_of(config).test
    context, x = f"{test.name}, {word_of(type(config.setup))}, {FROZEN}", test.x[typical(one.gaps, SHOWN).sort().values]
    if (site := plane_of(one.model, test)) is None:
        return
    found = densities(one.model, one.guides, x, site=site)
    caption = f"The true posterior by a grid, and each guide's density over it, for {FROZEN}: {len(x)} test data whose "
    caption += "gap is nearest to the median."
    drawn = posteriors(
        x, found.axes, found.posterior, found.guides, found.kl, test.image_shape, context, headline(one.gaps, FROZEN)
    )
    yield "posteriors", drawn, caption
    label, guide = list(one.guides.items())[-1]
    means = posterior_means(one.model, guide, test.x, site)
    caption = f"Means of the {label} guide's q(z | x) of test data."
    yield "latent_space", latent_space(means, test.labels, context), caption


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = data_of(config)  # what cannot be loaded is found before a folder is made
    check_latent(config.setup, data.train)
    asked = cells(config, data)
    run = study.open()
    grid = study.sweep(asked, told)
    run.result(runs=grid.results, failed=grid.failed)
    if not grid.done:
        grid.end(run)
    first, one = together_table(grid.rows), on_one_model(config, grid.done, study)
    both = Sweep(grid.done + one.sweep.done, grid.failed | one.sweep.failed)
    tables, said = [one.table, first, *both.tables()], verdict(one.gaps, first)
    run.result(
        runs=grid.results, one_model=story(one.gaps) | {"runs": one.sweep.results}, verdict=said, failed=both.failed
    )
    study.show(tables)
    intro = (
        f"p(x, z) is {word_of(type(config.setup))} with {described(one.model, data.train)}; q(z | x) is amortised by a "
        f"network of the same size for every guide. {config.epochs} epochs of Adam with a model of its own, "
        f"{config.frozen_epochs} on the frozen one; {config.num_particles} particles for IWAE.\n\n"
        "ELBO = log p(x) - KL(q(z | x) || p(z | x)): a better guide narrows the gap, and lets the model use what "
        "it gains."
    )
    drawn = chain(pictures(config, grid.done, one), pictures_of_one_model(config, one))
    study.report(f"Which guide gives the tighter bound on {config.data}?", intro, tables, said, drawn)
    for done, where in ((grid.done, ""), (one.sweep.done, "one model ")):
        pairs = (pair(config, found.record["guide"], data.train) for found in done)
        study.keep(done, ("guide", "objective", "seed"), pairs, data.train.x_dim, where)
    both.end(run)
    return grid.rows


if __name__ == "__main__":
    start(main, Config, "compare_guides")
