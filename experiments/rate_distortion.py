"""What does beta buy? One model per beta and decoder, on the plane of rate and distortion."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import nn

from dlvm.evidence import Estimate, annealed, defensive, importance, views
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.command_line import check_least, start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, FolderOptions, adam
from dlvm.experiments.options.objectives import estimator_for
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.recipe import data_of
from dlvm.experiments.runs.report import Table, counted, with_error
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, fresh_pair, with_layers
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Picture, Study
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, Objective, fit, tempered
from dlvm.inference import check as requirements
from dlvm.inference.evaluation.active_units import ACTIVE_VARIANCE

DEAD, HEAVY = 0.01, 0.1  # nats of a unit that is asleep; share of data beyond k-hat 0.7

PARTICLES = 8  # where the rate has to be drawn
CORNER = "At rate 0 the best that a decoder of independent bits can do is the mean of the training data. "
INTRO = (
    "p(x, z) is {subject}, q(z | x) a diagonal guide, both trained to maximise "
    "-(distortion + beta rate), where rate = E KL(q(z | x) || p(z)) and distortion = -E log p(x | z). The ELBO is "
    "-(rate + distortion), whatever the beta: models of one ELBO may know all of x through z, or nothing.\n\n"
    "{corner}At the other end, with distortion 0, the code is all there is to x, and costs at least the entropy of the "
    "data, of which the lowest -log p(x) reached is an upper bound. Were every optimum found, the curve would have "
    "slope -beta at the point of beta.\n\n"
    "Fixing a Broken ELBO, Alemi et al., 2018 (arXiv:1711.00464)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, EvaluationOptions, ModelOptions, DataOptions):
    """Train one model per beta and decoder, and compare rate, distortion, log p(x) and what becomes of the units."""

    betas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Weights of the rate in training; 1 maximises the ELBO."""
    decoders: tuple[Literal["linear", "mlp"], ...] = ("linear", "mlp")
    """linear has no hidden layer, mlp has those of the model; a model whose decoder has no such option is trained as it
    is."""
    setup: Setup = VAESetup(8, (100,))
    epochs: int = 80
    """Passes over the training data, the same for all."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    eval_particles: int = 1000
    """Samples of z per test datum for log p(x), a tenth of them from the prior."""
    chains: int = 4
    """Of annealed importance sampling per test datum, where those samples cannot be trusted."""
    temperatures: int = 150
    """Of annealed importance sampling."""
    seed: int = 0
    """Of everything."""
    out: Path = Path("runs/rate_distortion")


def pair(config: Config, decoder: str, train: Loader) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it."""
    setup = with_layers(config.setup, config.setup.decoder_layers, ()) if decoder == "linear" else config.setup
    return fresh_pair(setup, train, Diagonal, encoder=config.setup)


def objective_of(config: Config, beta: float) -> Objective:
    """The ELBO with the rate weighed by beta; with draws of the rate where latents are discrete."""
    word = config.setup.defaults.get("estimator", "total")
    bound = ELBO(analytic_kl=True) if word == "total" else ELBO(PARTICLES, estimator_for(config.setup.defaults))
    return tempered(bound, beta)


def evidence_of(config: Config, model: nn.Module, guide: nn.Module, test: Loader) -> tuple[str, Estimate]:
    """log p(x) by weighing draws, or by annealing where these have heavy tails and that is clearly higher."""
    try:
        weighed = defensive(model, guide, test, config.eval_particles, seed=config.seed)
    except ValueError:  # of discrete latents there is no density at any point
        return "weights", importance(model, guide, test, config.eval_particles, seed=config.seed)
    if not (weighed.complete and weighed.khat_bad > HEAVY):
        return "weights", weighed
    annealing = annealed(
        model, test, num_chains=config.chains, temperatures=config.temperatures, seed=config.seed, progress=True
    )
    higher = annealing.mean > weighed.mean + 2 * math.hypot(annealing.mean_se, weighed.mean_se)
    return ("AIS", annealing) if annealing.complete and higher else ("weights", weighed)


def measured(config: Config, decoder: str, beta: float, data: Splits) -> dict:
    """Trains one pair; what it is worth on the test data, nats per datum, with standard errors under ``..._se``."""
    began = time.perf_counter()
    pyro.set_rng_seed(config.seed)
    model, guide = pair(config, decoder, data.train)
    objective = objective_of(config, beta)
    how: dict[str, Any] = dict(epochs=config.epochs, optimizer=adam(config.lr), seed=config.seed)
    for _ in fit(model, guide, objective, data.train, **how):
        pass
    seen = views(model, guide, data.test, seed=config.seed)
    method, found = evidence_of(config, model, guide, data.test)
    row: dict = {"decoder": decoder, "beta": beta, "log_px": found.mean, "log_px_se": found.mean_se, "by": method}
    for name in ("rate", "distortion", "elbo", "information", "marginal_kl"):
        mean = getattr(seen, name)
        row |= {name: mean.value, f"{name}_se": mean.se}
    each = [kl.units for kl in seen.kl.values()]
    units = None if any(one is None for one in each) else [kl for one in each if one is not None for kl in one.tolist()]
    active = sum(site.active for site in seen.units.values()) if units is None else sum(kl >= DEAD for kl in units)
    row |= {"khat_bad": found.khat_bad, "active_units": active, "unit_kl": units}
    return row | {"num_data": found.num_data, "complete": seen.complete and found.complete,
                  "seconds": time.perf_counter() - began}  # fmt: skip


def measure(config: Config, data: Splits, run: Run, rows: list[dict]) -> None:
    """Every decoder with every beta, into ``rows``."""
    for decoder, beta in product(decoders(config), sorted(config.betas)):
        row = measured(config, decoder, beta, data)
        rows.append(row)
        run.log(**row)
        worth = f"rate {row['rate']:.2f}   distortion {row['distortion']:.2f}   log p(x) {row['log_px']:.2f}"
        print(f"{decoder}, beta {beta:g}: {worth} ± {row['log_px_se']:.2f}   {row['seconds']:.0f} s", flush=True)
        if not row["complete"]:
            raise KeyboardInterrupt


def decoders(config: Config) -> tuple[str, ...]:
    """Those that are compared; of a model whose decoder has no layers to leave out, its own alone."""
    return (word_of(type(config.setup)),) if config.setup.decoder_layers is None else config.decoders


def without_code(data: Splits) -> float:
    """The distortion of a decoder that knows the mean of the training data, and nothing of z; nats per test datum."""
    count = data.train.num_data
    mean = (data.train.mean * count + 0.5) / (count + 1)
    x = torch.cat([batch for (batch,) in data.test])
    return -torch.distributions.Bernoulli(mean).log_prob(x).sum(-1).mean().item()


def summary(rows: list[dict], config: Config) -> Table:
    """One line a decoder and beta."""
    pairs = {"rate": "rate", "distortion": "distortion", "ELBO": "elbo", "log p(x) at least": "log_px",
             "I(x; z)": "information", "KL(q(z), p(z))": "marginal_kl"}  # fmt: skip
    lines = [
        [row["decoder"], row["beta"], *(with_error(row, key) for key in pairs.values())]
        + [row["by"], row["active_units"]]
        for row in rows
    ]
    return Table(
        ["decoder", "beta", *pairs, "log p(x) by", "active units"],
        lines,
        f"{rows[0]['num_data']} test data, nats per datum, ± the Monte Carlo standard error; "
        f"{counted(config.epochs, 'epoch')} each; {active_means(rows)}. log p(x) is by importance weights, or by "
        f"annealed importance sampling (AIS) where these have heavy tails; I(x; z) is at most "
        f"log {rows[0]['num_data']}.",
        dict.fromkeys(pairs, ".2f") | {"beta": "g", "ELBO": ".3f", "log p(x) at least": ".3f"},
        {"ELBO": max, "log p(x) at least": max},
    )


def of_decoder(rows: list[dict], decoder: str) -> str:
    """How a decoder's rate and units go with beta."""
    mine = [row for row in rows if row["decoder"] == decoder]
    low, high = mine[0], mine[-1]
    said = f"{decoder} decoder: from beta {low['beta']:g} to {high['beta']:g} the rate goes from {low['rate']:.1f} to "
    said += f"{high['rate']:.1f} nats and the distortion from {low['distortion']:.1f} to {high['distortion']:.1f}"
    if low["unit_kl"] is None:
        return f"{said}."
    dead = {f"{row['beta']:g}": sum(kl < DEAD for kl in row["unit_kl"]) for row in mine}
    died = ", ".join(f"{count} at beta {beta}" for beta, count in dead.items() if count)
    return f"{said}; units below {DEAD} nats, of {len(low['unit_kl'])}: {died or 'none'}."


def active_means(rows: list[dict]) -> str:
    """How active units are counted, in words."""
    if any(row["unit_kl"] is None for row in rows):
        return f"active units: whose posterior mean varies over data by more than {ACTIVE_VARIANCE}"
    return f"active units: whose rate is at least {DEAD} nats"


def verdict(rows: list[dict]) -> str:
    """Which beta is best by log p(x), what becomes of the rate and of units, what to try next."""
    best, bound = (max(rows, key=lambda row: row[key]) for key in ("log_px", "elbo"))
    said = [
        f"The highest log p(x), {best['log_px']:.2f} ± {best['log_px_se']:.2f} nats per datum, is reached with beta "
        f"{best['beta']:g} and the {best['decoder']} decoder; the highest ELBO, {bound['elbo']:.2f}, with beta "
        f"{bound['beta']:g} and the {bound['decoder']} one."
    ]
    said += [of_decoder(rows, decoder) for decoder in dict.fromkeys(row["decoder"] for row in rows)]
    if unsure := [f"beta {row['beta']:g} ({row['decoder']})" for row in rows if row["khat_bad"] > HEAVY]:
        said.append(f"log p(x) may be understated, since k-hat exceeds 0.7 for many data: {', '.join(unsure)}.")
    return " ".join([*said, f"Next: {advice(best, rows)}."])


def advice(best: dict, rows: list[dict]) -> str:
    """What to try next, from where on the curve the best log p(x) lies."""
    betas = sorted({row["beta"] for row in rows if row["decoder"] == best["decoder"]})
    if len(betas) > 1 and best["beta"] in (betas[0], betas[-1]):
        side = "smaller" if best["beta"] == betas[0] else "larger"
        return f"{side} betas, since the best one is the last on its side"
    if best["marginal_kl"] > 1:
        return (
            f"a learned prior: at the best beta q(z) is {best['marginal_kl']:.1f} nats from p(z), rate that carries "
            "nothing of x"
        )
    return f"betas closer to {best['beta']:g}, or a richer decoder"


def pictures(rows: list[dict], corner: float | None, config: Config, name: str) -> Iterator[Picture]:
    """Both figures."""
    from dlvm.experiments.figures.rate_distortion import rate_distortion_plane, unit_rates

    context = f"{name}, {word_of(type(config.setup))}, diagonal guide, {counted(config.epochs, 'epoch')}"
    fig = rate_distortion_plane(rows, corner, context)
    yield "rate_distortion", fig, "Rate and distortion by beta; along a dotted line the ELBO is the same."
    if all(row["unit_kl"] is not None for row in rows):
        yield "units", unit_rates(rows, context), "The rate of each latent unit, the largest at the bottom."


def main(config: Config) -> list[dict]:
    study = Study(config)
    check(config)
    data = checked(config)
    rows: list[dict] = []
    run = study.open()
    with study.interruptible(rows):
        measure(config, data, run, rows)
    corner = without_code(data) if config.setup.binary else None
    table, said = summary(rows, config), verdict(rows)
    study.show([table])
    run.result(rows=rows, distortion_without_code=corner, verdict=said)
    title, drawn = f"What does beta buy on {config.data}?", pictures(rows, corner, config, data.train.name)
    intro = INTRO.format(subject=subject(config, data), corner="" if corner is None else CORNER)
    study.report(title, intro, [table], said, drawn)
    return rows


def checked(config: Config) -> Splits:
    """The data, once the model is known to take them; what cannot be done with it is said."""
    data = data_of(config)
    for decoder in decoders(config):
        requirements(*pair(config, decoder, data.train), objective_of(config, 1.0), *data.train.examples)
    if config.setup.decoder_layers is None:
        word = word_of(type(config.setup))
        print(f"decoders are not compared: {word} names no option that holds its decoder's hidden layers", flush=True)
    return data


def subject(config: Config, data: Splits) -> str:
    """The model in words."""
    model, _ = pair(config, decoders(config)[-1], data.train)
    return f"{word_of(type(config.setup))} with {described(model, data.train)}"


def check(config: Config) -> None:
    """Raises ValueError where nothing, or the same thing twice, is asked for."""
    for name in ("betas", "decoders"):
        if len(got := getattr(config, name)) == 0 or len(set(got)) < len(got):
            raise ValueError(f"{name} must be different, at least one, got {got}; leave it out for the default")
    check_least(config, eval_particles=2)


if __name__ == "__main__":
    start(main, Config, "rate_distortion")
