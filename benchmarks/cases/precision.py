"""What bfloat16 layers save in a step, and what they change in the bound that training reaches."""

from __future__ import annotations

from functools import partial
from itertools import islice

import torch

from benchmarks.attempts import ready
from benchmarks.catalogue import ONE_SITE, catalogue
from benchmarks.config import Config
from benchmarks.programs import make
from benchmarks.results import Results
from benchmarks.timing import measure, spread
from benchmarks.variants import BF16, COMPILED, LR, caller
from dlvm.experiments.data import Loader, mnist
from dlvm.inference import SVI, evaluate
from dlvm.inference.engine.threads import settled

TIMED = (ONE_SITE, "1 site, batch 500")
SEEDS = (0, 1, 2)


def run(config: Config, results: Results) -> None:
    if COMPILED not in config.words("engines"):
        return
    for name in TIMED:
        case = catalogue(config.sizes)[name]
        makers = {variant: partial(caller, case, variant) for variant in (COMPILED, BF16)}
        calls = ready(f"{name}, bf16", makers, results)
        quiet = partial(settled, config.threads)
        timings = measure(calls, config.repetitions, config.block_seconds, quiet=quiet)
        results.add_timings(f"{name}, bf16", timings, ((BF16, COMPILED),))
    if not config.quick:
        _bounds(results)


def _bounds(results: Results, steps: int = 1500) -> None:
    """Both trained alike on MNIST, both evaluated in single precision."""
    try:
        train, _, test = mnist(binarize="dynamic", batch_size=100)
    except FileNotFoundError as error:
        results.note(f"the bound after training in bf16 was not measured ({error})")
        return
    reached = {
        precision: [_bound(train, test.take(2000), precision, seed, steps) for seed in SEEDS]
        for precision in ("fp32", "bf16")
    }
    for precision, elbos in reached.items():
        results.add("MNIST, 1500 steps", f"held-out ELBO, trained in {precision}", spread(elbos), "nats")
    change = [low - full for low, full in zip(reached["bf16"], reached["fp32"], strict=True)]
    results.add("MNIST, 1500 steps", "change in ELBO by bf16", spread(change), "nats")


def _bound(train: Loader, test: Loader, precision: str, seed: int, steps: int) -> float:
    torch.manual_seed(seed)
    program = make(catalogue()[ONE_SITE])
    adam = partial(torch.optim.Adam, lr=LR, fused=True)
    svi = SVI(program.model, program.guide, adam, program.objective, engine="captured", precision=precision)
    loader, done = train.seeded(seed), 0
    while done < steps:
        for (x,) in islice(loader, steps - done):
            svi.step(x)
            done += 1
    return evaluate(program.model, program.guide, test, num_particles=10).elbo
