"""Trains one model, guide and objective on one data set, and says what came of it; by torchrun on several processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pyro
import torch
import tyro
from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.generated.outside import OF_POINTS, OUTSIDE, OutsideWord, Sizes, outside_of
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.options.common import OPTIMIZERS, DataOptions, EvaluationOptions, FolderOptions
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.options.objectives import EstimatorWord, Numbers, ObjectiveWord, baseline_of, objective_of
from dlvm.experiments.runs.callbacks import Callbacks, callbacks_of
from dlvm.experiments.runs.folder import CHECKPOINTS, Run
from dlvm.experiments.runs.new_data import keep_description
from dlvm.experiments.runs.next_command import next_command
from dlvm.experiments.runs.outcome import gives_points, outcome_of
from dlvm.experiments.runs.recipe import Recipe, plan, planned
from dlvm.experiments.runs.report import print_table
from dlvm.experiments.runs.restore import keep
from dlvm.experiments.runs.summary import epoch_parts, told_parts
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions, settings_of
from dlvm.experiments.setups.pictures import Drawing, described
from dlvm.experiments.setups.setup import Setup, num_parameters
from dlvm.experiments.study import draw
from dlvm.experiments.sweeps.annealing import AnnealingOptions, annealed, warm_up_of
from dlvm.guides import FullyObserved, latents
from dlvm.inference import Evaluation, Objective, check, fit
from dlvm.inference.distributed.job import Job, RankLost, joined
from dlvm.inference.engine.threads import settled
from dlvm.inference.objectives.schedules import check_warm_up
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.training.arguments import check_aims


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, EvaluationOptions, Numbers, AnnealingOptions, GuideOptions, ModelOptions, DataOptions):
    """Fit a model p(x, z) with a guide q(z | x) on a data set, by name or file, and evaluate both on its test part."""

    binarize: Literal["default", "dynamic", "static", "threshold", "none"] = "default"
    """How grey levels become binary: drawn anew at each use, drawn once, cut at 1/2, or not at all. By default what the
    data set does for a model of binary data, and not at all for any other."""
    objective: ObjectiveWord | OutsideWord = "elbo"
    """What is maximised. cubo fits the guide by the chi upper bound and the model by iwae; wake_sleep and rws fit it by
    draws of z; vr_max bounds log p(x) from neither side and needs --patience None. So do those outside the bound:
    mmd_vae and info_vae match the codes of all data to p(z), aae by a discriminator; vae_gan judges dreams, ali x and z
    together. ae, an autoencoder, cae, contractive, rae, regularised, and wae, matched to p(z), take --guide point, or
    denoising, which have no density: then there is no log p(x)."""
    weight: float | None = None
    """Outside the bound: of the discrepancy of codes, of the discriminator's signal, or of the penalty; 100, 5 and 0.1
    unless told."""
    estimator: EstimatorWord = "total"
    """Of the objective's gradient: total derivative, stl, dreg; score function with a moving average, with a net of the
    data (nvil) or the other particles (vimco) for a baseline; of discrete latents disarm, by twins, rebar, by a
    relaxation as control variate, and relax, with a net beside (relax_net: alone); or, biased, relaxed draws: gumbel,
    straight_through, gumbel_rao."""
    num_particles: int = 1
    """Samples of z per datum in the objective, in all."""
    epochs: int = 200
    """Most passes over the training data."""
    patience: int | None = 30
    """Stop when the validation bound has not risen for so many epochs, and keep the best; None never stops early."""
    batch_size: int = 100
    optimizer: Literal["adam", "adamax", "rmsprop", "sgd"] = "adam"
    """Torch optimizer; rmsprop is centred, sgd has momentum 0.9."""
    lr: float = 1e-3
    """Learning rate."""
    lr_decay: float = 1.0
    """Factor on the learning rate after every epoch."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient."""
    skip_norm: float | None = None
    """Norm of the whole gradient above which a step is not made; every epoch's record says how many."""
    seed: int = 0
    """Of parameters, noise, shuffling and binarisation."""
    device: str = "cpu"
    """Where to compute."""
    threads: int = 1
    """CPU threads, each kept on a core of its own; one is fastest for small nets."""
    engine: Literal["auto", "eager", "captured", "compiled"] = "auto"
    """How steps run: by Pyro each time, from a captured graph, or compiled; auto takes what repays its cost."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the layers while training; what is reported is always in full precision."""
    out: Path = Path("runs/train")
    """Folder for config.json, metrics.jsonl, result.json, weights, figures and report.html."""
    checkpoint: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep checkpoints in the folder: the same command goes on after whatever ended the run, bit for bit."""
    checkpoint_every: int | None = None
    """Write one after so many steps, too, and not at the end of epochs alone."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write curves for TensorBoard as well, into the folder: pip install 'pyro-dlvm[tensorboard]'."""
    callback: tuple[str, ...] = ()
    """my_module:MyCallback, told of settings, epochs and result by its begin, epoch and end; for any other service."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check data, pair and objective, print shapes and sizes, and end without training or writing."""


def maximised(config: Config, model: nn.Module, guide: nn.Module, train: Loader) -> Objective:
    """The objective, with its warm-up and what the setup adds to it."""
    if config.objective in OUTSIDE:
        return _outside(config, config.objective, model, guide, train)
    if gives_points(guide):
        raise ValueError(
            f"guide {config.guide} gives points, without a density, and {config.objective} needs one: take --objective "
            f"{', '.join(OF_POINTS[:-1])} or {OF_POINTS[-1]}, with --patience None, or another guide"
        )
    if config.weight is not None:
        raise ValueError(f"weight is of objectives outside the bound, got {config.objective}; leave out --weight")
    objective = objective_of(config.objective, config, config.estimator, baseline_of(train, lambda: guide))
    return config.setup.aided(annealed(objective, config, len(train)), train)


def _outside(config: Config, word: OutsideWord, model: nn.Module, guide: nn.Module, train: Loader) -> Objective:
    """One that is no bound; what else was asked for does not go with it."""
    if gives_points(guide) and word not in OF_POINTS:
        raise ValueError(
            f"guide {config.guide} gives points, without a density, and {word} needs one; take --objective wae, whose "
            "codes are matched to p(z), or another guide"
        )
    for option, got, wanted in (
        ("estimator", config.estimator, "total"),
        ("num_particles", config.num_particles, 1),
        ("warm_up", warm_up_of(config), 0),
        ("annealing", config.annealing, "linear"),
        ("free_bits", config.free_bits, None),
    ):
        if got != wanted:
            raise ValueError(f"{option} must be {wanted} for {word}, which is no bound, got {got}; leave it out")
    sites = latents(model, *train.examples).values()
    sizes = Sizes(train.x_dim, sum(torch.Size(site.shape).numel() for site in sites))
    return outside_of(word, sizes, config.weight).to(train.device)


def check_training(config: Config, model: nn.Module, guide: nn.Module, objective: Objective, train: Loader) -> None:
    """Refuses what ``fit`` would, but before a folder is made."""
    check_aims(objective, train, config.epochs, config.patience)
    check_warm_up(objective, config.epochs * len(train))
    with untouched():
        check(model, guide, objective, *train.examples)


def pictures(
    setup: Setup, model: nn.Module, guide: nn.Module, test: Loader, history: list[dict], objective: str
) -> Iterator[Drawing]:
    """Everything worth seeing of one run."""
    from dlvm.experiments.figures import learning_curves

    what = "E log p(x | z)" if objective in OF_POINTS else "bound"
    yield (
        "learning_curves",
        lambda: learning_curves({"validation": [history]}, what=what),
        f"The objective's {what} on the validation data, nats per datum.",
    )
    yield from setup.pictures(model, guide, test)


def main(config: Config) -> Evaluation | None:
    check_options(config)
    with settled(config.threads), joined(config.device) as job:
        try:
            return train_and_evaluate(config, job)
        except RankLost as error:
            raise SystemExit(f"error: {error}") from error


def train_and_evaluate(config: Config, job: Job | None) -> Evaluation | None:
    """One run, from data to report; the ranks of a job train together, and the first does all else."""
    first = job is None or job.first
    recipe = Recipe.by(config)
    train, valid, test = recipe.splits(config.device).tested_on(config.eval_data)
    if config.checkpoint_every is not None and not config.checkpoint:
        raise ValueError("checkpoint_every needs checkpoint; add --checkpoint")
    settings = settings_of(config)
    pyro.set_rng_seed(config.seed)
    model, guide = recipe.pair(train)
    objective = maximised(config, model, guide, train)
    stepped, judged = config.setup.trained(model, guide), config.setup.evaluated(model, guide, train)
    check_training(config, *stepped, objective, train)
    callbacks = Callbacks(callbacks_of(config.callback, config.tensorboard, config.out) if first else ())
    if config.dry_run:
        parts = {"training": train, "validation": valid, "test": test}
        word = word_of(type(config.setup))
        print(planned(plan(model, guide, objective, parts, config.epochs, config.batch_size, word)))
        return None
    run = Run(config.out, settings, config.overwrite, goes_on=config.checkpoint) if first else None

    history = []
    callbacks.begin(settings)
    try:
        for epoch in fit(
            *stepped,
            objective,
            train,
            valid=valid,
            epochs=config.epochs,
            optimizer=partial(OPTIMIZERS[config.optimizer], lr=config.lr),
            scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=config.lr_decay),
            clip_norm=config.clip_norm,
            skip_norm=config.skip_norm,
            patience=config.patience,
            seed=config.seed,
            progress=first,
            engine=config.engine,
            precision=config.precision,
            checkpoint=config.out / CHECKPOINTS if config.checkpoint else None,
            every=config.checkpoint_every,
        ):
            history.append(epoch)
            if run is not None:
                per = epoch_parts(epoch, config.setup.parts(train), config.setup.parts(valid))
                run.log(**dataclasses.asdict(epoch), **per)
                callbacks.epoch({**dataclasses.asdict(epoch), **per})
                print(f"{epoch}{told_parts(per)}", flush=True)
        config.setup.settled(model, guide, judged, train)
    finally:
        if run is not None:
            keep(run.folder, *judged, train.x[0].numel())
            keep_description(run.folder, train)
    if run is None:
        return None

    ended = outcome_of(config.setup, *judged, test, config.objective, history, config.eval_particles)
    parameters = {"model": num_parameters(model), "guide": num_parameters(guide)}
    run.result(**ended.record, parameters=parameters)
    callbacks.end(ended.record)
    print_table(ended.table)
    print(ended.said)
    records = [dataclasses.asdict(epoch) for epoch in history]
    draw(run, pictures(config.setup, *judged, test, records, config.objective))
    word = word_of(type(config.setup))
    guided = "" if isinstance(guide, FullyObserved) else f", {config.guide} guide"
    report = run.report(
        f"{word}{guided}, {config.objective} objective, {train.name}",
        f"The model is {word} with {described(model, train)}, {parameters['model']:,} parameters; its guide has "
        f"{parameters['guide']:,}.",
        [ended.table],
        ended.said,
        next_command(run.command, settings, ended.said),
    )
    print(f"report: {report}")
    return ended.result


if __name__ == "__main__":
    start(main, Config, "train")
