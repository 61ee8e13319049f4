"""How far can a likelihood be trusted? Every estimator of log p(x) against its cost, on one trained model."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pyro
import torch
import tyro
from torch import Tensor, nn

from dlvm.evidence import (
    Estimate,
    Sandwich,
    annealed,
    calibration,
    decoder_report,
    defensive,
    exact,
    importance,
    prior_sampling,
    quadrature,
    sandwich,
    simulate,
    views,
)
from dlvm.evidence.annealing.step_sizes import FIRST_MOVES, MOST_MOVES, PILOT_CHAINS, PILOT_MOVES, PILOT_TEMPERATURES
from dlvm.evidence.log_px.sandwich import weighed
from dlvm.evidence.mean import Measured
from dlvm.experiments import train
from dlvm.experiments.data import Loader, Splits, load
from dlvm.experiments.evidence_report import WEIGHTED, Found, bracket_row, pictures, tables, verdict
from dlvm.experiments.options import guides, objectives
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import print_table
from dlvm.experiments.runs.restore import restore, settings_of
from dlvm.experiments.setups.pictures import latent_size
from dlvm.guides import latents
from dlvm.inference import ELBO, check, fit
from dlvm.inference.training.arguments import check_aims
from dlvm.models import PPCA
from dlvm.nets import MLP

MOST_SAMPLES = 1000
Pair = tuple[nn.Module, nn.Module]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train one model, or take a trained one, and estimate its log p(x) in every way there is, at several costs."""

    run: Path | None = None
    """Folder of a run of experiments.train whose model and guide are taken as they are; what follows, to --seed, says
    how to train a new pair instead."""
    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, or a path to an .npz, .npy or .csv file."""
    model: Literal["vae", "ppca"] = "vae"
    """vae; or ppca, linear and Gaussian on grey levels, fitted in closed form, whose log p(x) is known."""
    guide: guides.GuideWord = "diagonal"
    """Family of q(z | x)."""
    objective: objectives.ObjectiveWord = "elbo"
    """What the pair is trained by."""
    num_particles: int = 1
    """Samples of z per datum in that objective."""
    z_dim: int = 2
    """Latent dimensions; log p(x) of a vae is known for 1 and 2, by quadrature."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder, and in reverse of the decoder; tanh."""
    epochs: int = 100
    """Most passes over the training data."""
    patience: int | None = 20
    """Stop when the validation bound has not risen for so many epochs."""
    batch_size: int = 50
    """Data per step."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    key: str | None = None
    """Which array of an .npz file."""
    scale: float | None = None
    """Divide a file's numbers by this first (255 for 8-bit images)."""
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
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/evidence")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder."""

    @property
    def samples(self) -> int:
        """Per datum, for the bounds that come from importance weights."""
        return min(MOST_SAMPLES, max(self.particles))


@dataclasses.dataclass
class Subject:
    """What is measured: a pair in evaluation, its data, and what to call it."""

    model: nn.Module
    guide: nn.Module
    x: Tensor
    test: Loader
    name: str


def annealing_cost(num_chains: int, temperatures: int, leaps: int, upwards: bool = True) -> int:
    """Evaluations of p(x | z) per datum of ``annealed``, those that find step sizes included; most give a slope too."""
    pilot = min(PILOT_CHAINS, num_chains)
    taken = min(temperatures, PILOT_TEMPERATURES)
    moves = FIRST_MOVES + taken * min(MOST_MOVES, math.ceil(PILOT_MOVES / taken))
    return pilot * (1 + moves * leaps) + num_chains * (1 + (temperatures - 1) * leaps)


def training_of(config: Config) -> train.Config:
    """The settings of dlvm.experiments.train that the pair has or had."""
    if config.run is None:
        likelihood = "normal" if config.model == "ppca" else "bernoulli"
        shared = {field.name for field in dataclasses.fields(train.Config)} - {"out", "overwrite"}
        mine = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return train.Config(likelihood=likelihood, **{name: mine[name] for name in mine.keys() & shared})
    if config.model == "ppca":
        raise ValueError(f"model must be vae with --run, got ppca: {config.run} holds a vae; leave one of the two out")
    kept = settings_of(config.run)
    return dataclasses.replace(kept, data_dir=config.data_dir or kept.data_dir, device="cpu")


def splits_of(trained: train.Config) -> Splits:
    """The data as that training has them."""
    keep_greys = trained.binarize == "none" or (trained.binarize, trained.likelihood) == ("default", "normal")
    settings = {name: getattr(trained, name) for name in ("batch_size", "data_dir", "key", "scale")}
    return load(trained.data, binarize=None if keep_greys else trained.binarize, **settings)


def prepared(config: Config, trained: train.Config, data: Splits, pair: Pair | None, run: Run) -> Subject:
    """The pair, trained here or before, and the data that it is measured on."""
    pyro.set_rng_seed(config.seed)
    if config.model == "ppca":
        model = PPCA.maximum_likelihood(data.train.x, config.z_dim).requires_grad_(False)
        encoder = MLP(data.train.x_dim, *config.hidden, activation=nn.Tanh)
        guide = guides.GUIDES[config.guide](latents(model, data.train.example), encoder)
    else:
        model, guide = train.pair(trained, data.train) if pair is None else pair
    if pair is None:
        numbers = objectives.Numbers(num_particles=config.num_particles)
        fitted(config, model, guide, objectives.objective(config.objective, numbers), data, run)
    family = guides.GUIDES[trained.guide].__name__
    name = f"{data.train.name}, {config.model.upper()}, {family} guide, {trained.z_dim} latent dimensions"
    return Subject(model, guide, drawn(data.test, config.num_data), data.test, name)


def fitted(config: Config, model: nn.Module, guide: nn.Module, objective, data: Splits, run: Run) -> None:
    """Trains; every epoch is a line of metrics.jsonl."""
    epoch = None
    settings = dict(epochs=config.epochs, patience=config.patience, seed=config.seed)
    adam = partial(torch.optim.Adam, lr=config.lr)
    for epoch in fit(model, guide, objective, data.train, valid=data.valid, optimizer=adam, **settings):
        run.log(**dataclasses.asdict(epoch))
    print(f"trained: {epoch}", flush=True)


def drawn(loader: Loader, most: int) -> Tensor:
    """The first data of a loader as its batches have them, binary where it draws them so; at most ``most``."""
    part = loader.take(min(most, loader.num_data))
    return torch.cat([x for (x,) in part])


def known_value(config: Config, subject: Subject, data: object) -> tuple[Estimate | None, str]:
    """The exact log p(x) of data, from the model or by quadrature; or why there is none."""
    if callable(getattr(subject.model, "log_px", None)):
        return exact(subject.model, data), ""
    if (size := latent_size(subject.model)) > 2:
        return None, f"z has {size} dimensions, and quadrature takes at most 2"
    try:
        return quadrature(subject.model, data, seed=config.seed, progress=config.progress), ""
    except ValueError as error:
        return None, str(error)


def candidates(config: Config, subject: Subject) -> Iterator[tuple[str, int, int, Callable[[], Estimate]]]:
    """Method, budget (samples or temperatures), evaluations of p(x | z) per datum, and what to call."""
    model, guide, x = subject.model, subject.guide, subject.x
    how = {"seed": config.seed, "progress": config.progress}
    for count in config.particles:
        yield WEIGHTED[0], count, count, partial(prior_sampling, model, x, count, **how)
        yield WEIGHTED[1], count, count, partial(importance, model, guide, x, count, **how)
        yield WEIGHTED[2], count, count, partial(defensive, model, guide, x, count, share=config.share, **how)
    for count in config.temperatures:
        cost = annealing_cost(config.num_chains, count, config.leaps)
        how |= {"num_chains": config.num_chains, "temperatures": count, "leaps": config.leaps}
        for origin, first in (("prior", None), ("guide", guide)):
            yield f"AIS from the {origin}", count, cost, partial(annealed, model, x, first, **how)


def row_of(method: str, budget: int, cost: int, found: Estimate, truth: Estimate | None) -> dict:
    """An estimate as plain numbers, beside the exact value if there is one."""
    row = {
        "method": method,
        "budget": budget,
        "evaluations": cost,
        "seconds": found.seconds,
        "log_px": found.mean,
        "log_px_se": found.mean_se,
        "side": found.side,
        "ess": found.ess.mean().item(),
        "num_samples": found.num_samples,
        "khat_bad": found.khat_bad,
        "num_data": found.num_data,
    }
    if truth is not None:
        off = found.log_px - truth.log_px[: found.num_data]
        error = Measured.mean(off.abs())
        row |= {"bias": off.mean().item(), "bias_se": found.mean_se, "error": error.value, "error_se": error.se}
    return row


def measured(config: Config, subject: Subject, run: Run, found: Found) -> None:
    """Everything, one after another, into ``found``; after Ctrl-C what was done until then."""
    try:
        for complete in steps(config, subject, run, found):
            if not complete:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        if not found.rows:
            raise
        found.interrupted = True


def steps(config: Config, subject: Subject, run: Run, found: Found) -> Iterator[bool]:
    """Measures one thing at a time, and tells whether it could be completed."""
    found.truth, found.why = known_value(config, subject, subject.x)
    print(found.truth or f"no exact value: {found.why}", flush=True)
    yield found.truth is None or found.truth.complete
    for method, budget, cost, call in candidates(config, subject):
        if method in found.left_out:
            continue
        try:
            estimate = call()
        except ValueError as error:
            found.left_out[method] = str(error)
            print(f"{method} is left out: {error}", flush=True)
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
    yield from bracketed(config, subject, run, found)
    yield from diagnosed(config, subject, found)


def of_real(config: Config, subject: Subject, found: Found) -> Sandwich:
    """The bounds of the test data; of the annealed ones the largest but for its noise."""
    rows = weighed(subject.model, subject.guide, [subject.x], config.samples, config.seed, config.progress)
    if chains := [e for name, e in found.largest.items() if name.startswith("AIS")]:
        rows["AIS"] = max(chains, key=lambda estimate: estimate.mean - 2 * estimate.mean_se)
    return Sandwich(rows | ({} if found.truth is None else {"exact": found.truth}), simulated=False)


def bracketed(config: Config, subject: Subject, run: Run, found: Found) -> Iterator[bool]:
    """The sandwich of simulated data by rising temperatures, from the prior and from the guide."""
    simulated = simulate(subject.model, config.num_data, config.seed)
    truth, _ = known_value(config, subject, [simulated.args])
    yield truth is None or truth.complete
    exact_row = {} if truth is None else {"exact": truth}
    origins = [name for name in ("prior", "guide") if f"AIS from the {name}" not in found.left_out]
    for count in config.temperatures:
        for origin in origins:
            one = sandwich(
                subject.model,
                subject.guide,
                simulated,
                config.samples,
                config.num_chains,
                count,
                config.leaps,
                from_prior=origin == "prior",
                seed=config.seed,
                progress=config.progress,
            )
            if one.complete:
                one = dataclasses.replace(one, rows=one.rows | exact_row)
                found.brackets.append((origin, count, one))
                run.log(**bracket_row(origin, count, one))
                print(f"simulated data, {count} temperatures from the {origin}: {one.verdict[0]}", flush=True)
            yield one.complete


def diagnosed(config: Config, subject: Subject, found: Found) -> Iterator[bool]:
    """The two views, calibration of the guide, and the decoder."""
    pair, how = (subject.model, subject.guide), {"seed": config.seed, "progress": config.progress}
    x = drawn(subject.test, config.view_data)
    found.views = views(*pair, x, **how)
    yield found.views.complete
    found.calibration = calibration(*pair, config.calibration_data, **how)
    yield found.calibration.num_data == found.calibration.asked
    found.decoder = decoder_report(*pair, x, image_shape=subject.test.image_shape, **how)
    yield found.decoder.complete


def result_of(found: Found) -> dict:
    """Everything as plain numbers, for result.json."""
    one = found.views
    parts = ("elbo", "rate", "distortion", "information", "marginal_kl", "total_correlation", "unit_kl")
    return {
        "exact": None if found.truth is None else found.truth.mean,
        "exact_by": found.why if found.truth is None else found.truth.method,
        "estimates": found.rows,
        "left_out": found.left_out,
        "brackets": [bracket_row(*entry) for entry in found.brackets],
        "bounds": {} if found.real is None else {name: [e.mean, e.mean_se] for name, e in found.real.rows.items()},
        "views": {} if one is None else {name: value and value[:2] for name in parts for value in [getattr(one, name)]},
        "coverage": {} if (c := found.calibration) is None else {level: list(c.coverage(level)) for level in c.levels},
        "interrupted": found.interrupted,
    }


def checked(config: Config) -> tuple[train.Config, Splits, Pair | None]:
    """What to train on what, once every number has been found to work; and the pair, if a run has left it."""
    check_options(config)
    least = {"particles": 2, "temperatures": 1, "calibration_data": 20}
    for name, smallest in least.items():
        value = getattr(config, name)
        if not value if isinstance(value, tuple) else value < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {value}")
        if isinstance(value, tuple) and (min(value) < smallest or len(set(value)) < len(value)):
            raise ValueError(f"{name} must be different numbers from {smallest} on, got {' '.join(map(str, value))}")
    if not 0 < config.share < 1:
        raise ValueError(f"share must be between 0 and 1, got {config.share}; 0.1 is usual")
    objective = objectives.objective(config.objective, objectives.Numbers(num_particles=config.num_particles))
    if config.run is None:
        check_aims(objective, (), config.epochs, config.patience)
    trained = training_of(config)
    data = splits_of(trained)
    pair = None if config.run is None else restore(config.run)
    if pair is not None:
        check(*pair, ELBO(), data.train.example)
    return trained, data, pair


def main(config: Config) -> Found:
    started = time.perf_counter()
    torch.set_num_threads(1)
    trained, data, pair = checked(config)  # what cannot work is found before a folder is made
    run = Run(config.out, dataclasses.asdict(config), overwrite=config.overwrite)
    subject, found = prepared(config, trained, data, pair, run), Found()
    measured(config, subject, run, found)
    said = verdict(found)
    run.result(**result_of(found), verdict=said)
    shown = tables(found)
    for table in shown:
        print_table(table)
    for name, figure, caption in pictures(found, subject.name):
        run.figure(name, figure, caption)
    intro = (
        f"The pair: {subject.name}. Every estimator of log p(x) is put to the same {len(subject.x)} test data at "
        "several costs, and held against the exact value where there is one. All are lower bounds in expectation: the "
        "largest is the best, but for noise.\n\n"
        "Only data simulated from the model come with an exact draw from p(z | x). There annealing runs in reverse "
        "too, which bounds log p(x) from above; the distance of the two says what annealing is worth with this model."
    )
    if found.left_out:
        intro += "\n\n" + " ".join(f"{name} is left out: {why}." for name, why in found.left_out.items())
    report = run.report(f"How far can log p(x) be trusted on {trained.data}?", intro, shown, said)
    print(said)
    print(f"{time.perf_counter() - started:.0f} s; report: {report}")
    return found


if __name__ == "__main__":
    start(main, Config, "evidence")
