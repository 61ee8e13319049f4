"""How to fit a mixture? EM, and gradients with the component summed out, drawn, or relaxed, beside exact log p(x)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import pyro

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.mixture_fits import LABELS, MOST, AnyMixture, Effort, Way, exact_log_px, fitted, toy
from dlvm.experiments.options.command_line import check_least, start
from dlvm.experiments.options.common import DataOptions, FolderOptions
from dlvm.experiments.options.words import one_line
from dlvm.experiments.runs.report import MISSING, Table, counted
from dlvm.experiments.study import Picture, Study
from dlvm.inference import NonFinite
from dlvm.models import BernoulliMixture, FactorAnalysers, GaussianMixture

CLEAR = 0.05  # nats per datum that count as having come to the best
MEANS = 64  # components whose means are shown
INTRO = (
    "One mixture, p(x, z) = p(z) p(x | z) with z one of the components, is fitted from the same starts in several "
    "ways. EM alternates the exact posterior p(z | x) of all data with the parameters that are best given it. The "
    "others follow Adam: by the gradient of log p(x), z summed out; or by that of an ELBO whose guide q(z | x), a "
    "network, draws z. What is drawn cannot be reparametrised: its gradient is that of the score function, without a "
    "baseline, with the average of earlier signals, or with the other draws as baseline; or z is relaxed to the inside "
    "of the simplex (Gumbel-softmax, straight-through), where the gradient is biased. Since log p(x) is exact here, "
    "what each way costs is seen without a bound in between. Of each run the pass is kept that validation data prefer."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, Effort, DataOptions):
    """Fit one mixture from the same start by EM and by gradients of several kinds, and follow its exact log p(x)."""

    data: str = "clusters"
    """clusters: five Gaussians of several shapes on the plane, made here; or as for train: digits, sky, ..."""
    kind: Literal["gaussian", "bernoulli", "factor_analysers"] = "gaussian"
    """Of the mixture; grey levels are binarised, once, for bernoulli."""
    components: int = 5
    """How many."""
    covariance: Literal["full", "diagonal", "tied", "spherical"] = "full"
    """Of gaussian."""
    z_dim: int = 2
    """Factors, of factor_analysers."""
    floor: float = 1e-3
    """Under EM, below which no probability (bernoulli) and no scale (factor_analysers) goes; for gaussian, what is
    added to variances."""
    ways: tuple[Way, ...] = tuple(LABELS)
    """EM; gradients with the component summed out, or drawn by a guide and differentiated by the score function without
    and with baselines, or relaxed."""
    seeds: int = 3
    """Starts, the same ones for every way."""
    out: Path = Path("runs/mixtures")


def data_of(config: Config) -> tuple[GaussianMixture | None, Splits]:
    """Where data come from, if it is known, and the data: the same at every pass."""
    if config.data == "clusters":
        of_files = [field.name for field in dataclasses.fields(DataOptions) if field.default is None]
        if (given := next((name for name in of_files if getattr(config, name) is not None), None)) is not None:
            raise ValueError(f"{given} is of data that are read, got {getattr(config, given)}; name them by --data")
        return toy(config.batch_size)
    return None, config.splits(binarize="static" if config.kind == "bernoulli" else None)


def started(config: Config, train: Loader, seed: int) -> AnyMixture:
    """A mixture at data; the same one for every way of fitting."""
    pyro.set_rng_seed(seed)
    size = config.components, train.x_dim
    made: dict[str, Callable[[], AnyMixture]] = {
        "gaussian": lambda: GaussianMixture(*size, config.covariance, config.floor),
        "bernoulli": lambda: BernoulliMixture(*size, config.floor),
        "factor_analysers": lambda: FactorAnalysers(*size, config.z_dim, config.floor),
    }
    model = made[config.kind]()
    model.start_at(train.first(min(MOST, train.num_data)))
    return model


def by_way(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Runs by the way, in their order."""
    return {way: [row for row in rows if row["way"] == way] for way in dict.fromkeys(row["way"] for row in rows)}


def table(config: Config, rows: Sequence[dict], truth: dict[str, float] | None) -> Table:
    """What each way reaches, and how soon."""
    top = max(row["train"] for row in rows)
    lines: list[list[Any]] = []
    for way, runs in by_way(rows).items():
        soon = [next((step["pass"] for step in run["history"] if step["train"] > top - CLEAR), None) for run in runs]
        there = [number for number in soon if number is not None]
        tests = [run["test"] for run in runs]
        lines.append(
            [way, fmean(tests), stdev(tests) if len(tests) > 1 else None]
            + [fmean(run[name] for run in runs) for name in ("train", "gap")]
            + [f"{len(there)} of {len(runs)}", fmean(there) if there else None]
            + [1e3 * fmean(run["seconds"] / run["passes"] for run in runs)]
        )
    if truth is not None:
        lines.append(["truth", truth["test"], None, truth["train"], None, MISSING, None, None])
    fine = ("log p(x)", "sd of starts", "training", "gap")
    return Table(
        ["way", *fine, f"within {CLEAR}", "after passes", "ms / pass"],
        lines,
        f"Exact log p(x) of test and training data, nats per datum, means over {counted(config.seeds, 'start')}; gap: "
        "log p(x) minus the ELBO of the guide that draws the component, at the end; within: runs that come so near to "
        "the best training log p(x) of all, and after how many passes.",
        dict.fromkeys(fine, ".4f") | {"after passes": ".1f", "ms / pass": ".1f"},
        {"log p(x)": max, "training": max},
    )


def verdict(rows: Sequence[dict], failed: Sequence[dict]) -> str:
    """The order of the ways by what they maximise, and what failed."""
    train = {way: fmean(run["train"] for run in runs) for way, runs in by_way(rows).items()}
    first, *others = sorted(train, key=train.__getitem__, reverse=True)
    below = ", ".join(f"{way} {train[first] - train[way]:.4f}" for way in others)
    said = [f"Highest exact log p(x) of the training data: {first} ({train[first]:.4f} nats per datum)."]
    said += [f"Below it end: {below}."] if others else []
    said += [f"{row['way']}, start {row['seed']}, failed: {row['error']}" for row in failed]
    return " ".join(said)


def pictures(
    config: Config, rows: list[dict], models: dict[str, AnyMixture], truth: GaussianMixture | None, data: Splits
) -> Iterator[Picture]:
    """The curves; on the plane the components as ellipses, of images their means."""
    from dlvm.experiments.figures import distance_curves, ellipses, samples

    train, context = data.train, f"{data.train.name}, {counted(config.components, 'component')}."
    curves = {
        way: [[(step["pass"], step["train"]) for step in run["history"][1:]] for run in runs]
        for way, runs in by_way(rows).items()
    }
    yield "curves", distance_curves(curves, context), "Exact log p(x) of the training data after each pass."
    if train.x_dim == 2 and config.kind == "gaussian":
        shown = models | ({} if truth is None else {"truth": truth})
        found = {
            name: (model.weights, model.loc, model.covariances(), exact_log_px(model, data.test.x))
            for name, model in shown.items()
            if isinstance(model, GaussianMixture)
        }
        yield "components", ellipses(train.x, found, context), "Components of the first start, and test log p(x)."
    if train.image_shape is not None:
        means = {
            name: model.moments()[0][model.logits.argsort(descending=True)[:MEANS]] for name, model in models.items()
        }
        few = {name: means[name] for name in list(means)[:2]}
        title, note = "Components, the heaviest first", f"Means of x under each, {MEANS} at most."
        yield "means", samples(few, train.image_shape, context, title, note), "Means of components, the heaviest first."


def told(row: dict) -> str:
    """The line for a run."""
    reached = f"train {row['train']:.4f}   test {row['test']:.4f}   {row['seconds']:.1f} s" if "test" in row else ""
    return f"{row['way']:24s} start {row['seed']}   {reached or 'failed: ' + row['error']}"


def checked(config: Config) -> tuple[GaussianMixture | None, Splits]:
    """The data, once everything asked for has been found to work."""
    check_least(config, num_particles=2 if "vimco" in config.ways else 1)
    most = {"bernoulli": 0.5}.get(config.kind, math.inf)
    if config.kind != "gaussian" and not 0 < config.floor < most:
        raise ValueError(f"floor must lie between 0 and {most} for {config.kind}, got {config.floor}; 1e-3 is usual")
    if config.kind == "factor_analysers" and (biased := {"gumbel", "straight_through"} & set(config.ways)):
        raise ValueError(
            f"ways must leave out {' and '.join(sorted(biased))} for factor_analysers: no relaxed y is one of x; name "
            "the others"
        )
    if config.pool != 1:
        raise ValueError(f"pool (--pool) is for sequences of several lengths, got {config.data}; leave it out")
    truth, data = data_of(config)
    started(config, data.train, seed=0)
    return truth, data


def main(config: Config) -> list[dict]:
    study = Study(config)
    truth, data = checked(config)  # what cannot work is found before a folder is made
    run = study.open()
    rows: list[dict] = []
    failed: list[dict] = []
    models: dict[str, AnyMixture] = {}
    with study.interruptible(rows):
        for seed in range(config.seeds):
            for way in config.ways:
                row: dict[str, Any] = {"way": LABELS[way], "seed": seed}
                model = started(config, data.train, seed)
                try:
                    ends, history = fitted(model, way, data, config, seed)
                    rows.append(row := row | ends | {"history": history})
                    models.setdefault(LABELS[way], model)
                except (ValueError, NonFinite) as error:  # what this start came to, told beside the others
                    failed.append(row := row | {"error": one_line(error)})
                run.log(**row)
                print(told(row), flush=True)
    run.result(runs=rows, failed=failed)
    if not rows:
        raise SystemExit(f"error: no run gave a mixture; the first: {failed[0]['error']}")
    parts = {"train": data.train.x[:MOST], "test": data.test.x}
    known = None if truth is None else {name: exact_log_px(truth, x) for name, x in parts.items()}
    tables = [table(config, rows, known)]
    study.show(tables)
    drawn = pictures(config, rows, models, truth, data)
    study.report(f"How to fit a mixture to {data.train.name}?", INTRO, tables, verdict(rows, failed), drawn)
    return rows


if __name__ == "__main__":
    start(main, Config, "mixtures")
