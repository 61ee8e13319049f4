"""Is the fault with the guide's family or with its encoder? The inference gap divided in two, guide by guide."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyro
from torch import Tensor, nn

from dlvm.evidence import Estimate, annealed, free, importance
from dlvm.evidence.inference_gap.unamortized import is_plain
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.gaps_report import encoder_table, exact_table, pictures, split_table, verdict
from dlvm.experiments.measures.divided_gap import DividedGap, divide
from dlvm.experiments.measures.draws import Rows, first_rows
from dlvm.experiments.options.command_line import check_least, start
from dlvm.experiments.options.common import DataOptions, FolderOptions, adam
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.options.objectives import estimator_for
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.recipe import data_of
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, encoder_layers, fresh_pair, with_layers
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Study
from dlvm.guides import latents
from dlvm.inference import ELBO, fit
from dlvm.inference import check as requirements

POORER = {"full_rank": ("diagonal", "low_rank"), "iaf": ("diagonal", "low_rank", "full_rank")}
GAUSSIAN: dict[str, bool] = {"diagonal": True, "full_rank": False}  # whose exact split quadrature knows

INTRO = (
    "trained together with each guide by the ELBO. Then both stay as "
    "they are, and for each datum the bound L is climbed from q(z | x) with parameters of the datum's own, to q*, the "
    "best of the family:\n\n"
    "log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q]): what the family cannot do, and what the encoder loses.\n\n"
    "log p(x) is by importance sampling from the guide, or by annealed importance sampling from the prior where that "
    "is clearly higher; both are lower bounds, so that the approximation gap is at least what is stated. Where "
    "encoders are compared it is by importance sampling from the best local guide.\n\n"
    "Inference Suboptimality in Variational Autoencoders, Cremer, Li, Duvenaud, 2018 (arXiv:1801.03558)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions, ModelOptions, DataOptions):
    """Train a model with each guide, and divide its inference gap into what the family and what the encoder loses."""

    guides: tuple[str, ...] = ("diagonal", "full_rank", "iaf")
    """Families of q(z | x), words of --guide in dlvm.experiments.train, each trained with a model of its own."""
    encoders: tuple[int, ...] = (25, 100, 400)
    """Widths of the encoder's hidden layers, compared with the first guide; none leaves this part out, and so does a
    model whose encoder has no such layers."""
    richer: Literal["none", "full_rank", "iaf"] = "full_rank"
    """A family richer than some of the guides, for which it is set free of the encoder as well; none leaves it out."""
    iaf_depth: int = 2
    """Steps of the flow in iaf."""
    iaf_width: tuple[int, ...] = (64,)
    """Hidden layers of each step of the flow."""
    setup: Setup = VAESetup(8, (100, 100))
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

    def family(self, word: str) -> Callable:
        """(latents, encoder) -> guide."""
        return GuideOptions(word, self.iaf_depth, self.iaf_width).family(self.setup.nonlinearity)

    @property
    def bound(self) -> Callable[[int], ELBO]:
        """The ELBO of so many particles, or of eight where the gradient takes several, as discrete latents need it."""
        word = self.setup.defaults.get("estimator", "total")
        return lambda num_particles: ELBO(8 if word == "vimco" else num_particles, estimator_for(self.setup.defaults))


def trained(
    config: Config, word: str, encoder: tuple[int, ...] | None, data: Splits
) -> tuple[nn.Module, nn.Module, int]:
    """A model and a guide, trained together, and for how many epochs."""
    pyro.set_rng_seed(config.seed)
    other = config.setup if encoder is None else with_layers(config.setup, config.setup.encoder_layers, encoder)
    model, guide = fresh_pair(config.setup, data.train, config.family(word), other)
    how: dict[str, Any] = dict(valid=data.valid, epochs=config.epochs, patience=config.patience, seed=config.seed)
    epochs = sum(1 for _ in fit(model, guide, config.bound(1), data.train, optimizer=adam(config.lr), **how))
    return model, guide, epochs


def evidence_of(config: Config, model: nn.Module, guide: nn.Module, x: Rows) -> Estimate:
    """The higher of two lower bounds on log p(x); where noise decides, that by importance sampling."""
    annealing = annealed(
        model, x, num_chains=config.chains, temperatures=config.temperatures, seed=config.seed, progress=True
    )
    weighing = weighed(config, model, guide, shortened(x, annealing.num_data))
    if not annealing.complete:
        return annealing
    noise = 2 * math.hypot(annealing.mean_se, weighing.mean_se)
    return annealing if annealing.mean > weighing.mean + noise else weighing


def weighed(config: Config, model: nn.Module, guide: nn.Module, x: Rows) -> Estimate:
    """log p(x) by importance sampling."""
    return importance(model, guide, x, 5 * config.num_particles, seed=config.seed)


def divided(config: Config, part: str, word: str, encoder: tuple[int, ...] | None, data: Splits) -> DividedGap:
    """Trains one pair, and divides its gap."""
    began = time.perf_counter()
    model, guide, epochs = trained(config, word, encoder, data)
    x, others = (first_rows(loader, config.eval_data) for loader in (data.test, data.train))
    log_px = richer = diagonal = None
    if part == "guides":
        log_px = weighed(config, model, guide, x) if is_discrete(model, x) else evidence_of(config, model, guide, x)
        x = shortened(x, log_px.num_data)
        if config.richer != "none" and word in POORER[config.richer]:
            richer = free(config.family(config.richer))
        diagonal = GAUSSIAN.get(word) if on_a_plane(model, data.train) else None
    numbers = (config.steps, config.num_particles, config.seed)
    parts = divide(model, guide, x, others, *numbers, log_px, richer, diagonal, config.bound(8))
    return DividedGap(part, word, encoder or (), *parts, epochs, time.perf_counter() - began)


def is_discrete(model: nn.Module, x: Rows) -> bool:
    """Whether a latent is discrete, which annealing and quadrature do not take."""
    args = (x,) if isinstance(x, Tensor) else x[0]
    return any(site.support.is_discrete for site in latents(model, *args).values())


def on_a_plane(model: nn.Module, data: Loader) -> bool:
    """Whether there is one latent vector of one or two real numbers, for which quadrature is exact."""
    sites = list(latents(model, *data.examples).values())
    return len(sites) == 1 and sites[0].shape.numel() <= 2 and not sites[0].support.is_discrete


def shortened(x: Rows, count: int) -> Rows:
    """The data that were reached; batches of several tensors are taken whole, or the measuring ends."""
    if isinstance(x, Tensor):
        return x[:count]
    if count < sum(len(batch[0]) for batch in x):
        raise KeyboardInterrupt
    return x


def measure(config: Config, data: Splits, run: Run, done: list[DividedGap]) -> None:
    """Every guide, then every encoder, into ``done``."""
    layers = encoder_layers(config.setup)
    asked = [("guides", word, layers) for word in config.guides]
    if layers is not None:
        asked += [("encoders", config.guides[0], (width,) * len(layers)) for width in config.encoders]
    for part, word, encoder in asked:
        done.append(found := divided(config, part, word, encoder, data))
        run.log(**found.row)
        print(found, flush=True)
        if not found.complete:
            raise KeyboardInterrupt


def main(config: Config) -> list[dict]:
    study = Study(config)
    check(config)
    data = checked(config)
    run = study.open()
    found: list[DividedGap] = []
    with study.interruptible(found):
        measure(config, data, run, found)
    rows = [one.row for one in found]
    guides, encoders = ([row for row in rows if row["part"] == part] for part in ("guides", "encoders"))
    exact = [row for row in guides if "exact_total" in row]
    tables = [split_table(guides, config.richer)] if guides else []
    tables += [encoder_table(encoders)] if encoders else []
    tables += [exact_table(exact)] if exact else []
    study.show(tables)
    said = verdict(rows)
    run.result(rows=rows, verdict=said)
    title = f"Family or encoder: where does the bound lose on {config.data}?"
    word = word_of(type(config.setup))
    subject = f"{word} with {described(config.setup.model(data.train), data.train)}"
    intro = " ".join([f"p(x, z) is {subject},", INTRO, *left_out(config)])
    study.report(title, intro, tables, said, pictures(found, f"{data.train.name}, {word}"))
    return rows


def check(config: Config) -> None:
    """Raises ValueError where nothing, or the same thing twice, is asked for."""
    if len(set(config.encoders)) < len(config.encoders) or min(config.encoders, default=1) < 1:
        raise ValueError(f"encoders must be different widths of at least 1, got {config.encoders}")
    if config.encoders and encoder_layers(config.setup) == ():
        name = str(config.setup.encoder_layers)
        raise ValueError(
            f"{name} must hold a layer for encoders to set the width of; pass --{name.replace('_', '-')} 100, or no "
            "encoders"
        )
    check_least(config, num_particles=2, temperatures=1)


def checked(config: Config) -> Splits:
    """The data, once every guide has been found to have a family that can be set free of the encoder."""
    data = data_of(config)
    for word in config.guides:
        model, guide = fresh_pair(config.setup, data.train, config.family(word))
        if not is_plain(guide):
            raise ValueError(
                f"guides: {word} draws from more than features of x, so that its family cannot be set free of the "
                "encoder and its gap not be divided; leave it out"
            )
        requirements(model, guide, config.bound(1), *data.train.examples)
    for line in left_out(config):
        print(line, flush=True)
    return data


def left_out(config: Config) -> list[str]:
    """What cannot be done with this model, in sentences."""
    if config.encoders and encoder_layers(config.setup) is None:
        word = word_of(type(config.setup))
        return [f"Encoders are not compared: {word} names no option that holds its encoder's hidden layers."]
    return []


if __name__ == "__main__":
    start(main, Config, "gaps")
