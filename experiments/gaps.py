"""Is the fault with the guide's family or with its encoder? The inference gap divided in two, guide by guide."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyro
from torch import Tensor, nn

from dlvm.evidence import Estimate, annealed, free, importance
from dlvm.experiments.data import Splits
from dlvm.experiments.measures.divided_gap import DividedGap, divide
from dlvm.experiments.options.command_line import check_least, start
from dlvm.experiments.options.common import DataOptions, FolderOptions, adam, splits
from dlvm.experiments.options.guides import GuideOptions, GuideWord
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table, with_error
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Picture, Study
from dlvm.guides import latents
from dlvm.inference import ELBO, fit

POORER = {"full_rank": ("diagonal", "low_rank"), "iaf": ("diagonal", "low_rank", "full_rank")}
GAUSSIAN: dict[str, bool] = {"diagonal": True, "full_rank": False}  # whose exact split quadrature knows

INTRO = (
    "p(z) p(x | z) is a VAE with a Bernoulli decoder, trained together with each guide by the ELBO. Then both stay as "
    "they are, and for each datum the bound L is climbed from q(z | x) with parameters of the datum's own, to q*, the "
    "best of the family:\n\n"
    "log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q]): what the family cannot do, and what the encoder loses.\n\n"
    "log p(x) is by importance sampling from the guide, or by annealed importance sampling from the prior where that "
    "is clearly higher; both are lower bounds, so that the approximation gap is at least what is stated. Where "
    "encoders are compared it is by importance sampling from the best local guide.\n\n"
    "Inference Suboptimality in Variational Autoencoders, Cremer, Li, Duvenaud, 2018 (arXiv:1801.03558)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, DataOptions):
    """Train a VAE with each guide, and divide its inference gap into what the family and what the encoder loses."""

    guides: tuple[GuideWord, ...] = ("diagonal", "full_rank", "iaf")
    """Families of q(z | x), each trained with a model of its own."""
    encoders: tuple[int, ...] = (25, 100, 400)
    """Widths of the encoder's hidden layers, compared with the first guide; none leaves this part out."""
    richer: Literal["none", "full_rank", "iaf"] = "full_rank"
    """A family richer than some of the guides, for which it is set free of the encoder as well; none leaves it out."""
    iaf_depth: int = 2
    """Steps of the flow in iaf."""
    iaf_width: tuple[int, ...] = (64,)
    """Hidden layers of each step of the flow."""
    z_dim: int = 8
    """Latent dimensions; with 1 or 2 the split is also made exactly, by quadrature, for diagonal and full_rank."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder, and in reverse of the decoder; tanh."""
    epochs: int = 60
    """Most passes over the training data."""
    patience: int = 15
    """Stop when the validation bound has not risen for so many epochs; the best state is kept."""
    lr: float = 2e-3
    """Learning rate of Adam for training."""
    eval_data: int = 100
    """Test data of which the gap is divided, and as many training data."""
    steps: int = 300
    """Of Adam, for each local guide."""
    num_particles: int = 1000
    """Samples of z per datum for each of the bounds."""
    chains: int = 8
    """Of annealed importance sampling, per datum."""
    temperatures: int = 200
    """Of annealed importance sampling."""
    seed: int = 0
    """Of everything."""
    out: Path = Path("runs/gaps")

    def family(self, word: GuideWord) -> Callable:
        """(latents, encoder) -> guide."""
        return GuideOptions(word, self.iaf_depth, self.iaf_width).family(nn.Tanh)


def trained(
    config: Config, word: GuideWord, encoder: tuple[int, ...], data: Splits
) -> tuple[nn.Module, nn.Module, int]:
    """A model and a guide, trained together, and for how many epochs."""
    pyro.set_rng_seed(config.seed)
    model = VAESetup(config.z_dim, config.hidden).model(data.train)
    guide = config.family(word)(latents(model, data.train.example), VAESetup(hidden=encoder).encoder(data.train))
    how: dict[str, Any] = dict(valid=data.valid, epochs=config.epochs, patience=config.patience, seed=config.seed)
    epochs = sum(1 for _ in fit(model, guide, ELBO(), data.train, optimizer=adam(config.lr), **how))
    return model, guide, epochs


def evidence_of(config: Config, model: nn.Module, guide: nn.Module, x: Tensor) -> Estimate:
    """The higher of two lower bounds on log p(x); where noise decides, that by importance sampling."""
    annealing = annealed(
        model, x, num_chains=config.chains, temperatures=config.temperatures, seed=config.seed, progress=True
    )
    weighing = importance(model, guide, x[: annealing.num_data], 5 * config.num_particles, seed=config.seed)
    if not annealing.complete:
        return annealing
    noise = 2 * math.hypot(annealing.mean_se, weighing.mean_se)
    return annealing if annealing.mean > weighing.mean + noise else weighing


def divided(config: Config, part: str, word: GuideWord, encoder: tuple[int, ...], data: Splits) -> DividedGap:
    """Trains one pair, and divides its gap."""
    began = time.perf_counter()
    model, guide, epochs = trained(config, word, encoder, data)
    x = data.test.first(config.eval_data)
    log_px = richer = diagonal = None
    if part == "guides":
        log_px = evidence_of(config, model, guide, x)
        x = x[: log_px.num_data]
        if config.richer != "none" and word in POORER[config.richer]:
            richer = free(config.family(config.richer))
        diagonal = GAUSSIAN.get(word) if config.z_dim <= 2 else None
    numbers = (config.steps, config.num_particles, config.seed)
    parts = divide(model, guide, x, data.train.first(config.eval_data), *numbers, log_px, richer, diagonal)
    return DividedGap(part, word, encoder, *parts, epochs, time.perf_counter() - began)


def measure(config: Config, data: Splits, run: Run, done: list[DividedGap]) -> None:
    """Every guide, then every encoder, into ``done``."""
    asked = [("guides", word, config.hidden) for word in config.guides]
    asked += [("encoders", config.guides[0], (width,) * len(config.hidden)) for width in config.encoders]
    for part, word, encoder in asked:
        done.append(found := divided(config, part, word, encoder, data))
        run.log(**found.row)
        print(found, flush=True)
        if not found.complete:
            raise KeyboardInterrupt


COLUMNS = {
    "log p(x) at least": "log_px", "best of the richer family": "richer", "best of the family, L[q*]": "best",
    "L[q]": "elbo", "approximation": "approximation", "amortisation": "amortisation", "total": "total",
    "amortisation, training data": "train_amortisation",
}  # fmt: skip


def split_table(rows: list[dict], config: Config) -> Table:
    """One line a guide: log p(x), the bounds, and the two parts of what is between."""
    keys = {column: key for column, key in COLUMNS.items() if key != "richer" or config.richer != "none"}
    lines = [[row["guide"], *(with_error(row, key) for key in keys.values())] for row in rows]
    beside = "" if config.richer == "none" else f" The richer family is {config.richer}."
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


def pictures(found: list[DividedGap], config: Config, name: str) -> Iterator[Picture]:
    """Every figure of what was done."""
    from dlvm.experiments.figures.gaps import gap_bars, gap_scatter, gaps_by_encoder

    context = f"{name}, {config.z_dim} latent dimensions"
    guides, encoders = ([one for one in found if one.part == part] for part in ("guides", "encoders"))
    if guides:
        rows = [one.row for one in guides]
        yield "gaps", gap_bars(rows, context), "The inference gap of each guide, and what it is made of."
        values = {one.label: (one.test.approximation.values, one.test.amortisation.values) for one in guides}
        yield "per_datum", gap_scatter(values, context), "Datum by datum: what the family and the encoder lose."
    if len(encoders) > 1:
        fig = gaps_by_encoder([one.row for one in encoders], f"{context}, {config.guides[0]} guide")
        yield "encoders", fig, "Both parts of the gap against the width of the encoder."


def main(config: Config) -> list[dict]:
    study = Study(config)
    check(config)
    data, run = splits(config), study.open()
    found: list[DividedGap] = []
    with study.interruptible(found):
        measure(config, data, run, found)
    rows = [one.row for one in found]
    guides, encoders = ([row for row in rows if row["part"] == part] for part in ("guides", "encoders"))
    exact = [row for row in guides if "exact_total" in row]
    tables = [split_table(guides, config)] if guides else []
    tables += [encoder_table(encoders)] if encoders else []
    tables += [exact_table(exact)] if exact else []
    study.show(tables)
    said = verdict(rows)
    run.result(rows=rows, verdict=said)
    title = f"Family or encoder: where does the bound lose on {config.data}?"
    study.report(title, INTRO, tables, said, pictures(found, config, data.train.name))
    return rows


def check(config: Config) -> None:
    """Raises ValueError where nothing, or the same thing twice, is asked for."""
    if len(set(config.encoders)) < len(config.encoders) or min(config.encoders, default=1) < 1:
        raise ValueError(f"encoders must be different widths of at least 1, got {config.encoders}")
    if config.encoders and not config.hidden:
        raise ValueError("hidden must hold a layer for encoders to set the width of; pass --hidden 100, or no encoders")
    check_least(config, num_particles=2, temperatures=1)


if __name__ == "__main__":
    start(main, Config, "gaps")
