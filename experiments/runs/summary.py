"""What training and evaluation came to, in a table and in lines: nats per datum, and per part, as a time step."""

from __future__ import annotations

from collections.abc import Mapping

from dlvm.experiments.runs.report import Table
from dlvm.inference import Epoch, Evaluation

PARTS = ("ELBO", "gap", "rate", "distortion", "active units", "ESS", "k-hat > 0.7")
WORDS = ("log_px", "log_px_se", "elbo", "elbo_se")


def each_part(result: Evaluation, parts: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """What one part of a datum has of the nats, {part: {word: nats}}: all data's nats over all data's parts.

    Args:
        result: means over data, nats per datum.
        parts: how many parts these data have on average, {part: number}.
    """
    return {part: {word: getattr(result, word) / number for word in WORDS} for part, number in parts.items()}


def epoch_parts(epoch: Epoch, train: Mapping[str, float], valid: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The bounds of an epoch for each part, {"train per part": nats}; empty where data have no parts.

    Args:
        epoch: bounds in nats per datum.
        train, valid: how many parts these data have on average, {part: number}.
    """
    bounds = {"train": (epoch.train, train), "valid": (epoch.valid, valid)}
    found = {
        name: {part: bound / number for part, number in parts.items()}
        for name, (bound, parts) in bounds.items()
        if bound is not None and parts
    }
    return {f"{name}_per": each for name, each in found.items()}


def told_parts(found: Mapping[str, Mapping[str, float]]) -> str:
    """The same in words, behind an epoch's line.

    Example:
        >>> told_parts({"train_per": {"time step": -8.5}, "valid_per": {"time step": -8.75}})
        '   train -8.500   valid -8.750 nats per time step'
    """
    names = dict.fromkeys(part for each in found.values() for part in each)
    lines = []
    for part in names:
        bounds = "   ".join(f"{word.removesuffix('_per')} {each[part]:.3f}" for word, each in found.items())
        lines.append(f"   {bounds} nats per {part}")
    return "".join(lines)


def summary(
    result: Evaluation,
    name: str,
    epochs: int,
    seconds: float,
    measures: Mapping[str, float],
    per: Mapping[str, Mapping[str, float]],
) -> Table:
    """The evaluation in one line, with the nats of each part of a datum, and the model's own measures."""
    if exact(result):
        parts = {f"{name} per {part}": each["log_px"] for part, each in per.items()}
        bits_per = {} if result.density else {"bits per number": result.bits_per_dim}
        units = ", of a density, in the units of the data" if result.density else ""
        return Table(
            [name, *parts, *bits_per, *measures, "epochs", "s / epoch"],
            [[result.log_px, *parts.values(), *bits_per.values(), *measures.values(), epochs, seconds]],
            f"{result.num_data} test data, nats per datum{units}; exact, since nothing is drawn.",
            {name: ".2f", "s / epoch": ".2f"} | dict.fromkeys((*parts, *bits_per, *measures), ".3f"),
        )
    both = {f"{name} per {part}": (each["log_px"], each["log_px_se"]) for part, each in per.items()}
    both |= {f"ELBO per {part}": (each["elbo"], each["elbo_se"]) for part, each in per.items()}
    return Table(
        [name, *both, *PARTS, *measures, "epochs", "s / epoch"],
        [
            [
                (result.log_px, result.log_px_se),
                *both.values(),
                (result.elbo, result.elbo_se),
                result.log_px - result.elbo,
                result.rate,
                result.distortion,
                result.active_units,
                result.ess,
                result.khat_bad,
                *measures.values(),
                epochs,
                seconds,
            ]
        ],
        f"{result.num_data} test data, nats per datum, {result.num_particles} importance samples each; {bits(result)}.",
        {part: ".2f" for part in (name, *PARTS, "s / epoch") if part != "active units"}
        | dict.fromkeys((*both, *measures), ".3f"),
    )


def exact(result: Evaluation) -> bool:
    """Whether the model has no latent sites, so that its bounds are log p(x) itself."""
    return not result.units and not result.rate and not result.log_px_se


def bits(result: Evaluation) -> str:
    """Bits per dimension of probabilities; a density has none that could be compared."""
    if result.density:
        return "nats are of a density, in the units of the data"
    return f"{result.bits_per_dim:.3f} bits per dimension"
