"""What are data without labels worth? A classifier, M1, M2 and M1+M2 by the error that few labels leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

from dlvm.experiments.data import Splits
from dlvm.experiments.data.few_labels import GIVEN, with_few_labels
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints
from dlvm.experiments.sweeps.equal_steps import check_warm_up
from dlvm.experiments.sweeps.few_label_ways import Learning, Way, classifier, features, m1, m1_m2, m2

LABELS: dict[Way, str] = {"classifier": "classifier", "m1": "M1", "m2": "M2", "m1_m2": "M1+M2"}
PUBLISHED: dict[str, dict[int, float]] = {  # per cent, of MNIST: Kingma, Rezende, Mohamed, Welling, 2014, table 1
    "M2": {100: 11.97, 600: 4.94, 1000: 3.60, 3000: 3.92},
    "M1+M2": {100: 3.33, 600: 2.59, 1000: 2.40, 3000: 2.18},
}
INTRO = (
    "Of the training rows few show their label, as many of each class; the seed says which. The classifier is a "
    "network that learns from these alone. M1 is a VAE of all rows, which sees no label, and a support vector machine "
    "on the means of q(z | x). M2 has the class beside the latent vector, p(y) p(z) p(x | y, z): labels say y where "
    "there are any, elsewhere it is summed over, and q(y | x) is what classifies. M1+M2 is M2 on the features of M1. "
    "No label of validation data is used, so that every way keeps its last state."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, Learning, DataOptions):
    """Learn classes from few labels and many data without, in four ways."""

    data: str = "mnist"
    labels: tuple[int, ...] = (100, 600, 1000, 3000)
    """How many training rows show their label."""
    ways: tuple[Way, ...] = tuple(LABELS)
    """classifier, on rows with a label alone; m1; m2; m1_m2."""
    train_data: int | None = None
    """Train on so many rows only, the first."""
    eval_data: int | None = None
    """Test on so many rows only."""
    seeds: int = 3
    """Choices of labels, each with parameters and noise of its own."""
    out: Path = Path("runs/semi_supervised")


def data_of(config: Config) -> Splits:
    """The data, of as many rows as are asked for; grey levels are binarised, anew at each use, for bernoulli."""
    binarize = "dynamic" if config.likelihood == "bernoulli" else None
    train, valid, test = config.splits(binarize=binarize).tested_on(config.eval_data)
    few = config.train_data
    return Splits(train if few is None or few >= train.num_data else train.take(few), valid, test)


def measured(config: Config, way: Way, labels: int, seed: int) -> Done:
    """The error of one way from so many labels."""
    error = {"classifier": classifier, "m2": m2}[way](config, data_of(config), labels, seed)
    return Done({"seed": seed, "errors": [{"way": way, "labels": labels, "error": error}]}, {})


def measured_on_features(config: Config, ways: tuple[Way, ...], seed: int) -> Done:
    """The errors of the ways that go by the features of M1, which is trained once for all numbers of labels."""
    found = features(config, data_of(config), seed)
    errors = [
        {"way": way, "labels": labels, "error": {"m1": m1, "m1_m2": m1_m2}[way](config, found, labels, seed)}
        for way, labels in product(ways, config.labels)
    ]
    return Done({"seed": seed, "errors": errors}, {})


def cells(config: Config, data: Splits) -> list[Cell]:
    """Each way by itself with every number of labels; those on features together. Quick ones first."""
    checksums = fingerprints(data)
    found = []
    alone = [way for way in ("classifier", "m2") if way in config.ways]
    later = tuple(way for way in ("m1", "m1_m2") if way in config.ways)
    for way, labels, seed in product(alone, config.labels, range(config.seeds)):
        names = {"way": way, "labels": labels, "seed": seed}
        found.append(Cell(f"{LABELS[way]} / {labels} labels / seed {seed}", measured, config, names, checksums))
    for seed in range(config.seeds if later else 0):
        title = f"{' and '.join(LABELS[way] for way in later)} / seed {seed}"
        found.append(Cell(title, measured_on_features, config, {"ways": later, "seed": seed}, checksums))
    return sorted(found, key=lambda cell: cell.title.startswith("M2"))


def told(row: dict) -> str:
    return "   ".join(f"{LABELS[e['way']]} {e['labels']}: {e['error']:.2f} %" for e in row["errors"])


def by_way(rows: Sequence[dict]) -> dict[str, dict[int, list[float]]]:
    """{way: {labels: its error with each seed}}, in the order of ``LABELS``."""
    found: dict[str, dict[int, list[float]]] = {}
    for way, label in LABELS.items():
        for row in rows:
            for each in row["errors"]:
                if each["way"] == way:
                    found.setdefault(label, {}).setdefault(each["labels"], []).append(each["error"])
    return found


def table(config: Config, rows: Sequence[dict]) -> Table:
    """The error of each way by the number of labels."""
    found = by_way(rows)
    columns = [f"{n} labels" for n in config.labels]
    lines = [[way, *(_mean(errors.get(n, [])) for n in config.labels)] for way, errors in found.items()]
    if config.data == "mnist":
        lines += [[f"{way}, published", *(known.get(n) for n in config.labels)] for way, known in PUBLISHED.items()]
    return Table(
        ["error, %", *columns],
        lines,
        f"Test rows misclassified; mean over {counted(config.seeds, 'seed')}, with its standard error where there are "
        f"several; {counted(config.epochs, 'epoch')}.",
        dict.fromkeys(columns, ".2f"),
    )


def _mean(errors: list[float]) -> object:
    if not errors:
        return None
    return (fmean(errors), stdev(errors) / len(errors) ** 0.5) if len(errors) > 1 else errors[0]


def verdict(config: Config, rows: Sequence[dict]) -> str:
    """Which way errs least, at each number of labels."""
    found, said = by_way(rows), []
    for n in config.labels:
        means = {way: fmean(errors[n]) for way, errors in found.items() if n in errors}
        if means:
            best = min(means, key=means.__getitem__)
            said.append(f"With {n} labels {best} errs least, {means[best]:.2f} %.")
    return " ".join(said)


def pictures(config: Config, rows: Sequence[dict]) -> Iterator[Picture]:
    """Errors against labels."""
    from dlvm.experiments.figures import errors_by_labels

    published = PUBLISHED if config.data == "mnist" else {}
    context = f"{config.data}, {counted(config.seeds, 'seed')}, {counted(config.epochs, 'epoch')}."
    yield (
        "errors",
        errors_by_labels(by_way(rows), published, context),
        "Share of test rows that are misclassified against the number of labels that training shows.",
    )


def main(config: Config) -> list[dict]:
    study = Study(config)
    check_warm_up(config.epochs, config.warm_up)
    data = data_of(config)
    if not config.labels or len(set(config.labels)) < len(config.labels):
        raise ValueError(f"labels must be different numbers, at least one, got {config.labels}; leave one out")
    for number in config.labels:
        check_labels(data, number)

    def answer(done: list[Done]) -> Answer:
        rows = [one.record for one in done]
        title = f"What are data without labels worth? {config.data}"
        return Answer(title, INTRO, [table(config, rows)], verdict(config, rows), pictures(config, rows))

    return study.compare(cells(config, data), told, answer)


def check_labels(data: Splits, number: int) -> None:
    """Raises ValueError where there are no so many labels, or no class could be told from another."""
    if with_few_labels(data, number).train[GIVEN].unique().numel() < 3:
        raise ValueError(f"labels must be of two classes at least, got {number} of {data.train.name}; show more")


if __name__ == "__main__":
    start(main, Config, "semi_supervised")
