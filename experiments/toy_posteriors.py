"""Which shapes can each family of guides take? Four energies on the plane, and a VAE of four data points."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyro
import torch
from torch import Tensor, nn

from dlvm.distributions import Bernoulli
from dlvm.experiments.measures.draws import elbo_of
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.experiments.measures.toy_targets import CORNERS, FLOOR, LATENTS, POINTS, TARGETS, best_diagonal, diagonal_elbo
from dlvm.experiments.options.command_line import check_different, check_least, start
from dlvm.experiments.options.common import FolderOptions, adam
from dlvm.experiments.options.guides import GUIDES
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table
from dlvm.experiments.study import Study
from dlvm.guides import latents
from dlvm.inference import ELBO, SVI, Objective, linear, tempered
from dlvm.models import VAE
from dlvm.nets import MLP

FAMILIES: dict[str, tuple[str, dict[str, int]]] = {  # by the word for it: a label, and what it is made with
    "diagonal": ("Diagonal", {}),
    "full_rank": ("FullRank", {}),
    "mixture": ("Mixture of 8", {"components": 8}),
    "planar": ("Planar, 8", {"depth": 8}),
    "radial": ("Radial, 8", {"depth": 8}),
    "sylvester": ("Sylvester, 4", {"depth": 4}),
    "iaf": ("IAF, 4", {"depth": 4, "width": 32}),
    "real_nvp": ("RealNVP, 6", {"depth": 6, "width": 32}),
    "spline": ("Spline, 2", {"depth": 2, "width": 32}),
}
Family = Literal["diagonal", "full_rank", "mixture", "planar", "radial", "sylvester", "iaf", "real_nvp", "spline"]

INTRO = (
    "Energies: q(z) is fitted to p(z) = exp(-U(z)) / Z, without data, by maximising E_q[-U - log q] <= log Z; the "
    "difference is KL(q || p). log Z is by Simpson's rule over the whole plane; U2, U3 and U4, which do not grow with "
    "z₁, have z₁²/8 added. Each family is fitted from every starting temperature and the highest bound is kept. A "
    "number behind a family's name counts its steps or components.\n\n"
    "Four points: p(z) p(x | z) with a latent plane and four Bernoulli bits; x is one of the four one-hot vectors, and "
    "model and guide are trained together. log p(x) is by a grid. No model exceeds -log 4. With the best of all "
    "decoders, four equal Gaussians in the corners reach -1.797; diagonal Gaussians do better in other layouts, the "
    "best found being four parallel stripes.\n\n"
    "Variational Inference with Normalizing Flows (arXiv:1505.05770); Improved Variational Inference with Inverse "
    "Autoregressive Flow (arXiv:1606.04934)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions):
    """Fit every family of guides to the energies U1 to U4 and to a VAE of four data points, and look at the shapes."""

    parts: tuple[Literal["energies", "four_points"], ...] = ("energies", "four_points")
    """What to fit to: densities on the plane, a VAE of four data points."""
    energies: tuple[Literal["U1", "U2", "U3", "U4"], ...] = ("U1", "U2", "U3", "U4")
    """Which energies."""
    families: tuple[Family, ...] = (
        "diagonal", "mixture", "planar", "radial", "sylvester", "iaf", "real_nvp", "spline",
    )  # fmt: skip
    """Families fitted to the energies."""
    four_families: tuple[Family, ...] = ("diagonal", "iaf", "spline")
    """Families fitted to the four points."""
    steps: int = 600
    """Steps of each fit to an energy."""
    num_particles: int = 128
    """Draws of z per step for the energies."""
    temperatures: tuple[float, ...] = (1.0, 10.0)
    """Where fits to an energy start; they end at 1, which is reached half-way. The best fit is kept."""
    four_steps: int = 2500
    """Steps of each fit to the four points."""
    four_particles: int = 16
    """Draws of z per step and datum for the four points."""
    warm_up: float = 0.1
    """Weight of the latent terms with which fits to the four points start; it ends at 1, half-way."""
    seeds: int = 2
    """Fits to the four points per family; the best is kept."""
    hidden: int = 64
    """Width of the decoder's two hidden layers, and of the encoder's one; tanh."""
    lr: float = 0.01
    """Learning rate of Adam for the energies, half of it for the four points; a tenth in the last third of a fit."""
    draws: int = 100_000
    """Draws of z for every reported number and for the histograms."""
    seed: int = 0
    """Of everything."""
    out: Path = Path("runs/toy_posteriors")


def train(
    model: Callable, guide: nn.Module, x: Tensor, steps: int, num_particles: int, beta: float, lr: float
) -> Callable:
    """Maximises the ELBO, with the latent terms' weight going from beta to 1 in the first half; returns the guide."""
    objective: Objective = ELBO(num_particles)
    if beta != 1:
        objective = tempered(objective, linear(beta, 1.0, steps=max(1, steps // 2)))
    svi = SVI(model, guide, adam(lr), objective, steps=steps)
    schedule = torch.optim.lr_scheduler.MultiStepLR(svi.prepare(x), [2 * steps // 3], gamma=0.1)
    for _ in range(steps):
        svi.step(x)
        schedule.step()
    return guide


def fit_energy(config: Config, name: str, family: str, log_z: float) -> tuple[dict, Tensor]:
    """The best of the fits of one family to one energy: its numbers, and draws of shape (config.draws, 2)."""
    target, one, began = TARGETS[name], torch.ones(1, 1), time.perf_counter()
    fits = []
    for temperature in config.temperatures:
        pyro.set_rng_seed(config.seed)
        guide = GUIDES[family](LATENTS, MLP(1, 16, activation=nn.Tanh), **FAMILIES[family][1])
        train(target, guide, one, config.steps, config.num_particles, temperature, config.lr)
        fits.append((elbo_of(target, guide, one, config.draws)[0], temperature, guide))
    _, temperature, guide = max(fits, key=lambda fit: fit[0])
    bound, se = elbo_of(target, guide, one, config.draws)  # by draws that chose nothing
    with torch.no_grad():
        z = guide(torch.ones(config.draws, 1))["z"]
    row = {"energy": name, "family": FAMILIES[family][0], "kl": log_z - bound, "se": se, "bound": bound, "log_z": log_z}
    return row | {"temperature": temperature, "seconds": time.perf_counter() - began}, z


def energies(config: Config, run: Run) -> tuple[list[dict], Table, str]:
    """Every family on every energy: rows, table, sentence."""
    from dlvm.experiments.figures import energy_fits

    rows: list[dict] = []
    draws: dict[str, dict[str, Tensor]] = {}
    for name in config.energies:
        log_z = TARGETS[name].log_z()
        for family in config.families:
            row, z = fit_energy(config, name, family, log_z)
            rows.append(row)
            draws.setdefault(name, {})[row["family"]] = z
            run.log(part="energies", **row)
            print(f"{name}, {row['family']}: KL {row['kl']:.3f}   {row['seconds']:.1f} s", flush=True)
    kl: dict[str, dict[str, float]] = {
        name: {row["family"]: row["kl"] for row in rows if row["energy"] == name} for name in config.energies
    }
    axis = torch.linspace(-4.5, 4.5, 91)
    targets: dict[str, Tensor] = {name: TARGETS[name].over(axis) for name in config.energies}
    context = f"{config.steps} steps of {config.num_particles} draws."
    figure = energy_fits(axis, targets, draws, kl, context)
    run.figure("energies", figure, f"Energies and what each family makes of them. {context}")
    return rows, energy_table(rows, config), energy_claim(kl)


def energy_table(rows: list[dict], config: Config) -> Table:
    """One line a family, one column an energy."""
    by_family: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_family.setdefault(row["family"], {})[row["energy"]] = row
    lines = [
        [family, *((found[n]["kl"], found[n]["se"]) for n in config.energies)]
        + [sum(r["kl"] for r in found.values()) / len(found), sum(r["seconds"] for r in found.values())]
        for family, found in by_family.items()
    ]
    log_z = ", ".join(f"{n} {next(r['log_z'] for r in rows if r['energy'] == n):.4f}" for n in config.energies)
    return Table(
        ["family", *config.energies, "mean KL", "seconds"],
        lines,
        f"KL(q || p) in nats, ± the standard error of {config.draws:,} draws; log Z is {log_z}. The best of fits "
        f"started at temperature {' or '.join(f'{t:g}' for t in config.temperatures)}; seconds are of all fits.",
        dict.fromkeys(config.energies, ".3f") | {"mean KL": ".3f", "seconds": ".1f"},
        {**dict.fromkeys(config.energies, min), "mean KL": min},
    )


def energy_claim(kl: Mapping[str, Mapping[str, float]]) -> str:
    """Who comes closest to each energy, and overall, from the numbers."""
    best = {name: min(found, key=found.__getitem__) for name, found in kl.items()}
    said = ", ".join(f"{name} by {family} (KL {kl[name][family]:.3f})" for name, family in best.items())
    mean = {family: sum(found[family] for found in kl.values()) / len(kl) for family in next(iter(kl.values()))}
    listed = ", ".join(f"{family} {mean[family]:.3f}" for family in sorted(mean, key=mean.__getitem__))
    return f"Closest to the energies: {said}. Mean KL(q || p), nats: {listed}."


def fit_four_points(config: Config, family: str, seed: int) -> tuple[dict, nn.Module, nn.Module]:
    """A model and a guide trained on the four points, and what they are worth."""
    pyro.set_rng_seed(seed)
    model = VAE(2, Bernoulli(MLP(2, config.hidden, config.hidden, 4, activation=nn.Tanh)))
    encoder = MLP(4, config.hidden, activation=nn.Tanh)
    guide = GUIDES[family](latents(model, POINTS), encoder, **FAMILIES[family][1])
    began = time.perf_counter()
    train(model, guide, POINTS, config.four_steps, config.four_particles, config.warm_up, config.lr / 2)
    seconds = time.perf_counter() - began
    elbo, se = elbo_of(model, guide, POINTS, config.draws // 4)
    log_px = densities(model, {}, POINTS, size=301).log_px.mean().item()
    row = {"family": FAMILIES[family][0], "seed": seed, "elbo": elbo, "elbo_se": se, "log_px": log_px}
    return row | {"gap": log_px - elbo, "seconds": seconds}, model, guide


def four_points(config: Config, run: Run) -> tuple[list[dict], Table, str]:
    """Every family on the four points: rows, table, sentence."""
    from dlvm.experiments.figures import four_posteriors

    corners = diagonal_elbo(CORNERS, torch.full((4, 2), 0.5).log()).item()
    references = {"any model": FLOOR, "best diagonal found": best_diagonal(), "diagonal, in corners": corners}
    rows, kept = [], {}
    for family in config.four_families:
        fits = [fit_four_points(config, family, config.seed + i) for i in range(config.seeds)]
        rows += [row for row, *_ in fits]
        best = max(fits, key=lambda fit: fit[0]["elbo"])
        kept[best[0]["family"]] = best
        for row, *_ in fits:
            run.log(part="four_points", **row)
            print(f"{row['family']}, seed {row['seed']}: ELBO {row['elbo']:.3f}   log p(x) {row['log_px']:.3f}")
    truths = {label: densities(model, {}, POINTS, size=151) for label, (_, model, _) in kept.items()}
    with torch.no_grad():
        many = POINTS.repeat_interleave(2000, 0)
        draws = {label: guide(many)["z"].reshape(len(POINTS), -1, 2) for label, (*_, guide) in kept.items()}
    figure = four_posteriors(
        ["".join(str(int(bit)) for bit in x) for x in POINTS],
        draws,
        {label: (found.axes, found.posterior) for label, found in truths.items()},
        {label: (row["elbo"], row["log_px"]) for label, (row, *_) in kept.items()},
        references,
        f"Model and guide trained together, {config.four_steps} steps; the best seed of {config.seeds}.",
    )
    run.figure("four_points", figure, "Four data points: guides, true posteriors, and bounds beside what is known.")
    chosen = [row for row, *_ in kept.values()]
    return rows, four_table(rows, chosen, references), four_claim(chosen, references)


def four_table(rows: Sequence[dict], chosen: Sequence[dict], references: Mapping[str, float]) -> Table:
    """One line a family, its best seed, then what is known."""
    spread = {row["family"]: [r["elbo"] for r in rows if r["family"] == row["family"]] for row in chosen}
    lines = [
        [row["family"], (row["elbo"], row["elbo_se"]), row["log_px"], row["gap"], min(spread[row["family"]])]
        + [row["seconds"]]
        for row in chosen
    ]
    known = [
        [text, *((value, None) if "diagonal" in text else (None, value)), None, None, None]
        for text, value in references.items()
    ]
    columns = ["guide", "ELBO", "log p(x)", "gap", "ELBO of the worst seed", "seconds"]
    return Table(
        columns,
        lines + known,
        "Four data, nats per datum; the seed with the highest ELBO. The last lines are limits: log p(x) of any model, "
        "and the ELBO of diagonal Gaussians under the best of all decoders.",
        dict.fromkeys(columns[1:-1], ".3f") | {"seconds": ".1f"},
    )


def four_claim(chosen: Sequence[dict], references: Mapping[str, float]) -> str:
    """Who passes what a diagonal guide can reach, from the numbers."""
    limit = references["best diagonal found"]
    above = [f"{row['family']} ({row['elbo']:.3f})" for row in chosen if row["elbo"] > limit + 2 * row["elbo_se"]]
    below = [f"{row['family']} ({row['elbo']:.3f})" for row in chosen if row["elbo"] <= limit + 2 * row["elbo_se"]]
    said = f"Four points: the ELBO can be {limit:.3f} with a diagonal guide and {FLOOR:.3f} with any"
    said += f"; above the diagonal limit: {', '.join(above) or 'none'}"
    return said + (f"; not above it: {', '.join(below)}." if below else ".")


PARTS = {"energies": energies, "four_points": four_points}


def main(config: Config) -> dict:
    study = Study(config)
    check(config)
    run = study.open()
    results, tables, said = {}, [], []
    with pyro.get_param_store().scope():
        for part in config.parts:
            results[part], table, sentence = PARTS[part](config, run)
            study.show([table])
            tables.append(table)
            said.append(sentence)
    verdict = " ".join(said)
    run.result(**results, verdict=verdict)
    study.report("Which shapes can each family take?", INTRO, tables, verdict)
    return results


def check(config: Config) -> None:
    """Raises ValueError where nothing, or the same thing twice, is asked for."""
    check_different(config, "parts", "energies", "families", "four_families", "temperatures")
    check_least(config, steps=3, four_steps=3, draws=100)
    if not config.warm_up > 0:
        raise ValueError(f"warm_up must be positive, got {config.warm_up}; 1 for none")


if __name__ == "__main__":
    start(main, Config, "toy_posteriors")
