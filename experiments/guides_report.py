"""What a comparison of guides comes to: tables, one headline, and a verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.measures.paired_gaps import Gaps, behind_a_case, headline, order
from dlvm.experiments.options.guides import guide_label
from dlvm.experiments.runs.report import Table, counted

FROZEN = "one frozen model"
OBJECTIVES = {"elbo": "ELBO", "analytic_kl": "analytic-KL ELBO", "iwae": "IWAE"}
FLOWS = ("Householder", "Planar", "Radial", "Sylvester", "RealNVP", "NeuralSpline", "IAF")
CASES: Mapping[str, Sequence[str]] = {  # of each family, those that it holds
    "FullRank": ("Diagonal", "LowRank"),
    "LowRank": ("Diagonal",),
    "Mixture": ("Diagonal",),
    **dict.fromkeys(FLOWS, ("Diagonal",)),
}


def label_of(guide: str) -> str:
    """What a guide's word stands for, as figures and tables name it."""
    return guide_label(guide)


def together_table(rows: Sequence[Mapping]) -> Table:
    """One line per guide and objective, each with models of its own; means over seeds."""
    found = over_seeds(rows, "guide", "objective")
    lines = [
        [label_of(guide), OBJECTIVES[objective], runs.mean("elbo")]
        + [(runs.log_px, runs.log_px_se), runs.spread, runs.log_px - runs.mean("elbo")]
        + [runs.mean("active_units"), runs.mean("seconds"), runs.first["parameters"]]
        for (guide, objective), runs in found.items()
    ]
    columns = ["guide", "objective", "test ELBO", "log p(x)", "sd of seeds", "gap", "active units", "s / epoch"]
    seeds = max(len(runs.rows) for runs in found.values())
    return Table(
        [*columns, "parameters"],
        lines,
        "Model and guide trained together, at a constant learning rate: "
        f"{rows[0]['num_data']} test data, nats per datum; means over {counted(seeds, 'seed')}; ± is the Monte Carlo "
        f"standard error of {rows[0]['num_particles']} importance samples. A guide whose KL has no closed form has no "
        "row for it: it would be the ELBO's.",
        dict(zip(columns[2:], (".2f", ".3f", ".2f", ".3f", ".1f", ".2f"), strict=True)),
        {"test ELBO": max, "log p(x)": max},
    )


def frozen_table(gaps: Sequence[Gaps], rows: Sequence[Mapping], chosen: str, log_px: str) -> Table:
    """One line per guide on one model: its gap, and what it exceeds the smallest by.

    Args:
        gaps: of each guide.
        rows: the records of all their runs.
        chosen: how the model was trained.
        log_px: its evidence, in words.
    """
    least, lines = min(gaps, key=lambda one: one.mean), []
    more = f"more than {least.label}"
    for one in gaps:
        runs = [row for row in rows if label_of(row["guide"]) == one.label]
        lines.append(
            [one.label, fmean(row["elbo"] for row in runs), one.mean, one.spread]
            + [None if one is least else str(one.beyond(least)), one.values[one.chosen].mean().item()]
            + [fmean(row["khat_bad"] for row in runs)]
        )
    columns = ["test ELBO", "gap", "sd of seeds", more, "gap of the best by validation", "k-hat > 0.7"]
    return Table(
        ["guide", *columns],
        lines,
        f"One frozen model for all ({chosen}), only the guide trained, by the ELBO, at a learning rate that falls to "
        f"0; means over {counted(len(gaps[0].values), 'seed')}, {rows[0]['num_data']} test data, nats per datum. "
        "Differences are paired datum by datum, with an interval of two standard errors over data and seeds. log p(x) "
        f"is {log_px}; the gap below it is KL(q(z | x) || p(z | x)).",
        {column: ".3f" for column in columns if column != more},
        {"test ELBO": max, "gap": min},
    )


def story(gaps: Sequence[Gaps]) -> dict:
    """For result.json: the headline, the guides from the smallest gap up, and what each pair differs by."""
    ranked = sorted(gaps, key=lambda one: one.mean)
    return {
        "headline": headline(gaps, FROZEN),
        "gaps": {one.label: {"mean": one.mean, "sd_of_seeds": one.spread} for one in ranked},
        "differences": [
            {"guide": other.label, "exceeds": one.label, **other.beyond(one)._asdict()}
            for i, one in enumerate(ranked)
            for other in ranked[i + 1 :]
        ],
    }


def verdict(gaps: Sequence[Gaps], together: Table) -> str:
    """The headline, what it rests on, and what models trained together with their guides show besides.

    Args:
        gaps: of each guide on one frozen model.
        together: with a model for each guide and objective.
    """
    gap = together.columns.index("gap")
    best = min(together.rows, key=lambda row: row[gap])
    short = "".join(f" {said}." for said in behind_a_case(gaps, CASES))
    return (
        f"{headline(gaps, FROZEN)}. Gaps, nats per datum: {order(gaps)}.{short} Where every guide has a model of its "
        f"own, whose posteriors it shapes, {best[0]} trained with {best[1]} leaves the smallest gap, {best[gap]:.3f}."
    )
