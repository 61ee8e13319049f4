"""What do latents buy where pixels see one another? VAE, PixelVAE and models without latents, side by side."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pyro
import torch
from torch import nn

from dlvm.experiments.data import Splits
from dlvm.experiments.measures.linear_probe import probe
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, FolderOptions, adam, splits
from dlvm.experiments.options.guides import own
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.fvsbn import FVSBNSetup
from dlvm.experiments.setups.made import MADESetup
from dlvm.experiments.setups.nade import NADESetup
from dlvm.experiments.setups.pixel_vae import PixelVAESetup
from dlvm.experiments.setups.pixelcnn import PixelCNNSetup
from dlvm.experiments.setups.realnvp import RealNVPSetup
from dlvm.experiments.setups.setup import Setup, fresh_pair, num_parameters
from dlvm.experiments.setups.transformer import TransformerSetup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Picture, Study
from dlvm.experiments.sweeps.equal_steps import check_warm_up
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, Objective, check, evaluate, fit, linear, log_px, tempered
from dlvm.inference.console import say

ModelWord = Literal["vae", "pixel_vae", "fvsbn", "nade", "made", "pixelcnn", "transformer", "realnvp"]
LABELS: dict[str, str] = {
    "vae": "VAE", "pixel_vae": "PixelVAE", "fvsbn": "FVSBN", "nade": "NADE", "made": "MADE", "pixelcnn": "PixelCNN",
    "transformer": "Transformer", "realnvp": "RealNVP",
}  # fmt: skip
LATENT = ("vae", "pixel_vae")
ESTIMATED = (*LATENT, "realnvp")  # a flow's density is exact, but that of pixels is over the noise within their cells
TIMED = 100  # data of a density, and of a draw
INTRO = (
    "p(x) of a VAE is an integral over latents, and known to a bound or to an estimate by importance weights; p(x) of "
    "an autoregressive model is a product of p(x_d | x_<d), and exact, but drawn one variable after the other. A "
    "PixelVAE has both: p(x_d | x_<d, z), whose pixels see the pixels before them up to its receptive field. What they "
    "see of one another z need not say, and for a bound that charges for every nat in z it does not: with a large "
    "enough field z falls asleep.\n\n"
    "An Introduction to Variational Autoencoders, Kingma, Welling, 2019, sections 2.8.1 and 4.3 (arXiv:1906.02691)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, EvaluationOptions, DataOptions):
    """Train latent and autoregressive models alike, and compare likelihood, speed, features and what z says."""

    models: tuple[ModelWord, ...] = ("vae", "pixel_vae", "made", "pixelcnn")
    """Rows of the table."""
    fields: tuple[int, ...] = (0, 1, 2, 4)
    """Receptive fields of further PixelVAEs, in pixels; 0 is none, and the likelihood factorises."""
    z_dim: int = 8
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200,)
    """Hidden layers of encoder, decoder and MADE; the first is NADE's."""
    channels: int = 16
    """Maps of PixelCNN and PixelVAE."""
    gated: int = 2
    """Layers of PixelCNN, PixelVAE and the Transformer."""
    receptive_field: int = 4
    """Of PixelCNN, in pixels."""
    near: int = 1
    """Receptive field of the PixelVAE in the table."""
    epochs: int = 40
    """Most passes over the training data, the same for all."""
    patience: int = 10
    """Stop when the validation bound has not risen for so many epochs, and keep the best."""
    warm_up: int = 5
    """Epochs in which the weight of z's KL rises from 0 to 1."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    eval_particles: int = 500
    """Importance samples per test datum where there are latents."""
    seed: int = 0
    """Of everything."""
    out: Path = Path("runs/autoregressive")


def setup_of(config: Config, word: str, field: int | None = None) -> Setup:
    """A model by its word, at the sizes asked for."""
    maps: dict[str, Any] = {"channels": config.channels, "layers": config.gated}
    makers: dict[str, Callable[[], Setup]] = {
        "vae": lambda: VAESetup(config.z_dim, config.hidden, "elu"),
        "pixel_vae": lambda: PixelVAESetup(
            config.z_dim, config.hidden, config.near if field is None else field, **maps
        ),
        "fvsbn": FVSBNSetup,
        "nade": lambda: NADESetup(config.hidden[0]),
        "made": lambda: MADESetup(config.hidden),
        "pixelcnn": lambda: PixelCNNSetup(config.receptive_field, **maps),
        "transformer": lambda: TransformerSetup(layers=config.gated),
        "realnvp": lambda: RealNVPSetup(width=config.channels, blocks=1, actnorm=True, mixing=True),
    }
    return makers[word]()


def objective_of(config: Config, word: str, steps: int) -> Objective:
    """The ELBO, which without latents is log p(x); with them after a warm-up."""
    if word not in LATENT or not config.warm_up:
        return ELBO()
    return tempered(ELBO(analytic_kl=True), linear(0.0, 1.0, steps=config.warm_up * steps))


def trained(config: Config, word: str, data: Splits, field: int | None = None) -> tuple[dict, nn.Module, nn.Module]:
    """One pair, and what it is worth on the test data."""
    began = time.perf_counter()
    pyro.set_rng_seed(config.seed)
    family = own if word == "realnvp" else Diagonal
    model, guide = fresh_pair(setup_of(config, word, field), data.train, family, observed=True)
    objective = objective_of(config, word, len(data.train))
    check(model, guide, objective, *data.train.examples)
    how: dict[str, Any] = {"epochs": config.epochs, "patience": config.patience, "seed": config.seed}
    done = [*fit(model, guide, objective, data.train, valid=data.valid, optimizer=adam(config.lr), **how)]
    seconds = time.perf_counter() - began
    found = evaluate(model, guide, data.test, num_particles=config.eval_particles)
    row = {"model": LABELS[word], "latent": word in LATENT, "parameters": num_parameters(model, guide)}
    row["estimated"] = word in ESTIMATED
    row |= {name: getattr(found, name) for name in ("log_px", "log_px_se", "elbo", "rate", "khat_bad", "num_data")}
    return row | {"epochs": len(done), "seconds": seconds}, model, guide


def speeds(config: Config, model: nn.Module, guide: nn.Module, data: Splits) -> dict:
    """Milliseconds a datum for log p(x), as the table has it, and for a draw of x; the fastest of three."""
    x = data.test.first(TIMED)

    def density() -> None:
        log_px(model, guide, x, config.eval_particles)

    @torch.no_grad()
    def draw() -> None:
        model(n=TIMED)

    return {"ms_density": fastest(density) / len(x), "ms_draw": fastest(draw) / TIMED}


def fastest(call: Callable[[], None], times: int = 3) -> float:
    """Milliseconds of the fastest call, after one that does not count."""
    call()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return 1e3 * min(found)


def measure(config: Config, data: Splits, run: Run, rows: list[dict], sweep: list[dict], drawn: dict) -> None:
    """Every model, and every receptive field, into ``rows`` and ``sweep``; draws of x into ``drawn``."""
    for word in config.models:
        row, model, guide = trained(config, word, data)
        row |= speeds(config, model, guide, data) | {"accuracy": accuracy_of(model, guide, data)}
        rows.append(row)
        run.log(**row)
        with torch.no_grad():
            drawn[row["model"]] = model(n=36)
        print(
            f"{row['model']}: log p(x) {row['log_px']:.2f}   {row['epochs']} epochs, {row['seconds']:.0f} s", flush=True
        )
    for field in config.fields:
        row, _, _ = trained(config, "pixel_vae", data, field)
        sweep.append(row | {"field": field})
        run.log(**sweep[-1])
        print(f"PixelVAE, {field} pixels: rate {row['rate']:.2f}   log p(x) {row['log_px']:.2f}", flush=True)


def accuracy_of(model: nn.Module, guide: nn.Module, data: Splits) -> float | None:
    """Of the probe; None, said in words, where there are no features or labels."""
    try:
        return probe(model, guide, data)
    except ValueError as error:
        say(f"no probe: {error}")
        return None


def summary(rows: list[dict], config: Config) -> Table:
    """One line a model, the most likely first."""
    lines = [
        [row["model"], (row["log_px"], row["log_px_se"]) if row["estimated"] else row["log_px"]]
        + ["estimate" if row["estimated"] else "exact", row["rate"] if row["latent"] else None, row["accuracy"]]
        + [row["ms_density"], row["ms_draw"], row["parameters"], row["epochs"], row["seconds"]]
        for row in sorted(rows, key=lambda row: -row["log_px"])
    ]
    return Table(
        ["model", "log p(x)", "by", "rate of z", "probe", "ms / density", "ms / draw", "parameters", "epochs", "s"],
        lines,
        f"{rows[0]['num_data']} test data, nats per datum; where there are latents, or noise within cells, by "
        f"{config.eval_particles} importance samples, ± their standard error, as is the time of a density; probe: "
        "share of test labels that logistic regression tells from features (means of q(z | x), a flow's noise, else "
        "the last hidden layer); draws 100 at a time.",
        {"log p(x)": ".2f", "rate of z": ".2f", "probe": ".3f", "ms / density": ".3f", "ms / draw": ".3f", "s": ".0f"},
        {"log p(x)": max, "probe": max, "ms / density": min, "ms / draw": min},
    )


def by_field(sweep: list[dict]) -> Table:
    """One line a receptive field."""
    lines = [
        [row["field"], row["rate"], (row["log_px"], row["log_px_se"]), row["elbo"], row["epochs"], row["seconds"]]
        for row in sorted(sweep, key=lambda row: row["field"])
    ]
    return Table(
        ["receptive field", "rate of z", "log p(x)", "ELBO", "epochs", "s"],
        lines,
        "PixelVAEs by how many pixels to each side p(x_d | x_<d, z) sees; rate: E KL(q(z | x) || p(z)), what z says.",
        {"rate of z": ".2f", "log p(x)": ".2f", "ELBO": ".2f", "s": ".0f"},
        {"log p(x)": max},
    )


def verdict(rows: list[dict], sweep: list[dict]) -> str:
    """Which model is most likely, which is fastest, and what becomes of z."""
    said = []
    if rows:
        best, draws = max(rows, key=lambda row: row["log_px"]), min(rows, key=lambda row: row["ms_draw"])
        slowest = max(rows, key=lambda row: row["ms_draw"])
        said.append(f"The highest log p(x), {best['log_px']:.2f} nats per datum, is {best['model']}'s.")
        if len(rows) > 1:
            ratio = slowest["ms_draw"] / draws["ms_draw"]
            said.append(f"{draws['model']} draws fastest, {ratio:.0f} times as fast as {slowest['model']}.")
    if len(sweep) > 1:
        first, last = (end(sweep, key=lambda row: row["field"]) for end in (min, max))
        said.append(
            f"With a receptive field of {first['field']} pixels z says {first['rate']:.1f} nats, with {last['field']} "
            f"{last['rate']:.1f}; log p(x) goes from {first['log_px']:.2f} to {last['log_px']:.2f}."
        )
    return " ".join(said)


def pictures(rows: list[dict], sweep: list[dict], drawn: dict, config: Config, data: Splits) -> Iterator[Picture]:
    """Draws of every model, and what z says by receptive field."""
    from dlvm.experiments.figures import samples
    from dlvm.experiments.figures.rate_distortion import receptive_fields

    context = f"{data.train.name}, at most {counted(config.epochs, 'epoch')}"
    if drawn:
        figure = samples(drawn, data.train.image_shape, context, "What each model draws", "Draws of x.")
        yield "draws", figure, "Draws of x from every model."
    if sweep:
        alone = [row["log_px"] for row in rows if not row["latent"]]
        figure = receptive_fields(sweep, max(alone, default=None), context)
        yield "receptive_fields", figure, "What z says, and log p(x), by how far pixels see."


def checked(config: Config) -> Config:
    """Refuses what no run can be made with.

    Raises:
        ValueError: there is nothing to compare, the same thing twice, or a field below 0.
    """
    for name in ("models", "fields"):
        if len(set(got := getattr(config, name))) < len(got):
            raise ValueError(f"{name} must be different, got {got}; leave one out of --{name}")
    if config.fields or set(LATENT) & set(config.models):
        check_warm_up(config.epochs, config.warm_up)
    if not config.models and not config.fields:
        raise ValueError(f"models and fields must name something to train, got none; give --models {ModelWord}")
    if unknown := set(config.models) - set(get_args(ModelWord)):
        raise ValueError(f"models must be among {', '.join(get_args(ModelWord))}, got {', '.join(sorted(unknown))}")
    for name, values in {
        "fields": config.fields,
        "receptive_field": (config.receptive_field,),
        "near": (config.near,),
    }.items():
        if min(values, default=0) < 0:
            raise ValueError(f"{name} must be at least 0, got {min(values)}; it counts pixels, change --{name}")
    return config


def main(config: Config) -> list[dict]:
    study = Study(checked(config))
    data = splits(config)
    rows: list[dict] = []
    sweep: list[dict] = []
    drawn: dict = {}
    run = study.open()
    with study.interruptible(rows):
        measure(config, data, run, rows, sweep, drawn)
    tables = [summary(rows, config)] * bool(rows) + [by_field(sweep)] * bool(sweep)
    said = verdict(rows, sweep)
    study.show(tables)
    run.result(rows=rows, fields=sweep, verdict=said)
    shown = pictures(rows, sweep, drawn, config, data)
    study.report(f"What do latents buy where pixels see one another, on {config.data}?", INTRO, tables, said, shown)
    return rows


if __name__ == "__main__":
    start(main, Config, "autoregressive")
