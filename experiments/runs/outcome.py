"""What a trained pair is said to be worth, in numbers, a table and words: by its bounds, or by its codes alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.generated.outside import OUTSIDE, SAID, SAID_OF_POINTS
from dlvm.experiments.runs.report import Table
from dlvm.experiments.runs.summary import each_part, summary
from dlvm.experiments.setups.setup import LOG_PX, Setup
from dlvm.guides import Point
from dlvm.inference import Epoch, Evaluation, evaluate, verdict
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.modules import evaluation_mode
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import untouched


class Outcome(NamedTuple):
    """What a run ends with.

    Attributes:
        record: for result.json, with the verdict.
        table: for the terminal and the report.
        said: the verdict, in sentences.
        result: of ``evaluate``; None where a guide has no density.
    """

    record: dict[str, Any]
    table: Table
    said: str
    result: Evaluation | None = None


def outcome_of(
    setup: Setup,
    model: nn.Module,
    guide: nn.Module,
    test: Loader,
    objective: str,
    history: Sequence[Epoch],
    num_particles: int,
) -> Outcome:
    """By log p(x) and the ELBO; of a guide of points by what it rebuilds, since there is neither.

    Args:
        setup: names what is reported, and has measures of its own.
        model, guide: as they are kept.
        test: data that were not seen.
        objective: the word that the pair was trained by.
        history: of the training.
        num_particles: importance samples per test datum.
    """
    seconds = sum(epoch.seconds for epoch in history) / len(history)
    if gives_points(guide):
        return _of_codes(setup, model, guide, test, objective, len(history), seconds)
    result = evaluate(model, guide, test, num_particles=num_particles, progress=True)
    said = str(verdict(result, history)).replace(LOG_PX, setup.reported)
    if objective in OUTSIDE:
        said = f"{SAID.format(objective)} {said}"
    measures = dict(setup.measures(model, guide, test))
    per = each_part(result, setup.parts(test.take(result.num_data)))
    record = {**dataclasses.asdict(result), "measures": measures, **({"per": per} if per else {}), "verdict": said}
    table = summary(result, setup.reported, len(history), seconds, measures, per)
    return Outcome(record | {"seconds_per_epoch": seconds, "epochs": len(history)}, table, said, result)


def gives_points(guide: nn.Module) -> bool:
    """Whether a guide, or a part of it, is an autoencoder's, without a density."""
    return any(isinstance(part, Point) for part in guide.modules())


def rebuilt_by(model: nn.Module, guide: nn.Module, test: Loader) -> tuple[float, float]:
    """E log p(x | z) of test data at their own codes, nats per datum, and its standard error."""
    pair = Pair(model, guide)
    with torch.no_grad(), untouched(0), evaluation_mode(model, guide):
        found = torch.cat([weigh(pair, batch, {}).log_likelihood[0] for batch in test]).double()
    return found.mean().item(), found.std().item() / math.sqrt(len(found)) if len(found) > 1 else math.nan


def _of_codes(
    setup: Setup, model: nn.Module, guide: nn.Module, test: Loader, objective: str, epochs: int, seconds: float
) -> Outcome:
    rebuilt, error = rebuilt_by(model, guide, test)
    measures: Mapping[str, float] = dict(setup.measures(model, guide, test))
    said = SAID_OF_POINTS.format(objective)
    record = {"reconstruction": rebuilt, "reconstruction_se": error, "num_data": test.num_data, "measures": measures}
    table = Table(
        ["E log p(x | z)", *measures, "epochs", "s / epoch"],
        [[(rebuilt, error), *measures.values(), epochs, seconds]],
        f"{test.num_data} test data, nats per datum, z the code of each; no bound on log p(x), of which there is none.",
        {"E log p(x | z)": ".2f", "s / epoch": ".2f"} | dict.fromkeys(measures, ".3f"),
    )
    return Outcome(record | {"verdict": said, "seconds_per_epoch": seconds, "epochs": epochs}, table, said)
