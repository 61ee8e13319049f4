"""Is a tighter bound a better one to train with? Signal and noise of the gradient, estimator by estimator."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pyro
import pyro.distributions as dist
import torch
import tyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.experiments.data import Loader, load
from dlvm.experiments.figures import bias_and_noise, signal_to_noise
from dlvm.experiments.figures.signal_to_noise import slope
from dlvm.experiments.measures.gradient_moments import (
    LIMIT,
    Arm,
    Group,
    Setting,
    accustom,
    distance,
    gradients,
    measure,
    moments,
)
from dlvm.experiments.options import guides
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table, print_table
from dlvm.experiments.setups import vae
from dlvm.guides import latents
from dlvm.inference import (
    CIWAE,
    IWAE,
    MIWAE,
    NVIL,
    PIWAE,
    RWS,
    STL,
    VIMCO,
    DReG,
    GumbelSoftmax,
    MovingAverage,
    Objective,
    ScoreFunction,
    StraightThrough,
    fit,
)
from dlvm.models import VAE
from dlvm.nets import MLP

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
class Config:
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
    guide: guides.GuideWord = "diagonal"
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
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder."""


def square(particles: int) -> tuple[int, int]:
    """Groups and particles in each, as near to equal as the number allows."""
    groups = max(n for n in range(1, math.isqrt(particles) + 1) if particles % n == 0)
    return groups, particles // groups


TOTAL = "total"
ESTIMATORS = (
    Arm(TOTAL, IWAE, "IWAE", (0.5, -0.5)),
    Arm("DReG", lambda k: IWAE(k, DReG()), "IWAE", (0.5, 0.5)),
    Arm("STL", lambda k: IWAE(k, STL()), "IWAE", (0.5, None), biased_guide=True),
    Arm("VIMCO", lambda k: IWAE(k, VIMCO(everywhere=True)), "IWAE", (0.5, None), least=2),
    Arm("score", lambda k: IWAE(k, ScoreFunction(everywhere=True)), "IWAE", (0.5, None)),
    Arm("score, mean", lambda k: IWAE(k, ScoreFunction(MovingAverage(), True)), "IWAE", (0.5, None)),
    Arm("RWS", RWS, "RWS", (0.5, None), least=2),
    Arm("RWS, doubly", lambda k: RWS(k, doubly=True), "RWS", (0.5, None), least=2),
)
OTHER_BOUNDS = (
    Arm("MIWAE", lambda k: MIWAE(*square(k)), "MIWAE", (0.5, 0.0)),
    Arm("PIWAE", lambda k: PIWAE(*square(k)), "PIWAE", (0.5, 0.0)),
    Arm("CIWAE", lambda k: CIWAE(0.5, k), "CIWAE", (0.5, 0.5)),
)


class Toy(PyroModule):
    """z ~ N(loc, I), x | z ~ N(z, I)."""

    def __init__(self, loc: Tensor):
        super().__init__("model")
        self.loc = nn.Parameter(loc)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class ToyGuide(PyroModule):
    """q(z | x) = N(weight x + bias, 2/3 I), where the posterior's variance is 1/2."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__("guide")
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.weight.T + self.bias, math.sqrt(2 / 3)).to_event(1))


class FairBits(nn.Module):
    """p(z) of independent fair bits."""

    def __init__(self, bits: int):
        super().__init__()
        self.register_buffer("logits", torch.zeros(bits))

    def forward(self) -> dist.Distribution:
        return dist.Bernoulli(logits=self.logits).to_event(1)


def toy(config: Config) -> Setting:
    """The Gaussian toy of Rainforth et al. (arXiv:1802.04537) near its optimum."""
    pyro.set_rng_seed(config.seed)
    dim, near = config.toy_dim, partial(torch.normal, std=config.perturbation)
    x = torch.randn(dim) + math.sqrt(2) * torch.randn(config.toy_data, dim)
    model, guide = Toy(near(x.mean(0))), ToyGuide(near(torch.eye(dim) / 2), near(x.mean(0) / 2))
    groups = [
        Group("μ (model)", "model", [model.loc]),
        Group("A (guide)", "guide", [guide.weight]),
        Group("b (guide)", "guide", [guide.bias]),
    ]
    return Setting(model, guide, x, groups, [(x,)] * 5)


def trained(config: Config, loaders: Sequence[Loader], discrete: bool) -> tuple[Setting, float]:
    """A VAE trained by IWAE, with a minibatch of its training data; and its bound on validation data."""
    train, valid = loaders[:2]
    pyro.set_rng_seed(config.seed)
    z_dim = config.bits if discrete else config.z_dim
    likelihood = vae.bernoulli(z_dim, config.hidden[::-1], train.x_dim, nn.Tanh, train.mean)
    model = VAE(z_dim, likelihood, FairBits(z_dim) if discrete else None)
    encoder = MLP(train.x_dim, *config.hidden, activation=nn.Tanh)
    guide = guides.GUIDES[config.guide](latents(model, train.example), encoder)
    objective = IWAE(5, VIMCO() if discrete else None)
    adam = partial(torch.optim.Adam, lr=config.lr, fused=True)
    *_, last = fit(model, guide, objective, train, valid, config.epochs, adam, seed=config.seed, progress=False)
    groups = [
        Group("decoder", "model", list(model.parameters())),
        Group("encoder", "guide", list(guide.parameters())),
    ]
    again = train.seeded(config.seed)
    return Setting(model, guide, next(iter(again))[0], groups, again), last.valid


def discrete_arms(config: Config, x_dim: int) -> dict[str, Callable[[], Objective]]:
    """Every estimator for sites that cannot be reparametrised."""
    bound, hot = partial(IWAE, config.discrete_particles), config.temperature
    return {
        "score function": lambda: bound(ScoreFunction()),
        "score function, moving average": lambda: bound(ScoreFunction(MovingAverage())),
        "score function, NVIL": lambda: bound(ScoreFunction(NVIL(MLP(x_dim, 50, 1)))),
        "VIMCO": lambda: bound(VIMCO()),
        "Gumbel-softmax": lambda: bound(GumbelSoftmax(hot)),
        "straight-through": lambda: bound(StraightThrough(hot)),
    }


def measure_discrete(setting: Setting, config: Config) -> list[dict]:
    """Bias and noise of each estimator for discrete sites, against the mean of many VIMCO gradients."""
    arms = discrete_arms(config, setting.x.shape[1])
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(config.seed + 1)
        many = gradients(arms["VIMCO"](), setting, config.reference * config.repeats)
    true = {name: found.unflatten(0, (config.repeats, -1)).mean(1) for name, found in many.items()}
    rows = []
    for name, make in arms.items():
        pyro.set_rng_seed(config.seed)
        objective = make()
        with pyro.get_param_store().scope():
            accustom(objective, setting, config.baseline_epochs)
            pyro.set_rng_seed(config.seed)
            draws = gradients(objective, setting, config.repeats)
        for group, found in draws.items():
            norm, variance = moments(true[group]).norm, moments(found).variance
            bias, biased = distance(found, true[group], norm)
            noise = math.sqrt(variance) / norm
            rows.append(
                {"group": group, "estimator": name, "noise": noise, "bias": bias, "biased": biased}
                | {"variance": variance, "signal": norm, "num_particles": config.discrete_particles}
            )
    return rows


def curves(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Rows of one group and estimator together."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["group"], row["estimator"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: [row["group"] for row in rows].index(item[0][0])))


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
    part: str, setting: Setting, counts: Sequence[int], context: str, config: Config, run: Run
) -> tuple[list[dict], list[Table], str]:
    """Measures, draws and tabulates one setting: its rows, its tables, its sentence."""
    arms = ESTIMATORS + OTHER_BOUNDS
    rows = measure(setting, arms, sorted(counts), config.repeats, config.baseline_epochs, config.seed)
    for row in rows:
        run.log(part=part, **row)
    others = {arm.name for arm in OTHER_BOUNDS}
    bounds = [row | {"estimator": "IWAE"} if row["estimator"] == TOTAL else row for row in rows]
    shown = {
        "estimators": ([row for row in rows if row["estimator"] not in others], "one bound, IWAE, and the wake phase"),
        "bounds": ([row for row in bounds if row["estimator"] in {"IWAE", *others}], "four bounds, total derivative"),
    }
    tables = []
    for name, (chosen, what) in shown.items():
        caption = f"{context}: {what}; {config.repeats} gradients each."
        run.figure(f"{part}_{name}", signal_to_noise(chosen, context), caption)
        tables.append(summary(chosen, caption))
        print_table(tables[-1])
    return rows, tables, claim(rows, context.split(",")[0])


def main(config: Config) -> dict:
    started = time.perf_counter()
    torch.set_num_threads(1)
    check(config)
    loaders = load(config.data, batch_size=config.batch_size, data_dir=config.data_dir)
    run = Run(config.out, dataclasses.asdict(config), overwrite=config.overwrite)
    results, tables, said = {}, [], []
    if "toy" in config.parts:
        context = f"Gaussian toy, {config.toy_dim} dimensions, {config.toy_data} data"
        found = against_particles("toy", toy(config), config.toy_particles, context, config, run)
        results["toy"], tables, said = found[0], tables + found[1], [*said, found[2]]
    if "vae" in config.parts:
        setting, bound = trained(config, loaders, discrete=False)
        context = f"VAE on {config.data}, {config.epochs} epochs, validation bound {bound:.2f} nats per datum"
        found = against_particles("vae", setting, config.particles, context, config, run)
        results["vae"], tables, said = found[0], tables + found[1], [*said, found[2]]
    if "discrete" in config.parts:
        setting, bound = trained(config, loaders, discrete=True)
        results["discrete"] = rows = measure_discrete(setting, config)
        for row in rows:
            run.log(part="discrete", **row)
        context = f"{config.bits} binary latents on {config.data}, K = {config.discrete_particles}"
        caption = (
            f"{context}, {config.epochs} epochs, validation bound {bound:.2f} nats per datum; {config.repeats} "
            f"gradients each; the true one is the mean of {config.repeats * config.reference} VIMCO gradients."
        )
        run.figure("discrete", bias_and_noise(rows, context), caption)
        tables, said = [*tables, summary_discrete(rows, caption)], [*said, claim_discrete(rows)]
        print_table(tables[-1])
    verdict = " ".join(said)
    run.result(**results, verdict=verdict)
    report = run.report("Is a tighter bound a better one to train with?", INTRO, tables, verdict)
    print(verdict)
    print(f"{time.perf_counter() - started:.0f} s; report: {report}")
    return results


def check(config: Config) -> None:
    """Raises ValueError where a setting cannot be measured."""
    check_options(config)
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
