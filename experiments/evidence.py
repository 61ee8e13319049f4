"""How far can a likelihood be trusted? Every estimator of log p(x) against its cost, on one trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import nn

from dlvm.evidence import (
    Estimate,
    Sandwich,
    annealed,
    calibration,
    decoder_report,
    defensive,
    importance,
    prior_sampling,
    sandwich,
    simulate,
    views,
)
from dlvm.evidence.log_px.sandwich import weighed
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.evidence_report import INTRO, WEIGHTED, excuses, pictures, tables, verdict
from dlvm.experiments.measures.draws import Rows, batches_of, first_rows
from dlvm.experiments.measures.evidence_record import Found, annealing_cost, bracket_row, known_value, row_of
from dlvm.experiments.options.command_line import check_least, start
from dlvm.experiments.options.common import DataOptions, FolderOptions
from dlvm.experiments.options.guides import GuideName, guide_label
from dlvm.experiments.options.objectives import ObjectiveWord, objective_for
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.recipe import Recipe, check_unasked, settings_in
from dlvm.experiments.runs.restore import recipe_of, restore
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, refuse_observed
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Study
from dlvm.guides import latents
from dlvm.inference import ELBO, check, fit
from dlvm.inference.training.arguments import check_aims

MOST_SAMPLES = 1000
OF_THE_PAIR = (
    *("setup", "guide", "objective", "num_particles", "epochs", "patience", "lr"),
    *(field.name for field in dataclasses.fields(DataOptions) if field.name != "data_dir"),
)
Pair = tuple[nn.Module, nn.Module]


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, ModelOptions, DataOptions):
    """Train one model, or take a trained one, and estimate its log p(x) in every way there is, at several costs."""

    run: Path | None = None
    """Folder of a run of dlvm.experiments.train whose model, guide and data are taken as they are; model, guide, data,
    objective, epochs, patience, lr and num_particles say how to train a new pair instead."""
    guide: GuideName = "diagonal"
    setup: Setup = VAESetup(2, (100, 100))
    objective: ObjectiveWord = "elbo"
    """What the pair is trained by."""
    num_particles: int = 1
    """Samples of z per datum in that objective."""
    epochs: int = 100
    """Most passes over the training data."""
    patience: int | None = 20
    """Stop when the validation bound has not risen for so many epochs."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    seed: int = 0
    """Of training and of all draws."""
    num_data: int = 100
    """Test data whose log p(x) is estimated, and data simulated from the model for the bracket."""
    particles: tuple[int, ...] = (10, 100, 1000, 10000)
    """Samples per datum from prior, guide and both."""
    share: float = 0.1
    """Of the prior in the defensive mixture."""
    temperatures: tuple[int, ...] = (10, 30, 100, 300)
    """Of annealing, on test data and on simulated data."""
    num_chains: int = 8
    """Annealed chains per datum."""
    leaps: int = 5
    """Leapfrog steps per temperature."""
    calibration_data: int = 1000
    """Data simulated from the model to see whether q(z | x) is as wide as p(z | x)."""
    view_data: int = 1000
    """Test data, at most, for rate, distortion, mutual information and the decoder."""
    progress: bool = True
    """Show bars with the time left; Ctrl-C ends the measuring and reports what is done."""
    out: Path = Path("runs/evidence")

    @property
    def samples(self) -> int:
        """Per datum, for the bounds that come from importance weights."""
        return min(MOST_SAMPLES, max(self.particles))


@dataclasses.dataclass
class Subject:
    """What is measured: a pair in evaluation, its data, and what to call it."""

    model: nn.Module
    guide: nn.Module
    x: Rows
    test: Loader
    name: str


def recipe_for(config: Config) -> Recipe:
    """What the pair is made of, or was."""
    if config.run is not None:
        check_unasked(config, config.run, OF_THE_PAIR)
    return Recipe.by(config) if config.run is None else recipe_of(config.run, config.data_dir)


def prepared(config: Config, recipe: Recipe, data: Splits, pair: Pair | None, run: Run) -> Subject:
    """The pair, trained here or before, and the data that it is measured on."""
    pyro.set_rng_seed(config.seed)
    if pair is None:
        best = recipe.setup.optimum(data.train)  # drawn from nothing, so that what follows is drawn as ever
        model, guide = recipe.pair(data.train) if best is None else with_guide(recipe, best, data.train)
        fitted(config, model, guide, data, run)
    else:
        model, guide = pair
    word, family = word_of(type(recipe.setup)), guide_label(recipe.guide.guide)
    name = f"{data.train.name}, {word}, {family} guide, {described(model, data.train)}"
    return Subject(model, guide, first_rows(data.test, config.num_data), data.test, name)


def with_guide(recipe: Recipe, model: nn.Module, data: Loader) -> Pair:
    """A model that is fitted already, and a fresh guide of it."""
    guide = recipe.guide.family(recipe.setup.nonlinearity)
    return model.requires_grad_(False), guide(latents(model, *data.examples), recipe.setup.encoder(data))


def fitted(config: Config, model: nn.Module, guide: nn.Module, data: Splits, run: Run) -> None:
    """Trains; every epoch is a line of metrics.jsonl."""
    epoch, objective = None, objective_for(config.objective, config.setup.defaults, config.num_particles)
    how: dict[str, Any] = dict(epochs=config.epochs, patience=config.patience, seed=config.seed)
    adam = partial(torch.optim.Adam, lr=config.lr)
    for epoch in fit(model, guide, objective, data.train, valid=data.valid, optimizer=adam, **how):
        run.log(**dataclasses.asdict(epoch))
    print(f"trained: {epoch}", flush=True)


def candidates(config: Config, subject: Subject) -> Iterator[tuple[str, int, int, Callable[[], Estimate]]]:
    """Method, budget (samples or temperatures), evaluations of p(x | z) per datum, and what to call."""
    model, guide, x = subject.model, subject.guide, subject.x
    how: dict[str, Any] = {"seed": config.seed, "progress": config.progress}
    for count in config.particles:
        yield WEIGHTED[0], count, count, partial(prior_sampling, model, x, count, **how)
        yield WEIGHTED[1], count, count, partial(importance, model, guide, x, count, **how)
        yield WEIGHTED[2], count, count, partial(defensive, model, guide, x, count, share=config.share, **how)
    for count in config.temperatures:
        cost = annealing_cost(config.num_chains, count, config.leaps)
        how |= {"num_chains": config.num_chains, "temperatures": count, "leaps": config.leaps}
        for origin, first in (("prior", None), ("guide", guide)):
            yield f"AIS from the {origin}", count, cost, partial(annealed, model, x, first, **how)


def steps(config: Config, subject: Subject, run: Run, found: Found) -> Iterator[bool]:
    """Measures one thing at a time, and tells whether it could be completed."""
    found.truth, found.why = known_value(subject.model, subject.x, config.seed, config.progress)
    print(found.truth or f"no exact value: {found.why}", flush=True)
    yield found.truth is None or found.truth.complete
    for method, budget, cost, call in candidates(config, subject):
        if method in found.left_out:
            continue
        estimate = None
        with left_out(found, method):
            estimate = call()
        if estimate is None:
            continue
        found.rows.append(row_of(method, budget, cost, estimate, found.truth))
        found.largest[method] = estimate
        run.log(**found.rows[-1])
        print(f"{method}, {budget}: {estimate}", flush=True)
        yield estimate.complete
    if not found.rows:
        raise ValueError(f"no estimator works with this pair: {next(iter(found.left_out.values()))}")
    found.real = of_real(config, subject, found)
    yield all(row.complete for row in found.real.rows.values())
    with left_out(found, "data simulated from the model"):
        yield from bracketed(config, subject, run, found)
    yield from diagnosed(config, subject, found)


def of_real(config: Config, subject: Subject, found: Found) -> Sandwich:
    """The bounds of the test data; of the annealed ones the largest but for its noise."""
    rows = weighed(subject.model, subject.guide, batches_of(subject.x), config.samples, config.seed, config.progress)
    if chains := [e for name, e in found.largest.items() if name.startswith("AIS")]:
        rows["AIS"] = max(chains, key=lambda estimate: estimate.mean - 2 * estimate.mean_se)
    return Sandwich(rows | ({} if found.truth is None else {"exact": found.truth}), simulated=False)


def bracketed(config: Config, subject: Subject, run: Run, found: Found) -> Iterator[bool]:
    """The sandwich of simulated data by rising temperatures, from the prior and from the guide."""
    simulated = simulate(subject.model, config.num_data, config.seed)
    truth, _ = known_value(subject.model, [simulated.args], config.seed, config.progress)
    yield truth is None or truth.complete
    exact_row = {} if truth is None else {"exact": truth}
    origins = [name for name in ("prior", "guide") if f"AIS from the {name}" not in found.left_out]
    for count in config.temperatures:
        for origin in origins:
            one = sandwich(
                subject.model, subject.guide, simulated, config.samples, config.num_chains, count, config.leaps,
                from_prior=origin == "prior", seed=config.seed, progress=config.progress,
            )  # fmt: skip
            if one.complete:
                one = dataclasses.replace(one, rows=one.rows | exact_row)
                found.brackets.append((origin, count, one))
                run.log(**bracket_row(origin, count, one))
                print(f"simulated data, {count} temperatures from the {origin}: {one.verdict[0]}", flush=True)
            yield one.complete


def diagnosed(config: Config, subject: Subject, found: Found) -> Iterator[bool]:
    """The two views, calibration of the guide, and the decoder."""
    pair = subject.model, subject.guide
    how: dict[str, Any] = {"seed": config.seed, "progress": config.progress}
    x = first_rows(subject.test, config.view_data)
    with left_out(found, "the two views"):
        found.views = views(*pair, x, **how)
    yield found.views is None or found.views.complete
    with left_out(found, "calibration of the guide"):
        found.calibration = calibration(*pair, config.calibration_data, **how)
    yield found.calibration is None or found.calibration.num_data == found.calibration.asked
    with left_out(found, "the decoder"):
        found.decoder = decoder_report(*pair, x, image_shape=subject.test.image_shape, **how)
    yield found.decoder is None or found.decoder.complete


@contextmanager
def left_out(found: Found, what: str) -> Iterator[None]:
    """Inside, what cannot be done with a pair is noted, and said."""
    try:
        yield
    except (ValueError, TypeError) as error:
        found.left_out[what] = str(error)
        print(f"{what}: left out: {error}", flush=True)


def checked(config: Config) -> tuple[Recipe, Splits, Pair | None]:
    """What to train on what, once every number has been found to work; and the pair, if a run has left it."""
    for name, least in (("particles", 2), ("temperatures", 1)):
        if not (counts := getattr(config, name)):
            raise ValueError(f"{name} must be at least {least}, got {counts}")
        if min(counts) < least or len(set(counts)) < len(counts):
            raise ValueError(f"{name} must be different numbers from {least} on, got {' '.join(map(str, counts))}")
    check_least(config, calibration_data=20)
    if not 0 < config.share < 1:
        raise ValueError(f"share must be between 0 and 1, got {config.share}; 0.1 is usual")
    objective = objective_for(config.objective, config.setup.defaults, config.num_particles)
    if config.run is None:
        check_aims(objective, (), config.epochs, config.patience)
    recipe = recipe_for(config)
    data = recipe.splits()
    pair = None if config.run is None else restore(config.run)
    if pair is not None:
        check(*pair, ELBO(), *data.train.examples)
    refuse_observed(recipe.pair(data.train)[0] if pair is None else pair[0], data.train, recipe.setup.summed_out)
    return recipe, data, pair


def main(config: Config) -> Found:
    study = Study(config)
    recipe, data, pair = checked(config)  # what cannot work is found before a folder is made
    run = study.open({} if config.run is None else settings_in(config.run))
    subject, found = prepared(config, recipe, data, pair, run), Found(interrupted=True)  # until all is measured
    with study.interruptible(found.rows):
        for complete in steps(config, subject, run, found):
            if not complete:
                raise KeyboardInterrupt
        found.interrupted = False
    said = verdict(found)
    run.result(**found.result, verdict=said)
    shown = tables(found)
    study.show(shown)
    count = min(config.num_data, subject.test.num_data)
    intro = INTRO.format(name=subject.name, count=count) + excuses(found)
    title = f"How far can log p(x) be trusted on {recipe.data.data}?"
    study.report(title, intro, shown, said, pictures(found, subject.name))
    return found


if __name__ == "__main__":
    start(main, Config, "evidence")
