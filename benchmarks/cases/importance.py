"""Throughput of importance-sampled log p(x), beside what the machine's matrix product does in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import twins
from benchmarks.attempts import Call, ready
from benchmarks.catalogue import ONE_SITE, Case, Sizes, catalogue
from benchmarks.config import Config
from benchmarks.peers import installed
from benchmarks.programs import make
from benchmarks.results import Results
from benchmarks.targets import IMPORTANCE
from benchmarks.timing import Stopwatch, Timings, measure, spread
from benchmarks.variants import COMPILED, HAND, batches
from dlvm.inference import evaluate
from dlvm.inference.engine.threads import settled

EVALUATE = "evaluate"
WARM_BATCHES = 3  # in which evaluate captures and compiles


def run(config: Config, results: Results) -> None:
    case = catalogue(config.sizes)[ONE_SITE]
    x = batches(case, 1)[0][: 3 if config.quick else 20]
    products, watch = _products(config), Stopwatch()
    engines = config.words("engines")
    best = COMPILED if COMPILED in engines else engines[-1]
    names = {engine: EVALUATE if engine == best else f"{EVALUATE}, {engine}" for engine in engines}
    makers: dict[str, Callable[[], Call]] = {
        name: partial(_evaluate, case, x, config.particles, engine, watch) for engine, name in names.items()
    }
    makers[HAND] = partial(_by_hand, case, x, config.particles)
    if installed("pythae", results):
        from benchmarks.peers import pythae_vae

        makers["pythae"] = lambda: pythae_vae.log_px(x, case.sizes, config.particles)
    makers |= {name: partial(_product, *shape) for name, shape in products.items()}
    calls = ready(IMPORTANCE, makers, results)
    quiet = partial(settled, config.threads)
    timings = measure(calls, config.repetitions, config.block_seconds, warmup=2, quiet=quiet, clock=watch)
    ratios = [("pythae", EVALUATE), (HAND, EVALUATE), *((n, EVALUATE) for n in names.values() if n != EVALUATE)]
    results.add_timings(IMPORTANCE, timings, ratios)
    results.note(
        f"importance sampling: evaluate runs with engine={best!r}, timed once it is captured and compiled; pythae with "
        "1000 particles at a time."
    )
    _shares(results, timings, products, flop(case.sizes) * len(x) * config.particles, [*names.values(), HAND, "pythae"])


def flop(sizes: Sizes) -> int:
    """Of the decoder's matrix products for one z."""
    return 2 * (sizes.z_dim * sizes.hidden + sizes.hidden**2 + sizes.hidden * sizes.x_dim)


def _products(config: Config) -> dict[str, tuple[int, int, int]]:
    """Matrix products to compare with: a square one, and the decoder's widest on 1000 rows."""
    square, sizes = (64 if config.quick else 2048), config.sizes
    return {
        f"sgemm {square} x {square} x {square}": (square, square, square),
        f"sgemm 1000 x {sizes.hidden} x {sizes.x_dim}": (1000, sizes.hidden, sizes.x_dim),
    }


def _product(n: int, k: int, m: int) -> Callable[[], Tensor]:
    a, b, out = torch.rand(n, k), torch.rand(k, m), torch.empty(n, m)
    return lambda: torch.mm(a, b, out=out)


def _evaluate(case: Case, x: Tensor, num_particles: int, engine: str, watch: Stopwatch) -> Callable[[], object]:
    program = make(case)

    def batches_after_a_start() -> Iterator[tuple[Tensor]]:
        start = watch()
        for _ in range(WARM_BATCHES):
            yield (x,)
        watch.leave_out_since(start)
        yield (x,)

    return lambda: evaluate(
        program.model, program.guide, batches_after_a_start(), num_particles=num_particles, engine=engine
    )


def _by_hand(case: Case, x: Tensor, num_particles: int) -> Callable[[], Tensor]:
    twin = twins.VAETwin(case.sizes.x_dim, case.sizes.hidden, case.sizes.z_dim)
    return lambda: twin.log_px(x, num_particles)


def _shares(
    results: Results, timings: Timings, products: dict[str, tuple[int, int, int]], work: int, names: list[str]
) -> None:
    """Rates as shares of the faster product's, formed within each repetition."""
    rates = [
        max(2 * n * k * m / timings.seconds[name][i] for name, (n, k, m) in products.items())
        for i in range(len(timings.seconds[next(iter(products))]))
    ]
    results.add(IMPORTANCE, "sgemm", spread(rate / 1e9 for rate in rates), "GFLOP/s")
    for name in names:
        if name in timings:
            done = [work / seconds for seconds in timings.seconds[name]]
            results.add(IMPORTANCE, f"{name}, rate", spread(rate / 1e9 for rate in done), "GFLOP/s")
            shares = spread(a / b for a, b in zip(done, rates, strict=True))
            results.add(IMPORTANCE, f"{name}, share of sgemm", shares)
