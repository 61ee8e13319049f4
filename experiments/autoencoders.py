"""What does the bound buy? Autoencoders, their regularised and adversarial relatives, and the VAE, by what they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import pyro
from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.generated.ex_post import with_density, with_flow
from dlvm.experiments.generated.measured import MOST, Later, measured
from dlvm.experiments.generated.outside import OUTSIDE, Sizes, outside_of
from dlvm.experiments.generated.two_samples import FEWEST
from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import DataOptions, EvaluationOptions, adam
from dlvm.experiments.options.guides import denoising
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.recipe import data_of
from dlvm.experiments.runs.report import Table, counted
from dlvm.experiments.setups.named import word_of
from dlvm.experiments.setups.options import ModelOptions
from dlvm.experiments.setups.pictures import described
from dlvm.experiments.setups.setup import Setup, check_x_alone, fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Answer, Picture, Study
from dlvm.experiments.sweeps.cells import Cell, Done, fingerprints, states
from dlvm.guides import Diagonal, Point
from dlvm.inference import ELBO, Objective, Reconstruction, fit
from dlvm.inference.programs.randomness import untouched
from dlvm.models import VAE
from dlvm.nets import SpectralLinear

Way = Literal["ae", "dae", "cae", "rae", "rae_sn", "wae", "vae", "mmd_vae", "info_vae", "aae", "vae_gan", "ali"]
LABELS: dict[Way, str] = {
    "ae": "autoencoder",
    "dae": "denoising",
    "cae": "contractive",
    "rae": "RAE",
    "rae_sn": "RAE, spectral",
    "wae": "WAE-MMD",
    "vae": "VAE",
    "mmd_vae": "MMD-VAE",
    "info_vae": "InfoVAE",
    "aae": "adversarial AE",
    "vae_gan": "VAE-GAN",
    "ali": "ALI",
}
POINTS = ("ae", "dae", "cae", "rae", "rae_sn", "wae")
EX_POST = {"mixture": "a mixture of Gaussians", "flow": "a flow"}
TESTS = ("told_prior", "told_ex_post", "hole")
INTRO = (
    "Each has the same encoder and decoder, data and steps. Guides of points (autoencoder to WAE) have no entropy, and "
    "so no bound. What is trained is the ELBO for the VAE alone: of the others no number here was raised as a bound on "
    "log p(x), which is that of p and q as they came out, by importance samples. Where q is a point, marked *, p(z) is "
    "{} fitted to the codes of training data afterwards, and q a diagonal Gaussian fitted to that "
    "model, whose parameters are held."
)


@dataclasses.dataclass(frozen=True)
class Config(SweepOptions, EvaluationOptions, ModelOptions, DataOptions):
    """Train one encoder and decoder by twelve objectives, and compare reconstructions, samples, codes and features."""

    ways: tuple[Way, ...] = tuple(LABELS)
    """ae, a guide of points without a rate; dae, of corrupted data; cae, contractive; rae, small codes and a decoder
    penalised by its gradient; rae_sn, and a decoder whose layers lengthen nothing; wae, points matched by MMD; vae;
    mmd_vae and info_vae, the codes of all data matched by MMD; aae, by a discriminator; vae_gan, with a discriminator
    of data; ali, by a discriminator of both alone."""
    setup: Setup = VAESetup(8, (100, 100))
    ex_post: Literal["mixture", "flow"] = "mixture"
    """The density that is fitted to codes: a mixture of Gaussians by EM, or a flow by maximum likelihood."""
    gaussians: int = 10
    """Gaussians of the mixture that is fitted to codes."""
    seeds: int = 2
    """Runs of each."""
    epochs: int = 60
    """Passes over the training data, the same for all; the last parameters are taken."""
    lr: float = 1e-3
    """Learning rate of Adam, of discriminators too."""
    batch_size: int = 100
    """Data per step."""
    eval_particles: int = 500
    """Importance samples per test datum."""
    out: Path = Path("runs/autoencoders")


def objective_of(way: Way, x_dim: int, z_dim: int) -> Objective:
    """What is maximised, with a discriminator of its own if it has one."""

    if way in OUTSIDE:
        return outside_of(way, Sizes(x_dim, z_dim))
    made: dict[Way, Callable[[], Objective]] = {
        "dae": Reconstruction,
        "rae_sn": lambda: Reconstruction(code=0.1),
        "vae": ELBO,
    }
    return made[way]()


def pair(config: Config, way: Way, train: Loader) -> tuple[VAE, nn.Module]:
    """A fresh model and guide."""

    def family(sites: Any, encoder: nn.Module) -> nn.Module:
        return denoising(sites, encoder) if way == "dae" else (Point if way in POINTS else Diagonal)(sites, encoder)

    model, guide = fresh_pair(config.setup, train, family)
    if way == "rae_sn":
        lengthen_nothing(model)
    return cast(VAE, model), guide


def lengthen_nothing(model: nn.Module) -> None:
    """Lets every linear layer of a decoder be divided by its largest singular value."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                bounded = SpectralLinear(layer.in_features, layer.out_features).to(layer.weight)
                bounded.load_state_dict(layer.state_dict(), strict=False)
                setattr(parent, name, bounded)


def trained(config: Config, way: Way, seed: int) -> Done:
    """Trains a pair, and takes all measures of it."""
    data = data_of(config)
    train = data.train
    pyro.set_rng_seed(seed)
    model, guide = pair(config, way, train)
    z_dim = model.prior().event_shape[0]
    objective = objective_of(way, train.x_dim, z_dim).to(train.device)
    settings: dict[str, Any] = {"seed": seed, "progress": False, "engine": "captured"}
    for _ in fit(model, guide, objective, train, None, config.epochs, adam(config.lr), **settings):
        pass
    pyro.set_rng_seed(seed)
    density = with_flow if config.ex_post == "flow" else partial(with_density, components=config.gaussians)
    later = Later(
        lambda *found: density(found[0], found[1], seed=found[2]),
        config.setup.encoder(train),
        config.epochs,
        config.eval_particles,
        seed,
    )
    found, tensors = measured(model, guide, data, later)
    return Done({"way": way, "seed": seed, "point": way in POINTS} | found, states(model, guide) | tensors)


def cells(config: Config, data: Splits) -> list[Cell]:
    """Every way with every seed."""
    checksums = fingerprints(data)
    return [
        Cell(f"{way} / seed {seed}", trained, config, {"way": way, "seed": seed}, checksums)
        for seed, way in product(range(config.seeds), config.ways)
    ]


def told(row: dict) -> str:
    return f"reconstruction {row['reconstruction']:.2f}   samples told {row['told_prior']:.3f}"


def tables(done: list[Done], config: Config) -> list[Table]:
    """What each generates; and what its codes are, and its bound, where it has one."""
    runs = over_seeds([one.record for one in done], "way")
    of, n = counted(config.seeds, "seed"), done[0].record["rows"]
    generated, known = [], []
    for (way,), each in runs.items():
        error = {name: (sum(v**2 for v in each.all(f"{name}_se")) ** 0.5) / len(each.rows) for name in TESTS}
        shares = [each.mean(f"{kind}_{word}") for word in ("prior", "ex_post") for kind in ("precision", "recall")]
        tests = [(each.mean(name), error[name]) for name in TESTS]
        generated.append([LABELS[way], *tests[:2], *shares])
        star = " *" if each.first["point"] else ""
        probed = None if each.first["probe"] is None else each.mean("probe")
        numbers = [each.mean("reconstruction"), tests[2], each.mean("mmd"), probed]
        known.append([LABELS[way] + star, *numbers, (each.log_px, each.log_px_se), each.mean("khat_bad")])
    two = ["told, p(z)", "told, ex post", "precision, p(z)", "recall, p(z)", "precision, ex post", "recall, ex post"]
    rest = ["E log p(x | z)", "hole", "MMD", "probe", "log p(x)", "k-hat > 0.7"]
    return [
        Table(
            ["objective", *two],
            generated,
            f"Draws of x against {n} test data, means over {of}. Told: held-out accuracy of a net that tells them "
            "apart, 0.5 where nothing does. Precision, recall: shares of draws among data and of data among draws, in "
            "20 principal components. p(z): from the model's own prior; ex post: from the density fitted to codes.",
            dict.fromkeys(two, ".3f"),
            dict.fromkeys(two[:2], min) | dict.fromkeys(two[2:], max),
        ),
        Table(
            ["objective", *rest],
            known,
            f"Test data, nats per datum, means over {of}. Hole: accuracy by which codes are told from draws of p(z). "
            f"Probe: accuracy of a linear classifier on codes. log p(x) by {config.eval_particles} importance samples; "
            "*: of the density of codes for p(z) and a Gaussian guide fitted afterwards, since points give none.",
            dict.fromkeys(rest, ".3f") | {"E log p(x | z)": ".2f", "log p(x)": ".2f", "MMD": ".4f"},
            {"E log p(x | z)": max, "probe": max, "log p(x)": max},
        ),
    ]


def verdict(done: list[Done]) -> str:
    """Who reconstructs, generates and knows best; and that only one of them was trained by a bound."""
    runs = {way: each for (way,), each in over_seeds([one.record for one in done], "way").items()}

    def best(name: str, choose: Callable = max) -> str:
        way = choose(runs, key=lambda each: runs[each].mean(name))
        star = " *" if name == "log_px" and runs[way].first["point"] else ""
        return f"{LABELS[way]}{star} ({runs[way].mean(name):.3f})"

    said = (
        f"Best reconstruction: {best('reconstruction')}; samples from p(z) least told from data: "
        f"{best('told_prior', min)}, from a density of codes: {best('told_ex_post', min)}; smallest hole of the prior: "
        f"{best('hole', min)}; highest log p(x): {best('log_px')}."
    )
    others = [LABELS[way] for way in runs if way != "vae"]
    return said + (f" Trained outside the bound: {', '.join(others)}." if others else "")


def pictures(done: list[Done], train: Loader) -> Iterator[Picture]:
    """What each generates from its prior, and from the density of its codes."""
    from dlvm.experiments.figures import samples

    for name, where in (("dreams_prior", "p(z)"), ("dreams_ex_post", "a density fitted to codes")):
        drawn = {LABELS[one.record["way"]]: one.tensors[name] for one in done if one.record["seed"] == 0}
        note = f"Means of p(x | z), z from {where}."
        yield name, samples(drawn, train.image_shape, train.name, "What each generates", note), f"{note} Seed 0."


def checked(config: Config) -> Splits:
    """The data, once everything asked for has been found to work."""
    if type(config.setup) is not VAESetup:
        raise ValueError(f"model must be vae here, got {word_of(type(config.setup))}; leave out --model")
    if config.ex_post == "flow" and config.setup.z_dim < 2:
        raise ValueError(
            f"z_dim must be at least 2 for a flow of codes, got {config.setup.z_dim}; pass --ex-post mixture"
        )
    if config.setup.prior != "standard":
        raise ValueError("prior is N(0, I) here, which codes are held to, or are not; leave out --prior")
    check_x_alone(config.setup)
    data = data_of(config)
    if data.train.has_missing:
        raise ValueError("data have missing entries, which no discriminator can be shown; fill them first")
    if min(len(part.first(MOST)) for part in data) < FEWEST:
        raise ValueError(f"data must have at least {FEWEST} rows in each part, to tell samples apart; pass more")
    for way in config.ways:
        model, guide = pair(config, way, data.train)
        objective = objective_of(way, data.train.x_dim, model.prior().event_shape[0])
        with untouched():
            objective.to(data.train.device).loss_and_grads(model, guide, *data.train.examples)
    return data


def main(config: Config) -> list[dict]:
    study = Study(config)
    data = checked(config)  # what cannot work is found before a folder is made

    def answer(done: list[Done]) -> Answer:
        pairs = (pair(config, one.record["way"], data.train) for one in done)
        study.keep(done, ("way", "seed"), pairs, data.train.x_dim)
        model, _ = pair(config, "vae", data.train)
        intro = f"p(x, z) is a VAE with {described(model, data.train)}. {INTRO.format(EX_POST[config.ex_post])}"
        title, drawn = f"What does the bound buy on {config.data}?", pictures(done, data.train)
        return Answer(title, intro, tables(done, config), verdict(done), drawn)

    return study.compare(cells(config, data), told, answer)


if __name__ == "__main__":
    start(main, Config, "autoencoders")
