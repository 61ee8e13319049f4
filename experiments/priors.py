"""What is a prior worth? Each in the same model and guide, with the same steps, beside the standard normal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.draws import dreams
from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.measures.paired_gaps import WIDTH, Difference
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.priors import MANY, PriorWord
from dlvm.experiments.runs.recipe import data_of
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, check_x_alone, fresh_pair, num_parameters
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.experiments.sweeps.equal_steps import Course, StepsOptions, check_warm_up
from dlvm.inference import evaluate, log_weights
from dlvm.inference.bounds.importance import WORST_KHAT, log_mean_exp, pareto_k
from dlvm.inference.training.run_state import under

REFERENCE: PriorWord = "standard"
AT_ONCE = 2_000_000  # densities of components at a time
SHOWN = 64


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, ModelOptions, StepsOptions, GuideOptions, DataOptions):
    """Train one model under several priors, the same steps for each, and compare log p(x) datum by datum."""

    priors: tuple[PriorWord, ...] = ("standard", "ard", "mixture", "vamp", "vamp_data", "real_nvp", "spline", "maf")
    """Words of --prior in dlvm.experiments.train; each is held against standard, which is always trained."""
    setup: Setup = VAESetup(8, (100, 100))
    seeds: int = 2
    """Runs of each prior."""
    batch_size: int = 100
    """Data per step."""
    eval_particles: int = 500
    """Importance samples per test datum."""
    out: Path = Path("runs/priors")


def setup_of(config: Config, prior: PriorWord) -> Setup:
    """The model with this prior."""
    settings: dict[str, Any] = {"prior": prior}
    if prior not in MANY:
        settings["components"] = None
    return dataclasses.replace(config.setup, **settings)  # type: ignore[type-var]  # a dataclass


def pair(config: Config, prior: PriorWord, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model with this prior and a fresh guide of it."""
    return fresh_pair(setup_of(config, prior), train, config.family(config.setup.nonlinearity))


def trained(config: Config, prior: PriorWord, seed: int) -> Done:
    """Trains and evaluates one pair."""
    train, valid, test = data_of(config)
    pyro.set_rng_seed(seed)
    model, guide = pair(config, prior, train)
    course = Course(config, model, guide, train, valid, seed)
    name = {"prior": prior, "seed": seed, "history": course.history}
    if course.error is not None:
        return Done(name | {"error": course.error}, {})
    found = dataclasses.asdict(evaluate(model, guide, test, num_particles=10))
    values, khat_bad = weighed(model, guide, test, config.eval_particles)
    more = {
        "valid": max(record["valid"] for record in course.history),
        "ms_per_step": course.ms_per_step,
        "parameters": num_parameters(model, guide),
        "log_px": values.mean().item(),
        "khat_bad": khat_bad,
    }
    return Done(name | found | more, states(model, guide) | {"log_px_values": values})


@torch.no_grad()
def weighed(model: Any, guide: nn.Module, test: Loader, draws: int) -> tuple[Tensor, float]:
    """log p(x) of each test datum by so many draws of the guide, nats, and the share of data with a k-hat above 0.7."""
    values, bad = [], []
    components = getattr(model.prior(), "mixture_distribution", None)
    number = 1 if components is None else components.logits.shape[-1]
    for (x,) in test:
        size = max(1, AT_ONCE // (len(x) * number))
        parts = [min(size, draws - done) for done in range(0, draws, size)]
        log_w = torch.cat([log_weights(model, guide, x, num_particles=part).double() for part in parts])
        values.append(log_mean_exp(log_w))
        bad.append(pareto_k(log_w) > WORST_KHAT)
    return torch.cat(values), torch.cat(bad).double().mean().item()


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every prior with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{prior} / seed {seed}", trained, config, names, checksums, names)
        for seed, prior in product(range(config.seeds), dict.fromkeys((REFERENCE, *config.priors)))
        for names in [{"prior": prior, "seed": seed}]
    ]


def told(row: dict) -> str:
    return f"log p(x) {row['log_px']:.2f}   ELBO {row['elbo']:.2f}   {row['ms_per_step']:.1f} ms a step"


def gains_of(done: list[Done]) -> dict[str, tuple[Difference, list[float]]]:
    """{prior: what it has over the standard normal, and in each seed}, in nats per datum."""
    values: dict[str, dict[int, Tensor]] = {}
    for one in done:
        values.setdefault(one.record["prior"], {})[one.record["seed"]] = one.tensors["log_px_values"]
    found, reference = {}, values.pop(REFERENCE, {})
    for prior, of_seed in values.items():
        seeds = sorted(of_seed.keys() & reference.keys())
        if seeds:
            found[prior] = paired(torch.stack([of_seed[seed] - reference[seed] for seed in seeds]))
    return found


def paired(differences: Tensor) -> tuple[Difference, list[float]]:
    """The mean of differences, shape (seeds, data), with two standard errors over data and over seeds; each seed's."""
    over_data, over_runs = differences.mean(0), differences.mean(1)
    parts = [each.var().item() / len(each) for each in (over_data, over_runs) if len(each) > 1]
    value, error = differences.mean().item(), sum(parts) ** 0.5
    return Difference(value, value - WIDTH * error, value + WIDTH * error), over_runs.tolist()


def worth(done: list[Done], config: Config) -> Table:
    """What each prior reaches, and at what price."""
    found, lines = gains_of(done), []
    runs_of = {prior: runs for (prior,), runs in over_seeds([one.record for one in done], "prior").items()}
    for prior, runs in sorted(runs_of.items(), key=lambda item: -item[1].log_px):
        gain = str(found[prior][0]) if prior in found else "-"
        line = [prior, runs.log_px, gain, runs.spread, *(runs.mean(name) for name in ("elbo", "rate", "distortion"))]
        units = runs.all("active_units")
        active = None if None in units else fmean(units)
        lines.append([*line, active, runs.mean("khat_bad"), runs.mean("ms_per_step"), runs.first["parameters"]])
    fine = ("sd of seeds", "ELBO", "rate", "distortion", "k-hat > 0.7", "ms / step")
    return Table(
        ["prior", "log p(x)", "gain [interval]", *fine[:4], "active units", *fine[4:], "parameters"],
        lines,
        f"{done[0].record['num_data']} test data, nats per datum; means over {counted(config.seeds, 'seed')} of "
        f"{counted(config.epochs, 'epoch')} each; log p(x) by {config.eval_particles} importance samples. Gains over "
        f"{REFERENCE} are paired by seed and datum, with an interval of two standard errors over data and seeds.",
        {"log p(x)": ".3f", "active units": ".1f"} | {column: ".2f" for column in fine},
        {"log p(x)": max, "ELBO": max},
    )


def verdict(done: list[Done]) -> str:
    """Which prior is worth most, and whether data and seeds tell it from the standard normal."""
    found = gains_of(done)
    if not found:
        return f"No prior finished beside {REFERENCE}."
    best, (gain, _) = max(found.items(), key=lambda item: item[1][0].value)
    if not gain.sure or gain.value < 0:
        return (
            f"No prior is told from {REFERENCE} by more than the noise of data and seeds; {best} comes first, {gain}."
        )
    lost = [prior for prior, (each, _) in found.items() if each.high < 0]
    said = f"{best} is worth most: {gain} nats per datum more than {REFERENCE} for the same steps."
    return said + (f" Less than {REFERENCE}: {', '.join(lost)}." if lost else "")


def pictures(config: Config, done: list[Done], train: Loader) -> Iterator[Picture]:
    """Gains, curves, what each prior generates, and what the VampPrior has learned."""
    from dlvm.experiments.figures import gains, learning_curves, pseudo_inputs, samples

    context = f"{train.name}, {word_of(type(config.setup))}, {counted(config.epochs, 'epoch')} each."
    found = sorted(gains_of(done).items(), key=lambda item: -item[1][0].value)
    rows = [{"prior": p, "gain": d.value, "low": d.low, "high": d.high, "seeds": seeds} for p, (d, seeds) in found]
    if rows:
        yield "gains", gains(rows, REFERENCE, context), f"Test log p(x) beyond that of {REFERENCE}."
    of = over_seeds([one.record for one in done], "prior").items()
    curves = {prior: runs.all("history") for (prior,), runs in of}
    yield "learning_curves", learning_curves(curves, context=context), "Validation bound while training."
    models = {one.record["prior"]: restored(config, one, train) for one in done if one.record["seed"] == 0}
    drawn = {prior: dreams(model, 36)[1] for prior, model in models.items()}
    yield "samples", samples(drawn, train.image_shape, context), "Means of p(x | z) for z from each prior; seed 0."
    if "vamp" in models:
        learned = models["vamp"].prior.pseudo_inputs().detach()[:SHOWN]
        shown = {"learned pseudo-inputs": learned, "data": train.first(len(learned))}
        yield "pseudo_inputs", pseudo_inputs(shown, train.image_shape, context), "Learned pseudo-inputs, and data."


def restored(config: Config, done: Done, train: Loader) -> Any:
    """The trained model of a finished run, with its guide inside where the prior reads it."""
    model, guide = pair(config, done.record["prior"], train)
    model.load_state_dict(under(done.tensors, "model"))
    guide.load_state_dict(under(done.tensors, "guide"))
    return model


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    check_x_alone(config.setup)
    names = [field.name for field in dataclasses.fields(config.setup)]  # type: ignore[arg-type]  # a dataclass
    if "prior" not in names:
        raise ValueError(f"model must have a prior to choose, got {word_of(type(config.setup))}; take vae")
    if vars(config.setup)["prior"] != REFERENCE:
        raise ValueError("prior is what --priors compares here; leave out --prior")
    if not set(config.priors) - {REFERENCE}:
        raise ValueError(f"priors must name one beside {REFERENCE}, got {config.priors}; add vamp, for example")
    check_warm_up(config.epochs, config.warm_up)
    data = data_of(config)
    for prior in config.priors:
        pair(config, prior, data.train)
    return data


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = checked(config)  # what cannot work is found before a folder is made

    def answer(done: list[Done]) -> Answer:
        pairs = (pair(config, one.record["prior"], data.train) for one in done)
        study.keep(done, ("prior", "seed"), pairs, data.train.x_dim)
        gains = {p: d._asdict() for p, (d, _) in gains_of(done).items()}
        drawn = pictures(config, done, data.train)
        title = f"What is a prior worth on {config.data}?"
        return Answer(title, intro_of(config, data), [worth(done, config)], verdict(done), drawn, {"gains": gains})

    return study.compare(cells(config, data), told, answer)


def intro_of(config: Config, data: Splits) -> str:
    """What was done."""
    subject = described(setup_of(config, REFERENCE).model(data.train), data.train)
    return (
        f"p(x, z) is {word_of(type(config.setup))} with {subject}; only p(z) differs. Each prior has "
        f"{counted(config.epochs, 'epoch')} of the same data in the same order, from the same seed, by the ELBO with "
        f"one sample of z, whose log q - log p counts in full after {counted(config.warm_up, 'epoch')}.\n\n"
        "The rate, the mean over data of KL(q(z | x) || p(z)), is the information that z has of x, plus KL(q(z) || "
        "p(z)): a prior that comes nearer to the aggregate posterior q(z) takes away the latter."
    )


if __name__ == "__main__":
    start(main, Config, "priors")
