"""Which estimator is exact for which objective? The expectation of every gradient, by quadrature and enumeration."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

from dlvm.experiments.data import load
from dlvm.experiments.measures.exact_gradients import Bed
from dlvm.experiments.measures.gradient_arms import RUNS, Stage, noise_of_estimators
from dlvm.experiments.measures.gradient_moments import Group, Setting
from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import adam
from dlvm.experiments.options.guides import GUIDES, own
from dlvm.experiments.setups.discrete_vae import DiscreteVAESetup
from dlvm.experiments.setups.sbn import SBNSetup
from dlvm.experiments.setups.setup import Setup, fresh_pair
from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    NVIL,
    PIWAE,
    REBAR,
    RELAX,
    STL,
    TVO,
    VIMCO,
    DisARM,
    DReG,
    GumbelRao,
    GumbelSoftmax,
    Objective,
    Renyi,
    ScoreFunction,
    StraightThrough,
    Total,
    VRMax,
    check,
    fit,
)
from dlvm.nets import MLP

DOCUMENT = Path(__file__).parent.parent / "docs" / "objectives.md"
NOISE = (
    "Variance of the gradient of the ELBO, summed over the parameters of a program, as a share of VIMCO's, at "
    f"{RUNS} runs of both programs for each gradient; bias, where it is told from zero, as a share of the gradient's "
    "length. Digits, 16 bits (`discrete_vae`) and layers of 16 and 8 bits (`sbn`), as they start and after 10 epochs:"
)
SETUPS: dict[str, tuple[Setup, str, int, int]] = {  # with the family of the guide, the layers and the bits
    "one layer": (DiscreteVAESetup(16), "diagonal", 1, 16),
    "two layers": (SBNSetup((16, 8)), "own", 2, 24),
}
EXACT = (1e-9, 1e-6, 1e-3, 1e-2)

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "ELBO": partial(ELBO, 2),
    "IWAE": partial(IWAE, 2),
    "Renyi(0.5)": partial(Renyi, 0.5, 2),
    "Renyi(-1)": partial(Renyi, -1.0, 2),
    "VRMax": partial(VRMax, 2),
    "MIWAE": partial(MIWAE, 2, 2),
    "PIWAE": partial(PIWAE, 2, 2),
    "CIWAE(0.3)": partial(CIWAE, 0.3, 2),
    "TVO": partial(TVO, 2, 3, 0.1),
    "CUBO(2)": partial(CUBO, 2.0, 2),
}
CONTINUOUS: dict[str, Callable] = {
    "`Total`": Total,
    "`STL`": STL,
    "`DReG`": DReG,
    "`ScoreFunction`": partial(ScoreFunction, everywhere=True),
    "`VIMCO`": partial(VIMCO, everywhere=True),
}
DISCRETE: dict[str, Callable] = {
    "`Total`, `STL`, `DReG`": Total,
    "`ScoreFunction`": ScoreFunction,
    "`ScoreFunction(NVIL)`": lambda: ScoreFunction(NVIL(MLP(2, 4, 1).double())),
    "`VIMCO`": VIMCO,
    "`DisARM`": DisARM,
    "`REBAR`": REBAR,
    "`RELAX`": lambda: RELAX(MLP(4, 4, 1, activation=nn.Tanh).double()),
    "`GumbelSoftmax`": GumbelSoftmax,
    "`StraightThrough`": StraightThrough,
    "`GumbelRao`": GumbelRao,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Write the table of objectives and estimators into the documentation."""

    out: Path = DOCUMENT
    """Markdown file; what stands between <!-- table --> and <!-- end of table -->, and likewise noise, is replaced."""


@cache
def truth(make: Callable[..., Objective], discrete: bool) -> Tensor:
    """The gradient of an objective's own bound, whichever estimator is to meet it."""
    return Bed(discrete).truth(make())


def cell(make: Callable[..., Objective], estimator: Callable, discrete: bool) -> str:
    """What becomes of an objective with an estimator."""
    bed = Bed(discrete)
    pyro.set_rng_seed(0)
    try:
        objective = make(estimator=estimator())
        check(bed.model, bed.guide, objective, bed.x)
    except ValueError:
        return "raises"
    found, error = bed.expectation(objective)
    exact = truth(make, discrete)
    off, size = (found - exact).abs(), exact.abs().max()
    if error is not None:
        if (off > 5 * error + 1e-12).any():
            return f"biased, {100 * off.max() / size:.0f} %"
        return f"no bias above {100 * (off + 5 * error).max() / size:.1g} %"
    share = (off.max() / size).item()
    for bound in EXACT:
        if share < bound:
            return f"exact to {bound:.0e}".replace("e-0", "e-")
    return f"biased, {100 * share:.0f} %"


def table(estimators: Mapping[str, Callable], discrete: bool) -> list[str]:
    """Lines of Markdown: a row for each objective, a column for each estimator."""
    head = [f"| objective | {' | '.join(estimators)} |", "|---" * (len(estimators) + 1) + "|"]
    rows = []
    for name, make in OBJECTIVES.items():
        cells = [cell(make, estimator, discrete) for estimator in estimators.values()]
        print(f"{name}: {', '.join(cells)}", flush=True)
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return head + rows


def stages(setups: Mapping[str, tuple[Setup, str, int, int]], epochs: int = 10, seed: int = 0) -> Iterator[Stage]:
    """Each pair with a minibatch of digits: as it starts, then trained by VIMCO."""
    data = load("digits", batch_size=50).train
    for name, (setup, family, layers, bits) in setups.items():
        pyro.set_rng_seed(seed)
        model, guide = fresh_pair(setup, data, GUIDES.get(family, own))
        groups = [
            Group("model", "model", list(model.parameters())),
            Group("guide", "guide", list(guide.parameters())),
        ]
        for when in ("start", "trained"):
            if when == "trained":
                vimco = ELBO(RUNS // 2, VIMCO())
                list(fit(model, guide, vimco, data, None, epochs, adam(3e-3), seed=seed, progress=False))
            again = data.seeded(seed)
            yield Stage(name, when, layers, bits, Setting(model, guide, next(iter(again))[0], groups, again))


def noise() -> list[str]:
    """Lines of Markdown: a row for each estimator, what its gradient's variance is before training and after."""
    found: dict[str, list[str]] = {}
    columns = []
    for row in noise_of_estimators(stages(SETUPS)):
        column = f"{row['pair']}, {row['stage']}, {row['group']}"
        columns += [column] if column not in columns else []
        said = f"{row['share']:.2g}" + (f" ({100 * row['bias']:.0f} % biased)" if row["biased"] else "")
        found.setdefault(f"`{row['estimator']}`", []).append(said)
    print("\n".join(f"{name}: {', '.join(cells)}" for name, cells in found.items()), flush=True)
    head = [f"| estimator | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return head + [f"| {name} | {' | '.join(cells)} |" for name, cells in found.items()]


def written(text: str, lines: list[str], name: str = "table") -> str:
    """A document with the table of this name in its place.

    Raises:
        ValueError: the document has no place for it.
    """
    mark, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if mark not in text or end not in text:
        raise ValueError(f"out must have the lines {mark} and {end}, between which the table is to stand; add them")
    body = "\n".join([mark, *lines, end])
    return re.sub(f"{re.escape(mark)}.*{re.escape(end)}", lambda found: body, text, flags=re.DOTALL)


def document(path: Path) -> str:
    """A file's text, once it is known that the table can be put into it.

    Raises:
        ValueError: it cannot be read or written, or has no place for the table.
    """
    try:
        with path.open("r+", encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        absent = ": this dlvm is installed without its docs/" if path == DOCUMENT and not path.exists() else ""
        raise ValueError(
            f"out must be a Markdown file to write into, got {path} ({error}){absent}; change --out"
        ) from error
    written(text, [])
    written(text, [], "noise")
    return text


def main(config: Config) -> list[str]:
    torch.set_num_threads(1)
    text = document(config.out)
    print("A latent that can be reparametrised:")
    lines = ["Continuous latent site:", "", *table(CONTINUOUS, discrete=False)]
    print("A discrete latent:")
    lines += ["", "Discrete latent site:", "", *table(DISCRETE, discrete=True)]
    print("Noise at equal cost:")
    found = [NOISE, "", *noise()]
    config.out.write_text(written(written(text, lines), found, "noise"), "utf-8")
    print(f"written to {config.out}")
    return lines


if __name__ == "__main__":
    start(main, Config, "objective_table")
