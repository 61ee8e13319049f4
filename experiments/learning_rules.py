"""Which rule of learning, where? EM, variational and Monte Carlo EM, AEVB and others on one model at equal cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import pyro
import torch
from torch import Tensor, nn

from dlvm.evidence import annealed
from dlvm.experiments.data import Splits, from_tensor, load
from dlvm.experiments.measures.mixture_fits import toy
from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.options.words import one_line
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints
from dlvm.experiments.sweeps.equal_time import warm_up
from dlvm.experiments.sweeps.rules import CLIMBS, LABELS, Effort, Rule, Task, applies, passes
from dlvm.inference import NonFinite
from dlvm.models import PPCA, GaussianMixture

Subject = Literal["ppca", "mixture", "digits"]
SUBJECTS: dict[str, str] = {
    "ppca": "PPCA: 16 numbers from 4 latent ones, 900 data from such a model, a random start",
    "mixture": "a mixture of 5 Gaussians on the plane, 1000 data, a start at data",
    "digits": "a VAE of 8 x 8 digits, binarised once, 8 latent numbers and 64 hidden units",
}
CLEAR = 0.1  # nats per datum that count as having come to the best
X_DIM, Z_DIM, ROWS = 16, 4, 1500
LOOKED_AT, LOOKING = 50, dict(num_chains=4, temperatures=60, leaps=5)
JUDGED_ON, JUDGING = 100, dict(num_chains=8, temperatures=200, leaps=5)
INTRO = (
    "Each rule learns the same model from the same start and data, for the same processor time; looking stops the "
    "clock, and recording a step does not. A rule is a generator of passes over the data: one loop runs them all."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, Effort):
    """Learn one model by each of several rules, for the same processor time, and follow its log p(x)."""

    subjects: tuple[Subject, ...] = ("ppca", "mixture", "digits")
    """What is learned: ppca and a mixture, whose log p(x) is exact, and a VAE of digits."""
    rules: tuple[Rule, ...] = get_args(Rule)
    """How; what a rule cannot learn is left out: no closed form, no gradient along a discrete z."""
    seeds: int = 3
    """Starts, the same ones for every rule."""
    seconds: float = 8.0
    """Processor time of each run."""
    looks: int = 16
    """How often in a run log p(x) of validation data is looked at, more often at first."""
    batch_size: int = 100
    """Data per step."""
    out: Path = Path("runs/learning_rules")


def data_of(subject: str, batch_size: int) -> Splits:
    """The data that a subject is learned from: the same at every pass and for every seed."""
    if subject == "mixture":
        return toy(batch_size)[1]
    if subject == "digits":
        return load("digits", batch_size=batch_size, binarize="static")
    pyro.set_rng_seed(2026)
    truth = PPCA(torch.randn(X_DIM, Z_DIM), torch.randn(X_DIM), 0.5)
    with torch.no_grad():
        x = truth(n=ROWS)
    return from_tensor(x, batch_size, valid=0.2, test=0.2, name="PPCA", kind="real")


def started(subject: str, data: Splits, seed: int) -> nn.Module:
    """The model, the same for every rule."""
    pyro.set_rng_seed(seed)
    train = data.train
    if subject == "mixture":
        return GaussianMixture(5, train.x_dim, "full", 1e-3).start_at(train.x)
    if subject == "digits":
        return VAESetup(8, (64,)).model(train)
    return PPCA(torch.randn(train.x_dim, Z_DIM) / Z_DIM**0.5, train.mean, 1.0)


@torch.no_grad()
def log_px_of(model: Any, x: Tensor, effort: dict[str, int]) -> tuple[float, float]:
    """log p(x), nats per datum, and its Monte Carlo standard error: exact where the model knows it, else by AIS."""
    if hasattr(model, "log_px"):
        return model.log_px(x).double().mean().item(), 0.0
    found = annealed(model, x, **effort)  # type: ignore[arg-type]  # numbers
    return found.log_px.mean().item(), (found.log_px_se.square().sum().sqrt() / len(x)).item()


def learned(config: Config, subject: str, rule: str, seed: int) -> Done:
    """Learns by one rule for its time."""
    warm_up("captured")
    data = data_of(subject, config.batch_size)
    model, names = started(subject, data, seed), {"subject": subject, "rule": rule, "seed": seed}
    valid, test = data.valid.x[:LOOKED_AT] if subject == "digits" else data.valid.x, data.test.x[:JUDGED_ON]
    effort = Effort(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Effort)})
    going, spent, done = passes(rule, Task(model, data.train, effort, seed)), 0.0, 0
    history = [{"seconds": 0.0, "passes": 0, "log_px": log_px_of(model, valid, LOOKING)[0]}]
    try:
        for due in (config.seconds * (look / config.looks) ** 2 for look in range(1, config.looks + 1)):
            ended = False
            while spent < due and not ended:
                began = time.thread_time()
                ended = next(going, True) is not None
                spent, done = spent + time.thread_time() - began, done + (not ended)
            if ended or spent > history[-1]["seconds"]:
                seen = log_px_of(model, valid, LOOKING)[0]
                history.append({"seconds": max(spent, due) if ended else spent, "passes": done, "log_px": seen})
    except (NonFinite, ValueError) as error:  # what this rule came to here, told beside the others
        return Done(names | {"history": history, "error": one_line(error)}, {})
    value, se = log_px_of(model, test, JUDGING)
    ends = {"log_px": value, "log_px_se": se, "seconds": spent, "passes": done, "ms_per_pass": 1000 * spent / done}
    known = {"train": log_px_of(model, data.train.x, LOOKING)[0]} if hasattr(model, "log_px") else {}
    return Done(names | ends | known | {"history": history}, {})


def cells(config: Config) -> list[Cell]:
    """Every rule with every subject that it can learn, and every seed."""
    found = []
    for subject in config.subjects:
        data = data_of(subject, config.batch_size)
        checksums, model = fingerprints(data), started(subject, data, 0)
        for seed, rule in product(range(config.seeds), config.rules):
            if applies(rule, model, data.train):
                names = {"subject": subject, "rule": rule, "seed": seed}
                found.append(Cell(f"{subject} / {rule} / seed {seed}", learned, config, names, checksums, names))
    return found


def told(row: dict) -> str:
    return f"log p(x) {row['log_px']:.3f}   {row['passes']} passes"


def optimum_of(subject: str, config: Config) -> float | None:
    """The highest log p(x) of the training data that the model can have, where a closed form gives it."""
    if subject != "ppca":
        return None
    x = data_of(subject, config.batch_size).train.x
    return PPCA.maximum_likelihood(x, Z_DIM).log_px(x).mean().item()


def soon(runs: list[list[dict]], goal: float) -> float | None:
    """Mean seconds after which looks come to a goal, of runs that all do."""
    when = [next((look["seconds"] for look in run if look["log_px"] >= goal), None) for run in runs]
    there = [seconds for seconds in when if seconds is not None]
    return fmean(there) if len(there) == len(runs) else None


def table(subject: str, rows: list[dict], config: Config) -> Table:
    """What each rule reaches, and how soon."""
    found, lines = over_seeds((row for row in rows if row["subject"] == subject), "rule"), []
    goal = max(fmean(run[-1]["log_px"] for run in runs.all("history")) for runs in found.values()) - CLEAR
    top = optimum_of(subject, config)
    for (rule,), runs in sorted(found.items(), key=lambda item: -item[1].log_px):
        below = round(top - runs.mean("train"), 4) + 0.0 if top is not None else None
        line = [LABELS[rule], runs.log_px, runs.spread, below, soon(runs.all("history"), goal)]
        lines.append([*line, runs.mean("passes"), runs.mean("ms_per_pass")])
    how = "exact" if subject != "digits" else f"by AIS of {JUDGED_ON} data, a lower bound on average"
    return Table(
        ["rule", "log p(x)", "sd of seeds", "below optimum", f"within {CLEAR} after s", "passes", "ms / pass"],
        lines,
        f"{SUBJECTS[subject]}. Test data, nats per datum, {how}; means over {counted(config.seeds, 'seed')} of "
        f"{config.seconds:g} s each. Below optimum: of the training data, in closed form. After s: when validation log "
        "p(x) has come so near to the best rule's end, in all seeds.",
        {"log p(x)": ".3f", "sd of seeds": ".3f", "below optimum": ".4f", f"within {CLEAR} after s": ".2f"}
        | {"passes": ".0f", "ms / pass": ".1f"},
        {"log p(x)": max},
    )


def climbs(rules: list[str]) -> Table:
    """What each rule follows, and what is biased."""
    return Table(
        ["rule", "follows"],
        [[LABELS[rule], CLIMBS[rule]] for rule in rules],
        "What each rule makes larger, and how far that is from log p(x).",
    )


def verdict(rows: list[dict], subjects: tuple[str, ...]) -> str:
    """Which rule came highest where, who came as near as can be told, and who came last."""
    said = []
    for subject in subjects:
        found = over_seeds((row for row in rows if row["subject"] == subject), "rule")
        if not found:
            continue
        order = sorted(found, key=lambda rule: -found[rule].log_px)
        best = found[order[0]].log_px
        near = [LABELS[rule] for (rule,) in order[1:] if found[(rule,)].log_px >= best - CLEAR]
        text = f"On {subject}: {LABELS[order[0][0]]} comes highest, {best:.3f} nats per datum"
        text += f"; within {CLEAR}: {', '.join(near)}" if near else ""
        (last,) = order[-1]
        text += f"; last {LABELS[last]}, {best - found[order[-1]].log_px:.3f} below." if len(order) > 1 else "."
        said.append(text)
    return " ".join(said) or "No run came to its end."


def pictures(rows: list[dict], config: Config) -> Iterator[Picture]:
    """Validation log p(x) against processor time, a figure for each subject."""
    from dlvm.experiments.figures import timed_curves

    for subject in config.subjects:
        found = over_seeds((row for row in rows if row["subject"] == subject), "rule")
        curves = {LABELS[rule]: runs.all("history") for (rule,), runs in found.items()}
        if curves:
            detail = "Exact." if subject != "digits" else f"By AIS on {LOOKED_AT} data, the same few chains for all."
            yield (
                f"curves_{subject}",
                timed_curves(curves, SUBJECTS[subject] + ".", detail=detail, kind="rule"),
                "log p(x) and time.",
            )


def checked(config: Config) -> list[Cell]:
    """The cells, once everything asked for has been found to work."""
    found = cells(config)
    if not found:
        raise ValueError(
            f"rules must name one that can learn {', '.join(config.subjects)}, got {config.rules}; add score"
        )
    return found


def main(config: Config) -> list[dict]:
    study = Study(config)

    def answer(done: list[Done]) -> Answer:
        rows = [one.record for one in done]
        subjects = tuple(s for s in config.subjects if any(row["subject"] == s for row in rows))
        shown = [*(table(s, rows, config) for s in subjects), climbs(list(config.rules))]
        return Answer("Which rule of learning, where?", INTRO, shown, verdict(rows, subjects), pictures(rows, config))

    return study.compare(checked(config), told, answer)


if __name__ == "__main__":
    start(main, Config, "learning_rules")
