"""Trains one model, guide and objective on one data set, and says what came of it; by torchrun on several processes."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pyro
import torch
import tyro
from safetensors.torch import save_file

from dlvm.experiments.data import Loader, load
from dlvm.experiments.options import common, guides, objectives
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.runs.folder import CHECKPOINTS, Run
from dlvm.experiments.runs.report import Table, print_table
from dlvm.experiments.setups import pictures, vae
from dlvm.guides import Amortized, latents
from dlvm.inference import Evaluation, Objective, check, evaluate, fit, linear, tempered, verdict
from dlvm.inference.distributed.job import Job, RankLost, joined
from dlvm.inference.engine.threads import settled
from dlvm.inference.objectives.schedules import check_warm_up
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.training.arguments import check_aims
from dlvm.models import VAE
from dlvm.nets import MLP


@dataclasses.dataclass(frozen=True)
class Config:
    """Fit p(z) p(x | z) with a guide q(z | x) on a data set, by name or file, and evaluate both on its test part."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, or a path to an .npz, .npy or .csv file."""
    guide: guides.GuideWord = "diagonal"
    """Family of q(z | x)."""
    objective: objectives.ObjectiveWord = "elbo"
    """What is maximised. cubo fits the guide by the chi upper bound and the model by iwae; wake_sleep and rws fit it by
    draws of z; vr_max bounds log p(x) from neither side and needs --patience None."""
    estimator: objectives.EstimatorWord = "total"
    """Of the objective's gradient: total derivative, stl, dreg, score function with a moving average, or vimco."""
    num_particles: int = 1
    """Samples of z per datum in the objective, in all."""
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
    warm_up: int = 0
    """Epochs in which the latent terms' weight beta rises from 0 to 1; what is reported is always the bound itself."""
    z_dim: int = 2
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    activation: Literal["relu", "tanh", "elu", "softplus"] = "tanh"
    """Nonlinearity of encoder, decoder and flow."""
    likelihood: Literal["bernoulli", "normal"] = "bernoulli"
    """p(x | z): bernoulli for binary data, normal for real numbers."""
    iaf_depth: int = 2
    """Steps of the flow."""
    iaf_width: tuple[int, ...] = (128,)
    """Hidden layers of each step of the flow."""
    binarize: Literal["default", "dynamic", "static", "threshold", "none"] = "default"
    """How grey levels become binary: drawn anew at each use, drawn once, cut at 1/2, or not at all. By default what the
    data set does under a bernoulli, and not at all under a normal likelihood."""
    key: str | None = None
    """Which array of an .npz file."""
    scale: float | None = None
    """Divide a file's numbers by this first (255 for 8-bit images)."""
    mean_bias: bool = True
    """Start the Bernoulli decoder's output bias at the data's mean."""
    epochs: int = 200
    """Most passes over the training data."""
    patience: int | None = 30
    """Stop when the validation bound has not risen for so many epochs, and keep the best; None never stops early."""
    batch_size: int = 100
    """Data per step."""
    optimizer: Literal["adam", "adamax", "rmsprop", "sgd"] = "adam"
    """Torch optimizer; rmsprop is centred, sgd has momentum 0.9."""
    lr: float = 1e-3
    """Learning rate."""
    lr_decay: float = 1.0
    """Factor on the learning rate after every epoch."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient."""
    eval_particles: int = 1000
    """Importance samples per test datum."""
    eval_data: int | None = None
    """Evaluate on so many test data only."""
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
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/train")
    """Folder for config.json, metrics.jsonl, result.json, weights, figures and report.html."""
    checkpoint: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep checkpoints in the folder: the same command goes on after whatever ended the run, bit for bit."""
    checkpoint_every: int | None = None
    """Write one after so many steps, too, and not at the end of epochs alone."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder."""


def pair(config: Config, train: Loader) -> tuple[VAE, Amortized]:
    """A fresh model and a fresh guide of it, on the config's device."""
    activation = vae.ACTIVATIONS[config.activation]
    mean = train.mean if config.mean_bias else None
    make_likelihood = vae.LIKELIHOODS[config.likelihood]
    likelihood = make_likelihood(config.z_dim, config.hidden[::-1], train.x_dim, activation, mean)
    model = VAE(config.z_dim, likelihood).to(config.device)
    encoder = MLP(train.x_dim, *config.hidden, activation=activation)
    flow = {"depth": config.iaf_depth, "width": config.iaf_width, "activation": activation}
    settings = flow if config.guide == "iaf" else {}
    guide = guides.GUIDES[config.guide](latents(model, train.example), encoder, **settings).to(config.device)
    return model, guide


def check_training(config: Config, model: VAE, guide: Amortized, objective: Objective, train: Loader) -> None:
    """Refuses what ``fit`` would, but before a folder is made."""
    check_aims(objective, train, config.epochs, config.patience)
    check_warm_up(objective, config.epochs * len(train))
    with untouched():
        check(model, guide, objective, train.example)


def summary(result: Evaluation, epochs: int, seconds: float) -> Table:
    """The evaluation in one line."""
    return Table(
        ["log p(x)", "ELBO", "gap", "rate", "distortion", "active units", "ESS", "k-hat > 0.7", "epochs", "s / epoch"],
        [
            [
                (result.log_px, result.log_px_se),
                (result.elbo, result.elbo_se),
                result.log_px - result.elbo,
                result.rate,
                result.distortion,
                result.active_units,
                result.ess,
                result.khat_bad,
                epochs,
                seconds,
            ]
        ],
        f"{result.num_data} test data, nats per datum, {result.num_particles} importance samples each.",
        {name: ".2f" for name in ("log p(x)", "ELBO", "gap", "rate", "distortion", "ESS", "k-hat > 0.7", "s / epoch")},
    )


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
    objective = objectives.objective(config.objective, objectives.Numbers.of(config), config.estimator)
    keep_greys = config.binarize == "none" or (config.binarize, config.likelihood) == ("default", "normal")
    train, valid, test = load(
        config.data,
        binarize=None if keep_greys else config.binarize,
        batch_size=config.batch_size,
        data_dir=config.data_dir,
        device=config.device,
        key=config.key,
        scale=config.scale,
    ).tested_on(config.eval_data)

    if config.warm_up:
        objective = tempered(objective, linear(0.0, 1.0, steps=config.warm_up * len(train)))

    if config.checkpoint_every is not None and not config.checkpoint:
        raise ValueError("checkpoint_every needs checkpoint; add --checkpoint")
    settings = dataclasses.asdict(config)
    pyro.set_rng_seed(config.seed)
    model, guide = pair(config, train)
    check_training(config, model, guide, objective, train)
    run = Run(config.out, settings, config.overwrite, goes_on=config.checkpoint) if first else None

    history = []
    try:
        for epoch in fit(
            model,
            guide,
            objective,
            train,
            valid=valid,
            epochs=config.epochs,
            optimizer=partial(common.OPTIMIZERS[config.optimizer], lr=config.lr),
            scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=config.lr_decay),
            clip_norm=config.clip_norm,
            patience=config.patience,
            seed=config.seed,
            progress=first,
            engine=config.engine,
            precision=config.precision,
            checkpoint=config.out / CHECKPOINTS if config.checkpoint else None,
            every=config.checkpoint_every,
        ):
            history.append(epoch)
            if first:
                run.log(**dataclasses.asdict(epoch))
                print(epoch, flush=True)
    finally:
        if first:
            save_file(model.state_dict(), run.folder / "model.safetensors")
            save_file(guide.state_dict(), run.folder / "guide.safetensors")
    if not first:
        return None

    result = evaluate(model, guide, test, num_particles=config.eval_particles, progress=True)
    seconds = sum(epoch.seconds for epoch in history) / len(history)
    parameters = {"model": common.count(model), "guide": common.count(guide)}
    said = verdict(result, history)
    run.result(
        **dataclasses.asdict(result),
        verdict=str(said),
        seconds_per_epoch=seconds,
        epochs=len(history),
        parameters=parameters,
    )
    table = summary(result, len(history), seconds)
    print_table(table)
    print(said)
    records = [dataclasses.asdict(epoch) for epoch in history]
    for name, figure, caption in pictures.of_training(model, guide, test, records):
        run.figure(name, figure, caption)
    report = run.report(
        f"{config.guide} guide, {config.objective} objective, {train.name}",
        f"p(z) p(x | z) with {config.z_dim} latent dimensions, {parameters['model']:,} parameters; q(z | x) with "
        f"{parameters['guide']:,}.",
        [table],
        f"{said} {result}",
    )
    print(f"report: {report}")
    return result


if __name__ == "__main__":
    start(main, Config, "train")
