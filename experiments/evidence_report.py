"""What the estimators of log p(x) come to: tables, figures, and a verdict in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from dlvm.evidence import BernoulliDecoder, Sandwich, Views
from dlvm.experiments.measures.evidence_record import Found, bracket_row, largest
from dlvm.experiments.runs.report import Table
from dlvm.experiments.study import Picture

CLOSE = 0.05  # nats per datum: an estimate this near may be reported as log p(x)
KHAT_SHARE = 0.1
WEIGHTED = ("prior sampling", "importance sampling", "defensive mixture")
INTRO = (
    "The pair: {name}. Every estimator of log p(x) is put to the same {count} test data at several costs, and held "
    "against the exact value where there is one. All are lower bounds in expectation: the largest is the best, but for "
    "noise.\n\nOnly data simulated from the model come with an exact draw from p(z | x). There annealing runs in "
    "reverse too, which bounds log p(x) from above; the distance of the two says what annealing is worth here."
)
SIDES = {"lower": "below", "upper": "above", "exact": "exact"}


def excuses(found: Found) -> str:
    """What is left out, as a paragraph; empty if nothing is."""
    said = " ".join(f"{name} is left out: {why}." for name, why in found.left_out.items())
    return f"\n\n{said}" if said else ""


def tables(found: Found) -> list[Table]:
    """All that there is something to put into."""
    made = [of_estimators(found)]
    if found.brackets:
        made.append(of_brackets(found))
    if found.real is not None:
        made.append(of_bounds(found, found.real))
    if found.views is not None:
        made.append(of_diagnosis(found, found.views))
    return made


def of_estimators(found: Found) -> Table:
    """A line an estimate, by method and cost."""
    truth, known = found.truth, found.truth is not None
    columns = ["method", "samples or temperatures", "evaluations", "seconds", "log p(x)"]
    columns += ["bias", "error per datum"] if known else []
    lines = []
    for row in found.rows:
        line = [row["method"], row["budget"], row["evaluations"], row["seconds"], (row["log_px"], row["log_px_se"])]
        line += [(row["bias"], row["bias_se"]), (row["error"], row["error_se"])] if known else []
        lines.append([*line, row["ess"] / row["num_samples"], _or_none(row["khat_bad"])])
    text = f"{found.rows[0]['num_data']} test data, nats per datum. Evaluations of p(x | z) per datum, those that find "
    text += "annealing's step sizes included, most of which give a slope too. "
    if truth is not None:
        text += (
            f"Exact ({truth.method}): {truth.mean:.3f}; bias is the mean of estimate less exact, error the "
            "mean distance of a datum's estimate from it. "
        )
    return Table(
        [*columns, "ESS share", "k-hat > 0.7"],
        sorted(lines, key=lambda line: [row["method"] for row in found.rows].index(line[0])),
        text + "k-hat, the share of data beyond 0.7, needs 25 samples.",
        {"evaluations": ",d", "seconds": ".1f", "log p(x)": ".3f", "ESS share": ".2f", "k-hat > 0.7": ".2f"}
        | ({"bias": ".3f", "error per datum": ".3f"} if known else {}),
        {"error per datum": min} if known else None,
    )


def of_brackets(found: Found) -> Table:
    """AIS from below, reverse AIS from above, on simulated data."""
    known = found.brackets[0][2].rows.get("exact")
    lines = []
    for origin, count, one in found.brackets:
        low, high = one.rows["AIS"], one.rows["reverse AIS"]
        bounds = [(low.mean, low.mean_se), (high.mean, high.mean_se), one.gap("reverse AIS", "AIS")]
        lines.append([origin, count, *bounds, low.seconds + high.seconds])
    exact = "" if known is None else f", whose exact log p(x) is {known.mean:.3f}"
    names = ("AIS (lower)", "reverse AIS (upper)", "width")
    return Table(
        ["start", "temperatures", *names, "seconds"],
        sorted(lines, key=lambda line: (line[0], line[1])),
        f"{found.brackets[0][2].rows['AIS'].num_data} data simulated from the model{exact}, nats per datum.",
        dict.fromkeys(names, ".3f") | {"seconds": ".1f"},
        {"width": min},
    )


def of_bounds(found: Found, real: Sandwich) -> Table:
    """Every bound, on test data and, if there are any, on simulated data."""
    pair = [real, narrowest(found)[2] if found.brackets else None]
    lines = []
    for name in ("ELBO", "IWAE", "AIS", "exact", "reverse AIS", "CUBO"):
        rows = [None if one is None else one.rows.get(name) for one in pair]
        if any(rows):
            side = next(SIDES[row.side] for row in rows if row is not None)
            cells = [None if row is None else (row.mean, row.mean_se) for row in rows]
            lines.append([name, "biased" if name == "CUBO" else side, *cells])
    samples = real.rows["IWAE"].num_samples
    text = (
        f"nats per datum; ELBO, IWAE and CUBO from the same {samples:,} samples of the guide. CUBO is an upper bound "
    )
    text += "with endless samples only."
    columns = ["bound", "side of log p(x)", "test data", "simulated data"]
    return Table(columns, lines, text, {"test data": ".3f", "simulated data": ".3f"})


def of_diagnosis(found: Found, views: Views) -> Table:
    """The two views, the guide's calibration, and the decoder."""
    lines: list[list] = []
    parts = (
        ("rate", "KL(q(z | x) || p(z)), mean over data"),
        ("distortion", "-E log p(x | z)"),
        ("information", f"mutual information, at most log {views.components} = {views.most_information:.3f}"),
        ("marginal_kl", "KL(q(z) || p(z)): information + this = rate"),
        ("total_correlation", "of q(z), within KL(q(z) || p(z))"),
        ("unit_kl", "sum over units of KL(q(z_d) || p(z_d)), the rest of it"),
    )
    lines.append(["ELBO", views.elbo[:2], "-(rate + distortion)"])
    for name, text in parts:
        value = getattr(views, name)
        cell = None if value is None else value[:2]
        lines.append([name.replace("_", " "), cell, views.left_out.get(name, "") if value is None else text])
    if found.calibration is not None:
        for level in found.calibration.levels:
            text = f"of the truths lie in the central {100 * level:g} % interval of q(z | x); {level:.3f} if calibrated"
            lines.append(["coverage", tuple(found.calibration.coverage(level)), text])
    if isinstance(found.decoder, BernoulliDecoder):
        lines.append(["overconfidence", tuple(found.decoder.overconfidence), "distortion above what p(x | z) expects"])
        lines.append(["calibration error", tuple(found.decoder.bins.error), "of probabilities: |seen - predicted|"])
    elif found.decoder is not None:
        lines.append(["gain", tuple(found.decoder.gain), "nats that the best constant observation scale would add"])
    text = f"{views.num_data} test data, nats per datum"
    if found.calibration is not None:
        text += f"; coverage on {found.calibration.num_data} data simulated from the model"
    return Table(["quantity", "value", "what it is"], lines, f"{text}.", {"value": ".3f"})


def narrowest(found: Found) -> tuple[str, int, Sandwich]:
    """Of the brackets with the most temperatures, that whose bounds' errors are smallest."""
    most = max(count for _, count, _ in found.brackets)
    last = [entry for entry in found.brackets if entry[1] == most]
    return min(last, key=lambda entry: sum(map(abs, entry[2].gap("reverse AIS", "AIS"))))


def pictures(found: Found, context: str) -> Iterator[Picture]:
    """Every figure of what was measured."""
    from dlvm.experiments.figures.evidence import closing, estimates, weights_by_datum

    truth = found.truth
    yield (
        "estimates",
        estimates(found.rows, None if truth is None else truth.mean, context),
        "Every estimate of log p(x) of the test data against its cost; from below, and nearer the more is spent.",
    )
    if found.brackets:
        rows = [bracket_row(*entry) for entry in found.brackets]
        yield (
            "bracket",
            closing(rows, rows[0].get("exact"), context),
            "Annealing forwards and in reverse on data simulated from the model: the truth lies between.",
        )
    points, samples = {}, 0
    for name in WEIGHTED:
        if (one := found.largest.get(name)) is not None and one.khat.isfinite().any():
            error = one.log_px_se if truth is None else (one.log_px - truth.log_px[: one.num_data]).abs()
            points[name], samples = (one.khat, error), max(samples, one.num_samples)
    if points:
        yield (
            "weights",
            weights_by_datum(points, samples, truth is not None, context),
            "k-hat of every datum's importance weights, at the largest number of samples.",
        )


def verdict(found: Found) -> str:
    """Which estimate to take, whether weights hold, how wide the bracket is, what ails the pair, what next."""
    said = ["Interrupted: this is what was done."] if found.interrupted else []
    said += [_value(found), _choice(found)]
    if "importance sampling" in found.largest:
        said.append(_weights(found))
    if found.brackets:
        origin, count, one = narrowest(found)
        said.append(_sentence(f"on simulated data, with {count} temperatures from the {origin}, {one.verdict[0]}"))
    if found.real is not None:
        said += [_sentence(text) for text in found.real.verdict if not text.startswith("CUBO")]
    following = "longer annealing: --temperatures 1000" if _close(found) is None else ""
    if (seen := found.calibration) is not None:
        held = seen.coverage(0.9)
        said.append(
            f"q(z | x): {seen.verdict}; its 90 % intervals hold {100 * held.value:.0f} ± {100 * held.se:.0f} % of the "
            "truths."
        )
        following = following or ("" if seen.calibrated else seen.next_step)
    if found.decoder is not None:
        said.append(f"The decoder: {found.decoder.verdict}.")
        following = following or found.decoder.next_step
    return " ".join([*said, f"Next: {following}." if following else ""]).strip()


def _value(found: Found) -> str:
    if found.truth is not None:
        count = found.truth.num_data
        return f"log p(x) of these {count} test data is {found.truth.mean:.3f} nats per datum ({found.truth.method})."
    best = largest(found.rows)
    return (
        f"No exact value ({found.why}); the largest lower bound is {best['log_px']:.3f} ± {best['log_px_se']:.3f} nats "
        f"per datum, by {_named(best)}."
    )


def _off(found: Found, row: dict) -> float:
    """Distance from the exact value datum by datum; without one, of the mean from the largest lower bound."""
    return row["error"] if found.truth is not None else abs(largest(found.rows)["log_px"] - row["log_px"])


def _close(found: Found) -> dict | None:
    """The cheapest estimate that is close, and not by luck."""
    near = [row for row in found.rows if _off(found, row) <= CLOSE and 2 * row["log_px_se"] <= CLOSE]
    return min(near, key=lambda row: row["evaluations"], default=None)


def _choice(found: Found) -> str:
    what = "of a datum's exact value on average" if found.truth is not None else "of that"
    if (row := _close(found)) is not None:
        return (
            f"The cheapest that comes within {CLOSE:g} nats {what} is {_named(row)}: {row['evaluations']:,} "
            f"evaluations of the decoder per datum, {row['seconds']:.1f} s in all, off by {_off(found, row):.3f}."
        )
    row = min(found.rows, key=lambda row: _off(found, row))
    off = f"off by {_off(found, row):.3f}, its mean ± {row['log_px_se']:.3f}"
    return f"None comes within {CLOSE:g} nats {what} beyond doubt; the nearest is {_named(row)}, {off}."


def _weights(found: Found) -> str:
    one = found.largest["importance sampling"]
    if math.isnan(one.khat_bad):
        return "Whether importance sampling holds cannot be said with fewer than 25 samples."
    share = f"k-hat exceeds 0.7 for {100 * one.khat_bad:.0f} % of the data with {one.num_samples:,} samples"
    if one.khat_bad <= KHAT_SHARE:
        return f"Importance sampling with this guide can be trusted: {share}."
    text = f"The error bars of importance sampling with this guide cannot be trusted: {share}"
    if found.truth is not None:
        off = (one.log_px - found.truth.log_px[: one.num_data]).mean().item()
        text += f", though its mean is only {abs(off):.3f} nats off" if abs(off) < CLOSE else f", off by {off:+.3f}"
    return f"{text}."


def _named(row: Mapping) -> str:
    unit = "temperatures" if row["method"].startswith("AIS") else "samples"
    return f"{row['method']} with {row['budget']:,} {unit}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
