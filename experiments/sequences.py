"""How do bounds fare over time? Growing sequences, chorales by deep Markov models, and bands of what was not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, get_args

import numpy as np

from dlvm.experiments.data import load
from dlvm.experiments.options.command_line import check_different, start
from dlvm.experiments.options.common import taken
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints
from dlvm.experiments.sweeps.chorales import LABELS, PUBLISHED, Chorales, Way, chorales, deep_row, exact_row
from dlvm.experiments.sweeps.equal_steps import check_warm_up
from dlvm.experiments.sweeps.over_time import LEVELS, Bands, Growing, growing, in_bands

Part = Literal["growing", "chorales", "bands"]
BOUNDS = {"elbo": "ELBO", "iwae": "IWAE", "bootstrap": "bootstrap filter", "fivo": "FIVO"}
WHERE = {"between": "between steps that are seen", "ahead": "behind the last that is seen"}
SHOWN = 4  # variables of the picture of bands
INTRO = (
    "Growing: sequences of a linear-Gaussian state space, whose log p(x) Kalman's filter gives, under a guide that "
    "filters, trained on one length. IWAE weighs whole sequences, FIVO resamples its particles on the way, the "
    "bootstrap filter does so without a guide.\n\n"
    "Chorales: nats per time step of the test chorales, by models that learn in the same epochs. The hidden Markov "
    "model's are exact; a deep Markov model's are bounds, the tightest of which is the filter's. A guide that filters "
    "reads forward, one that smooths backward or both ways.\n\n"
    "Bands: hours of 13 sensors in a street, by a linear-Gaussian state space that learns by EM from hours of which "
    "most lack a number. Whole hours of later weeks are hidden, and expected given the others by exact draws: a band "
    "is honest if as many numbers lie in it as it says."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, Bands, Growing, Chorales):
    """Hold bounds against exact log p(x) as sequences grow, models of chorales and bands against data."""

    parts: tuple[Part, ...] = ("growing", "chorales", "bands")
    """Which of the three questions."""
    ways: tuple[Way, ...] = get_args(Way)
    """Of chorales: the hidden Markov model, and deep Markov models by the guide, or by its training: at_once is the
    smoother without a warm-up of the KL."""
    seeds: int = 2
    """Runs of everything."""
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/sequences")


def measured(config: Config, part: Part, seed: int, way: str = "") -> Done:
    """One cell."""
    names = {"part": part, "seed": seed}
    if part == "growing":
        return Done(names | {"rows": growing(taken(Growing, vars(config)), seed)}, {})
    if part == "bands":
        rows, shown = in_bands(taken(Bands, vars(config)), load("air_quality", data_dir=config.data_dir), seed)
        return Done(names | {"rows": rows}, shown)
    how, data = taken(Chorales, vars(config)), chorales(taken(Chorales, vars(config)), config.data_dir)
    row = exact_row(data, seed) if way == "hmm" else deep_row(how, data, way, seed)
    return Done(names | {"way": way} | row, {})


def cells(config: Config) -> list[Cell]:
    """All that is asked for."""
    found = []
    of_air = fingerprints(load("air_quality", data_dir=config.data_dir)) if "bands" in config.parts else ()
    how = taken(Chorales, vars(config))
    of_chorales = fingerprints(chorales(how, config.data_dir)) if "chorales" in config.parts else ()
    for seed in range(config.seeds):
        if "growing" in config.parts:
            found.append(Cell(f"growing / seed {seed}", measured, config, {"part": "growing", "seed": seed}))
        if "bands" in config.parts:
            found.append(Cell(f"bands / seed {seed}", measured, config, {"part": "bands", "seed": seed}, of_air))
        if "chorales" in config.parts:
            for way in config.ways:
                names = {"part": "chorales", "seed": seed, "way": way}
                found.append(Cell(f"{LABELS[way]} / seed {seed}", measured, config, names, of_chorales, {"way": way}))
    return found


def told(row: dict) -> str:
    if row["part"] == "growing":
        last = row["rows"][-1]
        return f"{last['steps']} steps: " + "   ".join(f"{label} -{last[b]:.2f}" for b, label in BOUNDS.items())
    if row["part"] == "bands":
        return "   ".join(f"{each['where']}: {100 * each['within_90']:.0f} % within 90 %" for each in row["rows"])
    return f"{row.get('filtered', row['log_px']):.3f} nats per step   ELBO {row['elbo']:.3f}"


def of_part(rows: Sequence[dict], part: str) -> list[dict]:
    return [row for row in rows if row["part"] == part]


def averaged(values: Sequence[float]) -> object:
    """The mean, with its standard error where there are several."""
    return (fmean(values), stdev(values) / len(values) ** 0.5) if len(values) > 1 else values[0]


def growing_table(config: Config, rows: Sequence[dict]) -> Table:
    """What each bound loses of a whole sequence."""
    lines = []
    for i, steps in enumerate(config.steps):
        at = [row["rows"][i] for row in rows]
        lines.append([steps, fmean(each["log_px"] for each in at), *(averaged([e[b] for e in at]) for b in BOUNDS)])
    heads = [f"{label} loses" for label in BOUNDS.values()]
    caption = (
        f"Nats of a whole sequence, {config.num_sequences} sequences of each length, {config.num_particles} particles; "
        f"the guide is trained on {config.trained_steps} steps. Means over {counted(config.seeds, 'seed')}, each of "
        "which is another model."
    )
    return Table(["steps", "log p(x)", *heads], lines, caption, dict.fromkeys(["log p(x)", *heads], ".2f"))


def chorales_table(config: Config, rows: Sequence[dict]) -> Table:
    """Nats per step of each way, fewest first."""
    heads = {"filtered": "by a filter", "log_px": "by importance sampling", "elbo": "ELBO"}
    lines = []
    for way, label in LABELS.items():
        if runs := [row for row in rows if row["way"] == way]:
            numbers = [averaged([run[name] for run in runs]) if name in runs[0] else None for name in heads]
            lines.append([label, *numbers, PUBLISHED.get(way)])
    caption = (
        f"Nats per time step of the test chorales, fewer are better; {counted(config.seeds, 'seed')}, "
        f"{counted(config.epochs, 'epoch')}, {config.eval_particles} particles. Published: exact for the hidden Markov "
        "model, else the ELBO of larger nets after 5000 epochs."
    )
    columns = [*heads.values(), "published"]
    return Table(["model and guide", *columns], lines, caption, dict.fromkeys(columns, ".3f"))


def bands_table(config: Config, rows: Sequence[dict]) -> Table:
    """How honest bands are, and how far off their middle is."""
    names = [f"within_{100 * level:.0f}" for level in LEVELS]
    heads = [f"within {100 * level:.0f} %" for level in LEVELS]
    lines = []
    for i, where in enumerate(WHERE.values()):
        at = [row["rows"][i] for row in rows]
        shares = [averaged([100 * each[name] for each in at]) for name in names]
        errors = [averaged([each[name] for each in at]) for name in ("rmse", "rmse_last")]
        lines.append([where, at[0]["numbers"], *shares, *errors])
    caption = (
        f"Share of hidden numbers within central bands, per cent, and root mean squared errors in standard deviations "
        f"of a sensor, beside those of the last value seen; {counted(config.seeds, 'seed')}. The data of test are the "
        "last weeks of the year, which training has not seen."
    )
    formats = dict.fromkeys(heads, ".1f") | {"error": ".3f", "error of the last value": ".3f"}
    return Table(["hidden", "numbers", *heads, "error", "error of the last value"], lines, caption, formats)


def verdict(config: Config, rows: Sequence[dict]) -> str:
    """What each part says."""
    said = []
    if found := of_part(rows, "growing"):
        last = {b: fmean(row["rows"][-1][b] for row in found) for b in BOUNDS}
        said.append(
            f"On sequences of {config.steps[-1]} steps the ELBO loses {last['elbo']:.1f} nats, IWAE {last['iwae']:.1f} "
            f"and FIVO {last['fivo']:.1f} with {config.num_particles} particles each."
        )
    if found := of_part(rows, "chorales"):
        best: dict[str, float] = {}
        for way in dict.fromkeys(row["way"] for row in found):
            best[way] = fmean(row.get("filtered", row["log_px"]) for row in found if row["way"] == way)
        least = min(best, key=best.__getitem__)
        said.append(f"Of the models of chorales, {LABELS[least]}, needs fewest nats per step, {best[least]:.2f}.")
    if found := of_part(rows, "bands"):
        share = [fmean(row["rows"][i]["within_90"] for row in found) for i in range(len(WHERE))]
        said.append(
            f"Of hidden hours {100 * share[0]:.0f} % of numbers lie in their 90 % band between hours that are seen, "
            f"and {100 * share[1]:.0f} % behind the last."
        )
    return " ".join(said)


def pictures(config: Config, done: Sequence[Done]) -> Iterator[Picture]:
    """Losses by length, and one sequence with its bands."""
    from dlvm.experiments.figures import bands_over_time, gaps_by_length

    rows = [one.record for one in done]
    if found := of_part(rows, "growing"):
        gaps = {
            label: {
                steps: (fmean(row["rows"][i][b] for row in found), _error([row["rows"][i] for row in found], b))
                for i, steps in enumerate(config.steps)
            }
            for b, label in BOUNDS.items()
        }
        context = f"{config.num_particles} particles; a guide trained on {config.trained_steps} steps."
        yield "growing", gaps_by_length(gaps, context), "Nats per step that bounds lose, against the length."
    for one in done:
        if one.record["part"] == "bands":
            truth, hidden, draws = (one.tensors[name].numpy() for name in ("truth", "hidden", "draws"))
            there = np.flatnonzero(~np.isnan(truth[hidden]).all(0))[:SHOWN]  # a sensor may have been off all the time
            columns = load("air_quality", data_dir=config.data_dir).train.columns
            names = [columns[i] for i in there]
            title = "What hidden hours are expected to be"
            context = "A linear-Gaussian state space of hours of an Italian street; standard deviations of a sensor."
            figure = bands_over_time(truth[:, there], hidden, draws[..., there], names, title, context)
            yield "bands", figure, f"{len(there)} of the sensors over {len(truth)} hours of the test data."
            break


def _error(rows: Sequence[dict], bound: str) -> float:
    return sum(row[f"{bound}_se"] ** 2 for row in rows) ** 0.5 / len(rows)


def checked(config: Config) -> list[Cell]:
    """All cells, once what cannot work is refused."""
    check_warm_up(config.epochs, config.warm_up)
    check_different(config, "parts")
    rows = load("air_quality", data_dir=config.data_dir).test.num_data if "bands" in config.parts else config.hours
    if not config.ahead < config.hours <= rows:
        raise ValueError(
            f"hours must be above ahead={config.ahead} and at most the {rows} hours of test data, got {config.hours}; "
            "change --hours or --ahead"
        )
    return cells(config)


def main(config: Config) -> list[dict]:
    study = Study(config)
    asked = checked(config)
    tables: dict[str, Any] = {"growing": growing_table, "chorales": chorales_table, "bands": bands_table}

    def answer(done: list[Done]) -> Answer:
        rows = [one.record for one in done]
        shown = [make(config, found) for part, make in tables.items() if (found := of_part(rows, part))]
        return Answer("How do bounds fare over time?", INTRO, shown, verdict(config, rows), pictures(config, done))

    return study.compare(asked, told, answer)


if __name__ == "__main__":
    start(main, Config, "sequences")
