"""Is a tighter bound a better one to train with? Signal and noise of the gradient, estimator by estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import pyro

from dlvm.experiments.data import Splits, load
from dlvm.experiments.measures.gradient_arms import ESTIMATORS, OTHER_BOUNDS, TOTAL, discrete_arms
from dlvm.experiments.measures.gradient_moments import LIMIT, Group, Setting, curves, measure, measure_against, slope
from dlvm.experiments.measures.gradient_toy import toy
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import FolderOptions, adam
from dlvm.experiments.options.guides import GUIDES, GuideWord
from dlvm.experiments.runs.report import Table
from dlvm.experiments.setups.discrete_vae import DiscreteVAESetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.study import Study
from dlvm.inference import IWAE, VIMCO, fit

INTRO = (
    "SNR = |E g| / sqrt(E |g - E g|²), where g is the gradient of the loss, nats per datum, with respect to all "
    "parameters of a group, on fixed data and with fresh particles each time. |E g|² is estimated without bias, from "
    "inner products of different draws. Unbiased estimators of one gradient share the signal of the least noisy. '<' "
    f"marks an upper limit on what lies within {LIMIT:g} standard errors of zero; slopes are least squares in log-log "
    "over the three largest K.\n\n"
    "Variances are in (nats per datum per unit of parameter)². 'bias' is the distance of the mean from that of the "
    "least noisy unbiased estimator. 'total' is the total derivative; 'score' the score function, with the moving "
    "average of the signal as baseline in 'score, mean'; 'RWS' the wake phase of reweighted wake-sleep, reparametrised "
    "in 'RWS, doubly'. MIWAE and PIWAE split K particles into groups, as many as there are in each; CIWAE is half "
    "ELBO, half IWAE.\n\n"
    "Theory: Tighter Variational Bounds are Not Necessarily Better (arXiv:1802.04537); Doubly Reparameterized Gradient "
    "Estimators for Monte Carlo Objectives (arXiv:1810.04152)."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions):
    """Measure the gradient's signal-to-noise ratio against the number of particles: a toy, a VAE, a discrete VAE."""

    parts: tuple[Literal["toy", "vae", "discrete"], ...] = ("toy", "vae", "discrete")
    """What to measure on: a Gaussian toy with known theory, a trained VAE, a trained VAE with binary latents."""
    repeats: int = 100
    """Gradients drawn for each estimator and number of particles; ratios below about 1 / sqrt(repeats) drown."""
    toy_particles: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Particles per datum on the toy."""
    toy_dim: int = 20
    """Dimensions of the toy's data and latents."""
    toy_data: int = 256
    """Data of the toy; the ratio grows with their square root."""
    perturbation: float = 0.01
    """Standard deviation of the toy's parameters about their optimum."""
    particles: tuple[int, ...] = (1, 4, 16, 64)
    """Particles per datum on the VAE."""
    data: str = "digits"
    """digits, mnist, fashion_mnist, binarized_mnist, or a path to an .npz, .npy or .csv file of grey or binary data."""
    guide: GuideWord = "diagonal"
    """Family of the VAE's q(z | x)."""
    z_dim: int = 8
    """Latent dimensions of the VAE."""
    hidden: tuple[int, ...] = (100,)
    """Hidden layers of the encoders, and in reverse of the decoders; tanh."""
    epochs: int = 30
    """Passes over the training data before gradients are measured."""
    baseline_epochs: int = 10
    """Passes over the training data for baselines to get used to them."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    batch_size: int = 50
    """Data per training step, and in the minibatch whose gradient is measured."""
    bits: int = 16
    """Binary latent variables of the discrete VAE."""
    discrete_particles: int = 5
    """Particles per datum on the discrete VAE, at least 2."""
    temperature: float = 0.5
    """Of the relaxations."""
    reference: int = 10
    """The true gradient of the discrete VAE is the mean of so many times more VIMCO gradients."""
    seed: int = 0
    """Of everything."""
    data_dir: Path | None = None
    """Where the data lie; data/ or ../shared/data unless told."""
    out: Path = Path("runs/estimator_snr")


def trained(config: Config, loaders: Splits, discrete: bool) -> tuple[Setting, float]:
    """A VAE trained by IWAE, with a minibatch of its training data; and its bound on validation data."""
    train, valid = loaders[:2]
    pyro.set_rng_seed(config.seed)
    setup = DiscreteVAESetup(config.bits, config.hidden) if discrete else VAESetup(config.z_dim, config.hidden)
    model, guide = fresh_pair(setup, train, GUIDES[config.guide])
    objective, optimizer = IWAE(5, VIMCO() if discrete else None), adam(config.lr)
    *_, last = fit(model, guide, objective, train, valid, config.epochs, optimizer, seed=config.seed, progress=False)
    groups = [
        Group("decoder", "model", list(model.parameters())),
        Group("encoder", "guide", list(guide.parameters())),
    ]
    again = train.seeded(config.seed)
    return Setting(model, guide, next(iter(again))[0], groups, again), cast(float, last.valid)


def summary(rows: list[dict], caption: str) -> Table:
    """One line per group and estimator: the ratio at each number of particles, its slope, and the last variance."""
    counts = sorted({row["num_particles"] for row in rows})
    ratios = [f"SNR, K = {count}" for count in counts]
    lines = []
    for (group, name), points in curves(rows).items():
        at = {row["num_particles"]: row for row in points}
        shown = [_upper(at[c]["snr"], at[c]["resolved"]) if c in at else "" for c in counts]
        last = points[-1]
        bias = "" if last["bias"] is None else _upper(last["bias"], last["biased"])
        lines.append(
            [group, name, *shown, slope(points), last["theory"], slope(points, "variance"), last["variance"], bias]
            + [1e3 * last["seconds"]]
        )
    end = counts[-1]
    columns = ["parameters", "gradient", *ratios, "SNR slope", "in theory", "variance slope"]
    columns += [f"variance, K = {end}", "bias / signal", "ms"]
    formats = {"SNR slope": "+.2f", "in theory": "+.1f", "variance slope": "+.2f", f"variance, K = {end}": ".1e"}
    return Table(columns, lines, caption, formats | {"ms": ".1f"})


def _upper(value: float, told: bool) -> str:
    """A number to three digits, or as an upper limit."""
    return f"{'' if told else '< '}{value:.3g}"


def summary_discrete(rows: list[dict], caption: str) -> Table:
    """One line per group and estimator: noise and bias in units of the true gradient."""
    lines = [
        [r["group"], r["estimator"], r["noise"], _upper(r["bias"], r["biased"]), r["variance"], r["signal"]]
        for r in sorted(rows, key=lambda row: row["group"])
    ]
    columns = ["parameters", "estimator", "noise / |gradient|", "bias / |gradient|", "variance", "|gradient|"]
    formats = {"noise / |gradient|": ".3g", "variance": ".2e", "|gradient|": ".2e"}
    return Table(columns, lines, caption, formats)


def claim(rows: list[dict], where: str) -> str:
    """What adding particles does to the guide's and the model's gradient, in a sentence made from the numbers."""
    found = curves(rows)
    guide = [row["group"] for row in rows if row["program"] == "guide"][-1]
    model = next(row["group"] for row in rows if row["program"] == "model")

    def course(group: str, name: str) -> str:
        points = found[group, name]
        first, last, rate = points[0], points[-1], slope(points)
        ends = f"{_upper(first['snr'], first['resolved'])} to {_upper(last['snr'], last['resolved'])}"
        return f"{ends} under {name}" + ("" if rate is None else f" (slope {rate:+.2f})")

    total = found[guide, TOTAL]
    first, last = total[0], total[-1]
    return (
        f"{where}: a tighter bound is {'not ' if last['snr'] < first['snr'] else ''}better for training the guide by "
        f"its total derivative. From K = {first['num_particles']} to {last['num_particles']} the signal-to-noise ratio "
        f"of {guide} goes from {course(guide, TOTAL)} and from {course(guide, 'DReG')}; that of {model} from "
        f"{course(model, TOTAL)}."
    )


def claim_discrete(rows: list[dict]) -> str:
    """Who is biased and who is least noisy, from the numbers."""
    own = [row for row in rows if row["group"] == "encoder"]
    biased = [f"{row['estimator']} ({row['bias']:.0%} of the gradient)" for row in own if row["biased"]]
    fair = sorted((row for row in own if not row["biased"]), key=lambda row: row["noise"])
    said = f"Binary latents: bias is found in {' and '.join(biased) if biased else 'none'}"
    if len(fair) > 1:
        said += f"; of the others {fair[0]['estimator']} is the least noisy, with a variance "
        said += f"{(fair[-1]['noise'] / fair[0]['noise']) ** 2:,.0f} times smaller than {fair[-1]['estimator']}"
    return said + "."


def against_particles(
    part: str, setting: Setting, counts: Sequence[int], context: str, config: Config, study: Study
) -> tuple[list[dict], list[Table], str]:
    """Measures, draws and tabulates one setting: its rows, its tables, its sentence."""
    from dlvm.experiments.figures import signal_to_noise

    arms = ESTIMATORS + OTHER_BOUNDS
    rows = measure(setting, arms, sorted(counts), config.repeats, config.baseline_epochs, config.seed)
    for row in rows:
        study.run.log(part=part, **row)
    others = {arm.name for arm in OTHER_BOUNDS}
    bounds = [row | {"estimator": "IWAE"} if row["estimator"] == TOTAL else row for row in rows]
    shown = {
        "estimators": ([row for row in rows if row["estimator"] not in others], "one bound, IWAE, and the wake phase"),
        "bounds": ([row for row in bounds if row["estimator"] in {"IWAE", *others}], "four bounds, total derivative"),
    }
    tables = []
    for name, (chosen, what) in shown.items():
        caption = f"{context}: {what}; {config.repeats} gradients each."
        study.run.figure(f"{part}_{name}", signal_to_noise(chosen, context), caption)
        tables.append(summary(chosen, caption))
        study.show(tables[-1:])
    return rows, tables, claim(rows, context.split(",")[0])


def on_discrete(setting: Setting, bound: float, config: Config, study: Study) -> tuple[list[dict], list[Table], str]:
    """Measures, draws and tabulates estimators for discrete sites, against the mean of many VIMCO gradients."""
    from dlvm.experiments.figures import bias_and_noise

    arms = discrete_arms(config.discrete_particles, config.temperature, setting.x.shape[1], config.bits)
    how = (config.reference, config.repeats, config.baseline_epochs, config.seed)
    rows = measure_against(setting, arms, "VIMCO", *how)
    rows = [row | {"num_particles": config.discrete_particles} for row in rows]
    for row in rows:
        study.run.log(part="discrete", **row)
    context = f"{config.bits} binary latents on {config.data}, K = {config.discrete_particles}"
    caption = (
        f"{context}, {config.epochs} epochs, validation bound {bound:.2f} nats per datum; {config.repeats} "
        f"gradients each; the true one is the mean of {config.repeats * config.reference} VIMCO gradients."
    )
    study.run.figure("discrete", bias_and_noise(rows, context), caption)
    table = summary_discrete(rows, caption)
    study.show([table])
    return rows, [table], claim_discrete(rows)


def parts(config: Config, loaders: Splits, study: Study) -> dict[str, tuple[list[dict], list[Table], str]]:
    """What is asked for, in this order: rows, tables and sentence of each."""
    found = {}
    if "toy" in config.parts:
        setting = toy(config.toy_dim, config.toy_data, config.perturbation, config.seed)
        context = f"Gaussian toy, {config.toy_dim} dimensions, {config.toy_data} data"
        found["toy"] = against_particles("toy", setting, config.toy_particles, context, config, study)
    if "vae" in config.parts:
        setting, bound = trained(config, loaders, discrete=False)
        context = f"VAE on {config.data}, {config.epochs} epochs, validation bound {bound:.2f} nats per datum"
        found["vae"] = against_particles("vae", setting, config.particles, context, config, study)
    if "discrete" in config.parts:
        setting, bound = trained(config, loaders, discrete=True)
        found["discrete"] = on_discrete(setting, bound, config, study)
    return found


def main(config: Config) -> dict:
    study = Study(config)
    check(config)
    loaders = load(config.data, batch_size=config.batch_size, data_dir=config.data_dir)
    run = study.open()
    found = parts(config, loaders, study)
    results = {part: rows for part, (rows, _, _) in found.items()}
    verdict = " ".join(said for *_, said in found.values())
    run.result(**results, verdict=verdict)
    tables = [table for _, tables, _ in found.values() for table in tables]
    study.report("Is a tighter bound a better one to train with?", INTRO, tables, verdict)
    return results


def check(config: Config) -> None:
    """Raises ValueError where a setting cannot be measured."""
    if not config.parts or len(set(config.parts)) < len(config.parts):
        raise ValueError(
            f"parts must name one of toy, vae, discrete, and none twice, got {config.parts}; leave it out for all"
        )
    if config.repeats < 10:
        raise ValueError(f"repeats must be at least 10 to tell signal from noise, got {config.repeats}")
    for name in ("particles", "toy_particles"):
        counts = getattr(config, name)
        if max(counts, default=0) < 2 or min(counts) < 1 or len(set(counts)) < len(counts):
            raise ValueError(
                f"{name} must be different positive numbers, one of them at least 2, as 1 4 16, got {counts}"
            )
    if config.discrete_particles < 2:
        raise ValueError(
            f"discrete_particles must be at least 2 (VIMCO compares particles), got {config.discrete_particles}"
        )


if __name__ == "__main__":
    start(main, Config, "estimator_snr")
