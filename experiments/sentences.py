"""Does z say anything of a sentence? Remedies for collapse beside the language model: rate, bits, texts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, cast

import pyro
import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.draws import posterior_means
from dlvm.experiments.measures.over_seeds import OverSeeds, over_seeds
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, taken
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.pictures import words
from dlvm.experiments.setups.setup import fresh_pair, num_parameters
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_steps import Course, check_warm_up
from dlvm.experiments.sweeps.sentence_ways import LABELS, SentenceOptions, SentenceWay, Way
from dlvm.inference import evaluate, generate
from dlvm.inference.training.run_state import under
from dlvm.models import SentenceVAE

COLLAPSED = 0.5  # nats; a rate below says nothing that a reader could use
DRAWN, BETWEEN = 12, 7  # sentences that are drawn, and points on the line between two of them
INTRO = (
    "p(x | z) sees earlier tokens, and can describe any sentence without z. Then a rate of 0, where q(z | x) is p(z), "
    "is a point at which the ELBO stands still, and training ends there unless something keeps it away. One remedy at "
    "a time: KL annealing, once or in cycles; free bits; word dropout. Beside them the same net without z, whose "
    "log p(x) is exact (An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.8.1)."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, SentenceOptions, GuideOptions, DataOptions):
    """Train one sentence VAE in several ways, the same steps for each."""

    data: str = "names"
    """names, shakespeare, zinc, or a file of text with --lines, or of tokens."""
    ways: tuple[Way, ...] = ("plain", "elbo", "annealed", "cyclical", "free_bits", "word_dropout")
    """plain, the language model without z; elbo, no remedy; annealed, cyclical, free_bits, word_dropout: one each."""
    train_data: int | None = None
    """Train on so many sentences only."""
    seeds: int = 2
    """Runs of each way."""
    batch_size: int = 100
    """Sentences per step."""
    eval_particles: int = 200
    """Importance samples per test sentence."""
    out: Path = Path("runs/sentences")


def sentences(config: Config) -> Splits:
    """The data, in batches of tokens and lengths."""
    shown = SentenceWay().setup.shown(config.splits().tested_on(config.eval_data))
    if config.train_data is None:
        return shown
    return Splits(shown.train.take(min(config.train_data, shown.train.num_data)), shown.valid, shown.test)


def pair(config: Config, way: SentenceWay, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    return fresh_pair(way.setup, train, config.family(nn.Tanh), observed=True)


def way_of(config: Config, way: Way) -> SentenceWay:
    return dataclasses.replace(taken(SentenceWay, vars(config)), way=way)


def trained(config: Config, way: Way, seed: int) -> Done:
    """Trains and evaluates one pair."""
    train, valid, test = sentences(config)
    how = way_of(config, way)
    pyro.set_rng_seed(seed)
    model, guide = pair(config, how, train)
    course = Course(how, model, guide, train, valid, seed)
    name = {"way": way, "seed": seed, "history": course.history}
    if course.error is not None:
        return Done(name | {"error": course.error}, {})
    found = dataclasses.asdict(evaluate(model, guide, test, num_particles=config.eval_particles))
    more = {"ms_per_step": course.ms_per_step, "parameters": num_parameters(model, guide)}
    return Done(name | found | more, states(model, guide))


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every way with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{way} / seed {seed}", trained, config, names, checksums, names)
        for seed, way in product(range(config.seeds), config.ways)
        for names in [{"way": way, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"{row['bits_per_dim']:.3f} bits per token   rate {row['rate']:.2f}   {row['ms_per_step']:.1f} ms"


Means = dict[Way, OverSeeds]


def means(rows: list[dict]) -> Means:
    """Runs by way, in the order in which they were asked for."""
    return {way: runs for (way,), runs in over_seeds(rows, "way").items()}


def worth(found: Means, config: Config, name: str, z_dim: int) -> Table:
    """What each way reaches, and what z says."""
    heads = ("log p(x)", "bits / token", "ELBO", "rate", "active units", "ms / step")
    rows = []
    for way, runs in found.items():
        hidden = way == "plain"
        bits = (runs.mean("bits_per_dim"), runs.log_px_se * runs.mean("bits_per_dim") / -runs.log_px)
        of_z = [None, None] if hidden else [runs.mean("rate"), runs.mean("active_units")]
        rows.append(
            [
                LABELS[way],
                runs.log_px,
                bits,
                runs.mean("elbo"),
                *of_z,
                runs.mean("ms_per_step"),
                runs.first["parameters"],
            ]
        )
    return Table(
        ["way", *heads, "parameters"],
        rows,
        f"{next(iter(found.values())).first['num_data']} test sentences of {name}; means over "
        f"{counted(config.seeds, 'seed')} of {counted(config.epochs, 'epoch')} each. log p(x), ELBO and rate, "
        f"KL(q || p), in nats per sentence; bits per token count the end of each, by {config.eval_particles} "
        f"importance samples, a bound from below on log p(x), which without z is exact. Active units of {z_dim}.",
        dict(zip(heads, (".2f", ".3f", ".2f", ".2f", ".1f", ".1f"), strict=True)),
        {"bits / token": min, "log p(x)": max},
    )


def verdict(found: Means) -> str:
    """Which ways collapsed, which did not, and what z is worth beside the language model."""
    rates = {way: runs.mean("rate") for way, runs in found.items() if way != "plain"}
    asleep = [f"{LABELS[way]} ({rate:.2f} nats)" for way, rate in rates.items() if rate < COLLAPSED]
    awake = [f"{LABELS[way]} ({rate:.2f} nats)" for way, rate in rates.items() if rate >= COLLAPSED]
    said = [f"Collapsed: {', '.join(asleep)}."] if asleep else []
    said += [f"z says something under {', '.join(awake)}."] if awake else []
    bits = {way: runs.mean("bits_per_dim") for way, runs in found.items()}
    if "plain" in bits and rates:
        best = min(rates, key=lambda way: bits[way])
        said.append(
            f"Of those with z, {LABELS[best]} needs the fewest bits per token, {bits[best]:.3f}; the language model "
            f"needs {bits['plain']:.3f}."
        )
    return " ".join(said) or f"{bits['plain']:.3f} bits per token."


def written(rows: Tensor, data: Loader) -> list[str]:
    """Rows of tokens as they are read; numbers where the data have no vocabulary."""
    if data.vocabulary is None:
        return [" ".join(map(str, row)) for row in rows.tolist()]
    return ["".join(words(row, data.vocabulary)).replace("\n", " ") for row in rows]


@torch.no_grad()
def between(model: SentenceVAE, guide: nn.Module, data: Loader) -> Tensor:
    """The likeliest tokens along the straight line between the codes of two test sentences, (BETWEEN, steps)."""
    ends = posterior_means(model, guide, (data.x[:2], data["lengths"][:2]))
    share = torch.linspace(0, 1, BETWEEN).unsqueeze(-1)
    return model.likelihood(ends[0] + share * (ends[1] - ends[0]), steps=data.x.shape[1]).likeliest()


def texts(config: Config, done: list[Done], data: Splits) -> list[Table]:
    """What each model of seed 0 writes, and what lies between two sentences."""
    draws: dict[str, list[str]] = {"data": written(data.test.x[:DRAWN], data.test)}
    lines: dict[str, list[str]] = {}
    for one in done:
        if one.record["seed"]:
            continue
        model, guide = pair(config, way_of(config, one.record["way"]), data.train)
        model.load_state_dict(under(one.tensors, "model")), guide.load_state_dict(under(one.tensors, "guide"))
        model.eval(), guide.eval()
        label = LABELS[cast(Way, one.record["way"])]
        draws[label] = written(generate(model, DRAWN, seed=0)["x"], data.test)
        if isinstance(model, SentenceVAE):
            lines[label] = written(between(model, guide, data.test), data.test)
    first, last = written(data.test.x[:2], data.test) if data.test.num_data > 1 else ("", "")
    tables = [Table(list(draws), list(zip(*draws.values(), strict=False)), "Test data, and draws of each model.")]
    if lines:
        said = f"The likeliest tokens along the line from the code of '{first}' to that of '{last}', of each model."
        tables.append(Table(list(lines), list(zip(*lines.values(), strict=True)), said))
    return tables


def pictures(done: list[Done], name: str, config: Config) -> Iterator[Picture]:
    """The bounds while training."""
    from dlvm.experiments.figures import learning_curves

    found = means([one.record for one in done])
    curves: dict[Any, list] = {LABELS[way]: runs.all("history") for way, runs in found.items()}
    context = f"{name}, {counted(config.epochs, 'epoch')} each."
    yield "learning_curves", learning_curves(curves, context=context), "Validation bound while training."


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    if "annealed" in config.ways:
        check_warm_up(config.epochs, config.warm_up)
    if not 0 <= config.free_nats < math.inf:
        raise ValueError(f"free_nats must be finite and at least 0, got {config.free_nats}")
    data = sentences(config)
    for way in config.ways:
        how = way_of(config, way)
        pair(config, how, data.train), how.objective(data.train)
    return data


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = checked(config)  # what cannot work is found before a folder is made

    def answer(done: list[Done]) -> Answer:
        pairs = (pair(config, way_of(config, one.record["way"]), data.train) for one in done)
        study.keep(done, ("way", "seed"), pairs, data.train.x.shape[1])
        found = means([one.record for one in done])
        tables = [worth(found, config, data.train.name, config.z_dim), *texts(config, done, data)]
        title = f"Does z say anything of a sentence? {data.train.name}"
        return Answer(title, INTRO, tables, verdict(found), pictures(done, data.train.name, config))

    return study.compare(cells(config, data), told, answer)


if __name__ == "__main__":
    start(main, Config, "sentences")
