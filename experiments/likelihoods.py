"""Why is a decoder blurry? Likelihoods of grey levels in one model, the same steps each: bits, noise, samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.over_seeds import OverSeeds, over_seeds
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions
from dlvm.experiments.options.fitting import levels_of
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.likelihoods import DENSITIES, LikelihoodWord
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, check_x_alone, fresh_pair, num_parameters
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_steps import Course, StepsOptions, check_warm_up
from dlvm.inference import evaluate
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.training.run_state import under
from dlvm.models import Dequantised

DRAWS, SHOWN = 20, 4
INTRO = (
    "An ELBO trades what z tells (the rate) against how well x is described given z. Where p(x | z) may only be wide, "
    "as a Gaussian of fixed scale, details cost less than the nats that telling them would: z leaves them out, and the "
    "decoder is blurry (An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.8.2)."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, ModelOptions, StepsOptions, GuideOptions, DataOptions):
    """Train one model of grey levels under several likelihoods, the same steps for each."""

    likelihoods: tuple[LikelihoodWord, ...] = (
        "normal_fixed", "normal_shared", "normal_optimal", "normal", "laplace",
        "discretised_logistic", "logistic_mixture", "grey_levels",
    )  # fmt: skip
    """Words of --likelihood in dlvm.experiments.train; densities are of dequantised levels, so that all bits are of the
    levels' probability."""
    setup: Setup = VAESetup(8, (200, 200))
    seeds: int = 2
    """Runs of each likelihood."""
    batch_size: int = 100
    """Data per step."""
    eval_particles: int = 200
    """Importance samples per test datum."""
    out: Path = Path("runs/likelihoods")


def setup_of(config: Config, word: LikelihoodWord) -> Setup:
    """The model under this likelihood, dequantised where that is a density."""
    settings: dict[str, Any] = {"likelihood": word}
    if word in DENSITIES and config.setup.dequantise == "none":
        settings["dequantise"] = "uniform"
    elif word not in DENSITIES:
        settings["dequantise"] = "none"
    return dataclasses.replace(config.setup, **settings)  # type: ignore[type-var]  # a dataclass


def greys(config: Config) -> Splits:
    """The data as grey levels."""
    recipe = Recipe.by(config)
    return dataclasses.replace(recipe, binarize="none").splits().tested_on(config.eval_data)


def pair(config: Config, word: LikelihoodWord, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model under this likelihood and a fresh guide of it."""
    return fresh_pair(setup_of(config, word), train, config.family(config.setup.nonlinearity))


def trained(config: Config, likelihood: LikelihoodWord, seed: int) -> Done:
    """Trains and evaluates one pair."""
    train, valid, test = greys(config)
    pyro.set_rng_seed(seed)
    model, guide = pair(config, likelihood, train)
    course = Course(config, model, guide, train, valid, seed)
    name = {"likelihood": likelihood, "seed": seed, "history": course.history}
    if course.error is not None:
        return Done(name | {"error": course.error}, {})
    found = dataclasses.asdict(evaluate(model, guide, test, num_particles=config.eval_particles))
    more = {
        "ms_per_step": course.ms_per_step,
        "parameters": num_parameters(model, guide),
    }
    return Done(name | found | noise_of(model, guide, test.x) | more, states(model, guide))


@torch.no_grad()
def decoded(model: Any, guide: Any, x: Tensor | None, n: int = 1) -> Tensor:
    """``DRAWS`` draws of p(x | z), shape (DRAWS, n, x_dim), for z of the guide at x, or of the prior."""
    model.eval(), guide.eval()
    inner = model.model if isinstance(model, Dequantised) else model
    run = pyro.poutine.trace(inner if x is None else guide)
    sites = sample_sites(run.get_trace(n=n) if x is None else run.get_trace(x))
    values = {site["name"]: site["value"] for site in sites if site["name"] != "x"}
    given = pyro.poutine.condition(inner, data=values)
    fn: Any = pyro.poutine.trace(given).get_trace(n=n if x is None else len(x)).nodes["x"]["fn"]
    drawn = fn.sample((DRAWS,))
    if not isinstance(model, Dequantised):
        return drawn
    return (drawn * model.levels).floor().clamp(0, model.levels - 1) / (model.levels - 1)


def noise_of(model: nn.Module, guide: nn.Module, x: Tensor) -> dict[str, float]:
    """How wide p(x | z) is at posterior z, how far its mean is from data, and how sharp its means are; in greys."""
    draws = decoded(model, guide, x)
    mean = draws.mean(0)
    return {
        "decoder_sd": draws.var(0).mean().sqrt().item(),
        "residual": ((x - mean).square().mean() - draws.var(0).mean() / DRAWS).clamp_min(0).sqrt().item(),
        "sharpness": ((mean.var(0).mean() - draws.var(0).mean() / DRAWS).clamp_min(0) / x.var(0).mean()).sqrt().item(),
    }


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every likelihood with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{word} / seed {seed}", trained, config, names, checksums, names)
        for seed, word in product(range(config.seeds), config.likelihoods)
        for names in [{"likelihood": word, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"{row['bits_per_dim']:.3f} bits per dimension   sd {row['decoder_sd']:.3f}   {row['ms_per_step']:.1f} ms"


Means = dict[Any, OverSeeds]  # by word


def means(rows: list[dict]) -> Means:
    """Runs by likelihood, the fewest bits first."""
    found = {word: runs for (word,), runs in over_seeds(rows, "likelihood").items()}
    return dict(sorted(found.items(), key=lambda item: item[1].mean("bits_per_dim")))


def worth(found: Means, config: Config, name: str, levels: int) -> Table:
    """What each likelihood reaches, and how noisy its decoder is."""
    numbers = (
        "log_px",
        "bits_per_dim",
        "elbo",
        "rate",
        "decoder_sd",
        "residual",
        "sharpness",
        "khat_bad",
        "ms_per_step",
    )
    heads = ("log P(x)", "bits / dim", "ELBO", "rate", "decoder sd", "error", "sharpness", "k-hat > 0.7", "ms / step")
    formats = (".2f", ".3f", ".2f", ".2f", ".3f", ".3f", ".3f", ".2f", ".2f")
    best: dict[str, Any] = {"log P(x)": max, "bits / dim": min, "ELBO": max, "error": min}
    return Table(
        ["likelihood", *heads, "parameters"],
        [[word, *map(runs.mean, numbers), runs.first["parameters"]] for word, runs in found.items()],
        f"{next(iter(found.values())).first['num_data']} test data of {name} in {levels} grey levels; means over "
        f"{counted(config.seeds, 'seed')} of {counted(config.epochs, 'epoch')} each. All nats and bits are of the "
        f"levels' probability, by {config.eval_particles} importance samples; densities are dequantised, and "
        "theirs are bounds. Decoder sd: of p(x | z) at posterior z; error: root mean square of data less E[x | z]; "
        "sharpness: sd of E[x | z] over that of data; the three in greys from 0 to 1.",
        dict(zip(heads, formats, strict=True)),
        best,
    )


def verdict(found: Means) -> str:
    """Which likelihood describes the levels in the fewest bits, and whose decoder is the blurriest."""
    words = list(found)
    bits = {word: runs.mean("bits_per_dim") for word, runs in found.items()}
    few, many = words[0], words[-1]
    said = f"{few} needs the fewest bits, {bits[few]:.3f} per dimension; {many} the most, {bits[many]:.3f}."
    blurry = min(found, key=lambda word: found[word].mean("sharpness"))
    said += f" The blurriest is {blurry}, whose means vary {found[blurry].mean('sharpness'):.2f} times as much as data"
    said += f", at a rate of {found[blurry].mean('rate'):.1f} nats"
    return said + ("." if blurry == few else f"; {few} has {found[few].mean('rate'):.1f}.")


def pictures(config: Config, done: list[Done], data: Splits) -> Iterator[Picture]:
    """What the decoders say, and the bounds while training."""
    from dlvm.experiments.figures import decoders, learning_curves

    name = data.train.name
    context = f"{name}, {word_of(type(config.setup))}, {counted(config.epochs, 'epoch')} each."
    x, rows = data.test.x[:SHOWN], []
    found = means([one.record for one in done])
    first = {one.record["likelihood"]: one for one in done if one.record["seed"] == 0}
    for word, runs in found.items():
        model, guide = pair(config, word, data.train)
        model.load_state_dict(under(first[word].tensors, "model"))
        guide.load_state_dict(under(first[word].tensors, "guide"))
        pyro.set_rng_seed(0)
        at_data, at_prior = decoded(model, guide, x), decoded(model, guide, None, SHOWN)
        strips = [at_data.mean(0), at_data[0], at_prior.mean(0), at_prior[0]]
        numbers = {name: runs.mean(name) for name in ("bits_per_dim", "decoder_sd", "residual", "sharpness")}
        rows.append({"label": word, "strips": strips, **numbers})
    yield (
        "decoders",
        decoders(x, rows, data.train.image_shape, context),
        "Reconstructions and samples of each likelihood: the mean of p(x | z), and a draw of it.",
    )
    curves: dict[Any, list] = {word: runs.all("history") for word, runs in found.items()}
    yield "learning_curves", learning_curves(curves, context=context), "Validation bound while training."


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    check_x_alone(config.setup)
    names = [field.name for field in dataclasses.fields(config.setup)]  # type: ignore[arg-type]  # a dataclass
    if not {"likelihood", "dequantise"} <= set(names):
        raise ValueError(f"model must have a likelihood to choose, got {word_of(type(config.setup))}; take vae")
    if not config.likelihoods or len(set(config.likelihoods)) < len(config.likelihoods):
        raise ValueError(f"likelihoods must name at least one, and none twice; got {config.likelihoods}")
    check_warm_up(config.epochs, config.warm_up)
    data = greys(config)
    levels_of(data.train)
    for word in config.likelihoods:
        pair(config, word, data.train)
    return data


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = checked(config)  # what cannot work is found before a folder is made

    def answer(done: list[Done]) -> Answer:
        pairs = (pair(config, one.record["likelihood"], data.train) for one in done)
        study.keep(done, ("likelihood", "seed"), pairs, data.train.x_dim)
        found = means([one.record for one in done])
        tables = [worth(found, config, data.train.name, levels_of(data.train))]
        subject = described(setup_of(config, config.likelihoods[0]).model(data.train), data.train)
        intro = f"p(x, z) is {word_of(type(config.setup))} with {subject}; only p(x | z) differs.\n\n{INTRO}"
        title = f"Why is a decoder blurry? {data.train.name}"
        return Answer(title, intro, tables, verdict(found), pictures(config, done, data))

    return study.compare(cells(config, data), told, answer)


if __name__ == "__main__":
    start(main, Config, "likelihoods")
