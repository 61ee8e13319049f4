"""Seconds per epoch, data included: shuffled and binarised anew, at batch 100."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.attempts import Call, ready
from benchmarks.catalogue import FIVE_SITES, ONE_SITE, Case, catalogue
from benchmarks.config import Config
from benchmarks.peers import installed
from benchmarks.results import Results
from benchmarks.targets import EPOCH
from benchmarks.timing import measure
from benchmarks.variants import CAPTURED, COMPILED, HAND, LR, STOCK, stepper
from dlvm.experiments.data import Loader
from dlvm.inference.engine.threads import settled

NAMES = {
    ONE_SITE: EPOCH,
    "2 sites, batch 100": "epoch, 2 sites",
    FIVE_SITES: "epoch, 5 sites",
    "10 sites, batch 100": "epoch, 10 sites",
}
RATIOS = (
    (COMPILED, "numpyro"),
    (COMPILED, "pythae"),
    (COMPILED, HAND),
    (CAPTURED, HAND),
    (COMPILED, STOCK),
    ("numpyro", HAND),
    ("pythae", HAND),
)


def run(config: Config, results: Results) -> None:
    greys = synthetic(config.rows, config.sizes.x_dim)
    cases = catalogue(config.sizes)
    for key, name in NAMES.items():
        with TemporaryDirectory() as folder:
            makers: dict[str, Callable[[], Call]] = {
                v: partial(_ours, cases[key], v, greys) for v in (STOCK, HAND, *config.words("engines"))
            }
            if key == ONE_SITE:
                makers |= _peers(cases[key], greys, folder, results)
            calls = ready(name, makers, results)
            if calls:
                quiet = partial(settled, config.threads)
                timings = measure(calls, config.repetitions, block_seconds=0.0, warmup=1, quiet=quiet)
                results.add_timings(name, timings, RATIOS)


def synthetic(rows: int, x_dim: int) -> Tensor:
    """Greys in [0, 1], four in five of them black, shape (rows, x_dim); what they show does not matter to the time."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(rows, x_dim, generator=generator) - 0.8).clamp_min_(0).mul_(5)


def _ours(case: Case, variant: str, greys: Tensor) -> Callable[[], float]:
    """An epoch of single steps over the project's loader."""
    loader = Loader(greys, case.batch, shuffle=True, dynamic=True)
    step = stepper(case, variant)
    return lambda: sum(step(x) for (x,) in loader) / loader.num_data


def _peers(case: Case, greys: Tensor, folder: str, results: Results) -> dict[str, Callable[[], Call]]:
    makers: dict[str, Callable[[], Call]] = {}
    if installed("numpyro", results):
        from benchmarks.peers import numpyro_vae

        makers["numpyro"] = lambda: numpyro_vae.epoch(greys.numpy(), case.batch, case.sizes, LR)
    if installed("pythae", results):
        from benchmarks.peers import pythae_vae

        makers["pythae"] = lambda: pythae_vae.epoch(greys, case.batch, case.sizes, LR, folder)
        results.note("pythae trains on the greys as they are: it does not binarise anew, which spares it that time.")
    return makers
