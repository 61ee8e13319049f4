"""What a step costs with each estimator and objective, beside IWAE under the total derivative."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle

import torch
from pyro.infer import ELBO

from benchmarks.attempts import Call, ready
from benchmarks.catalogue import IWAE_50, Case, catalogue
from benchmarks.config import Config
from benchmarks.programs import make
from benchmarks.results import Results
from benchmarks.timing import measure
from benchmarks.variants import CAPTURED, COMPILED, LR, batches
from dlvm.experiments.options.objectives import Numbers, objective_of
from dlvm.inference import SVI, linear, tempered
from dlvm.inference.engine.threads import settled

TOTAL = "iwae, total"
PAIRS = ("iwae stl", "iwae dreg", "iwae score", "iwae vimco", "miwae dreg", "piwae dreg", "tvo total", "rws total")


def run(config: Config, results: Results) -> None:
    case = catalogue(config.sizes)[IWAE_50]
    numbers = Numbers(num_particles=case.num_particles, groups=10, sleep=0.0)
    made = {", ".join(words): partial(objective_of, words[0], numbers, words[1]) for words in map(str.split, PAIRS)}
    makers: dict[str, Callable[[], ELBO]] = {TOTAL: partial(objective_of, "iwae", numbers), **made}
    makers["iwae, warm-up"] = lambda: tempered(objective_of("iwae", numbers), linear(0.0, 1.0, steps=1000))
    for engine in (CAPTURED, COMPILED):
        if engine in config.words("engines"):
            name = f"{IWAE_50}, {engine}"
            calls = ready(name, {word: partial(_step, case, maker, engine) for word, maker in makers.items()}, results)
            quiet = partial(settled, config.threads)
            timings = measure(calls, config.repetitions, config.block_seconds, quiet=quiet)
            results.add_timings(name, timings, [(word, TOTAL) for word in makers if word != TOTAL])


def _step(case: Case, make_objective: Callable[[], ELBO], engine: str) -> Call:
    """One training step on the next of a few batches."""
    torch.manual_seed(0)
    program, data = make(case), cycle(batches(case))
    adam = partial(torch.optim.Adam, lr=LR, fused=True)
    svi = SVI(program.model, program.guide, adam, make_objective(), engine=engine)
    return lambda: svi.step(next(data))
