"""What the divided gaps come to: tables, figures, and in words where each guide loses."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dlvm.experiments.measures.divided_gap import DividedGap
from dlvm.experiments.runs.report import Table, with_error
from dlvm.experiments.study import Picture

COLUMNS = {
    "log p(x) at least": "log_px", "best of the richer family": "richer", "best of the family, L[q*]": "best",
    "L[q]": "elbo", "approximation": "approximation", "amortisation": "amortisation", "total": "total",
    "amortisation, training data": "train_amortisation",
}  # fmt: skip


def split_table(rows: list[dict], richer: str) -> Table:
    """One line a guide: log p(x), the bounds, and the two parts of what is between."""
    keys = {column: key for column, key in COLUMNS.items() if key != "richer" or richer != "none"}
    lines = [[row["guide"], *(with_error(row, key) for key in keys.values())] for row in rows]
    beside = "" if richer == "none" else f" The richer family is {richer}."
    return Table(
        ["guide", *keys],
        lines,
        f"{rows[0]['num_data']} test data, nats per datum, ± the Monte Carlo standard error. approximation is "
        f"log p(x) - L[q*], amortisation L[q*] - L[q].{beside}",
        dict.fromkeys(keys, ".3f"),
        {"L[q]": max, "log p(x) at least": max, "total": min},
    )


def encoder_table(rows: list[dict]) -> Table:
    """One line an encoder."""
    keys = {column: key for column, key in COLUMNS.items() if key not in ("richer", "best")}
    lines = [[row["label"], *(with_error(row, key) for key in keys.values()), row["epochs"]] for row in rows]
    return Table(
        ["encoder", *keys, "epochs"],
        lines,
        f"{rows[0]['guide']} guide, {rows[0]['num_data']} test data and as many training data, nats per datum, ± the "
        "Monte Carlo standard error. Every encoder has a model trained with it.",
        dict.fromkeys(keys, ".3f"),
        {"amortisation": min, "total": min, "L[q]": max},
    )


def exact_table(rows: list[dict]) -> Table:
    """The split by local optimisation beside that by quadrature."""
    names = ("approximation", "amortisation", "total")
    lines = [[row["guide"], *(x for n in names for x in (with_error(row, n), row[f"exact_{n}"]))] for row in rows]
    columns = [column for name in names for column in (name, f"{name}, exact")]
    return Table(
        ["guide", *columns],
        lines,
        "Local optimisation beside quadrature on the latent plane, the same test data, nats per datum.",
        dict.fromkeys(columns, ".4f"),
    )


def fault(row: dict) -> str:
    """With which of the two a guide's fault lies, from the numbers."""
    missing, encoder = row["approximation"], row["amortisation"]
    unsure = 2 * (row["approximation_se"] ** 2 + row["amortisation_se"] ** 2) ** 0.5
    parts = f"{missing:.2f} by the family, {encoder:.2f} by the encoder, of {row['total']:.2f} nats"
    if not row["converged"]:
        return f"{row['guide']}: not settled, local optimisation has not converged ({parts})"
    if abs(missing - encoder) <= unsure:
        return f"{row['guide']}: family and encoder alike ({parts})"
    return f"{row['guide']}: the {'encoder' if encoder > missing else 'family'} ({parts})"


def change(rows: list[dict]) -> str:
    """What becomes of the amortisation gap from the first encoder to the last."""
    first, last = rows[0], rows[-1]
    by = last["amortisation"] - first["amortisation"]
    if abs(by) <= 2 * math.hypot(first["amortisation_se"], last["amortisation_se"]):
        return "stays the same"
    return "shrinks" if by < 0 else "grows"


def advice(row: dict, encoders: list[dict]) -> str:
    """What to try next for a guide; a larger encoder only where that, as far as was seen, may help."""
    learned = row.get("train_amortisation")
    if row["amortisation"] <= row["approximation"] or not row["converged"]:
        return row["next"]
    if learned is not None and learned < 0.5 * row["amortisation"]:
        return (
            f"the encoder generalises badly (amortisation {learned:.2f} on training data, {row['amortisation']:.2f} on "
            "test data): more or noisier training data, dynamic binarisation, or Refined(...), rather than a larger one"
        )
    if len(encoders) > 1 and change(encoders) != "shrinks":
        return (
            "longer training, or Refined(...): most is lost by amortisation, which larger encoders did not make less of"
        )
    return row["next"]


def encoder_claim(rows: list[dict]) -> str:
    """Whether the amortisation gap shrinks as encoders grow."""
    first, last = rows[0], rows[-1]
    said = f"From encoder {first['label']} to {last['label']} the amortisation gap {change(rows)}, from "
    said += f"{first['amortisation']:.2f} to {last['amortisation']:.2f} nats on test data"
    if "train_amortisation" in last:
        said += f" and from {first['train_amortisation']:.2f} to {last['train_amortisation']:.2f} on training data"
    models = f"{first['log_px']:.2f} to {last['log_px']:.2f}"
    return f"{said}; log p(x) of the models trained with them goes from {models}."


def verdict(rows: list[dict]) -> str:
    """What the numbers say: where each guide loses, whether larger encoders help, what to try next."""
    guides, encoders = ([row for row in rows if row["part"] == part] for part in ("guides", "encoders"))
    said = []
    if guides:
        best = max(guides, key=lambda row: row["elbo"])
        said.append(f"What most of the inference gap is due to: {'; '.join(map(fault, guides))}.")
    if len(encoders) > 1:
        said.append(encoder_claim(encoders))
    if guides:
        said.append(f"Next, for {best['guide']}, whose ELBO is highest: {advice(best, encoders)}.")
    return " ".join(said)


def pictures(found: list[DividedGap], context: str) -> Iterator[Picture]:
    """Every figure of what was done."""
    from dlvm.experiments.figures.gaps import gap_bars, gap_scatter, gaps_by_encoder

    guides, encoders = ([one for one in found if one.part == part] for part in ("guides", "encoders"))
    if guides:
        rows = [one.row for one in guides]
        yield "gaps", gap_bars(rows, context), "The inference gap of each guide, and what it is made of."
        values = {one.label: (one.test.approximation.values, one.test.amortisation.values) for one in guides}
        yield "per_datum", gap_scatter(values, context), "Datum by datum: what the family and the encoder lose."
    if len(encoders) > 1:
        fig = gaps_by_encoder([one.row for one in encoders], f"{context}, {encoders[0].guide} guide")
        yield "encoders", fig, "Both parts of the gap against the width of the encoder."
