"""Training on several ranks: the same steps as one process on the joint batch, and what happens when a rank fails."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from joint_steps import CASES, X_DIM, Guide, Model, all_trained
from pyro import infer
from pyro.contrib.gp.kernels import RBF
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.inference import ELBO, SVI, MovingAverage, NonFinite, ScoreFunction, fit, free_bits, linear, tempered
from dlvm.inference.distributed.job import RankLost, joined

ROOT = Path(__file__).parents[3]
RANKS = 2


def work_on_gradients(folder: Path) -> None:
    with joined() as job:
        save_file(all_trained(), folder / f"rank{job.rank}.safetensors")


def work_on_behaviour(folder: Path) -> None:
    with joined() as job:
        found = {name: outcome(turn, job, folder) for name, turn in TURNS.items()}
    (folder / f"rank{job.rank}.json").write_text(json.dumps(found))


def outcome(turn: Callable, job, folder: Path) -> object:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    try:
        return turn(job, folder)
    except (ValueError, ArithmeticError, RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def stepper(kind: str = "plain", objective=None, **settings) -> SVI:
    pair = Model(kind), Guide(kind)
    return SVI(*pair, partial(torch.optim.SGD, lr=0.01), objective or ELBO(2), **settings)


def numbers_of(*modules: nn.Module) -> list[float]:
    return torch.cat([p.detach().reshape(-1) for module in modules for p in module.parameters()]).tolist()


def after_steps(engine: str, count: int) -> list[float]:
    pyro.set_rng_seed(3)
    svi = stepper(objective=ELBO(2, ScoreFunction(MovingAverage())), engine=engine)
    x = torch.randn(7, X_DIM)
    for _ in range(count):
        svi.step(x)
    return [*numbers_of(svi.model, svi.guide), float(svi.running == engine)]


def start_apart(job, folder) -> list:
    pyro.set_rng_seed(job.rank)
    svi = stepper()
    own = numbers_of(svi.model)
    svi.prepare(torch.zeros(4, X_DIM))
    return [own, numbers_of(svi.model)]


def see_other_batches(job, folder) -> None:
    stepper().step(torch.full((4, X_DIM), float(job.rank)))


def meet_nan(job, folder) -> list:
    svi, x = stepper(), torch.zeros(4, X_DIM)
    svi.prepare(x)
    before = numbers_of(svi.model, svi.guide)
    x[3] = torch.nan
    try:
        svi.step(x)
    except NonFinite as error:
        return [str(error), before == numbers_of(svi.model, svi.guide)]
    return []


def build_others(job, folder) -> None:
    svi = stepper()
    if not job.first:
        svi.model.more = nn.Parameter(torch.zeros(3))
    svi.prepare(torch.zeros(4, X_DIM))


def come_apart(job, folder) -> None:
    svi, x = stepper(), torch.zeros(4, X_DIM)
    svi.step(x)
    with torch.no_grad():
        svi.model.logits += job.rank
    svi.step(x)


def without_plate(x) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), X_DIM), 1.0).to_event(2))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=x)


def guide_without_plate(x) -> None:
    loc = pyro.param("loc", torch.zeros(len(x), X_DIM))
    pyro.sample("z", dist.Normal(loc, 1.0).to_event(2))


def draw(job, folder) -> list:
    """The noise of three steps, in which each rank draws its own and the stream outside moves alike."""
    seen = []

    class Noisy(Guide):
        def forward(self, x):
            super().forward(x)
            if torch.is_grad_enabled():
                seen.append(torch.rand(1).item())

    svi = SVI(Model("plain"), Noisy("plain"), partial(torch.optim.SGD, lr=0.0), ELBO(), engine="eager")
    for _ in range(3):
        svi.step(torch.zeros(4, X_DIM))
    return [seen, torch.rand(1).item()]


def run_of_three(folder: Path, epochs: int, checkpoint: Path | None = None) -> list:
    data = Loader(torch.rand(21, X_DIM, generator=torch.Generator().manual_seed(2)), 5, shuffle=True, dynamic=True)
    pyro.set_rng_seed(5)
    model, guide = Model("plain"), Guide("plain")
    objective = tempered(ELBO(2), linear(0.1, 1.0, steps=10))
    records = list(fit(model, guide, objective, data, valid=data.take(9), epochs=epochs, seed=4, checkpoint=checkpoint))
    return [[(r.train, r.valid) for r in records], numbers_of(model, guide)]


def go_on(job, folder) -> list:
    """With a folder that only the first rank can see."""
    place = folder / f"checkpoints{job.rank}"
    first = run_of_three(folder, 2, place)
    return [run_of_three(folder, 3), first, run_of_three(folder, 3, place), place.exists()]


def work_on_long(folder: Path, victim: int | None = None, asked: int | None = None) -> None:
    """A run of three epochs of 20 steps; in the second, one rank is killed, or asked to end."""
    data = Loader(torch.rand(60, X_DIM, generator=torch.Generator().manual_seed(2)), 3, shuffle=True, dynamic=True)
    pyro.set_rng_seed(0)
    model, guide = Model("plain"), Guide("plain")
    seen = []

    def count(module, args) -> None:
        seen.append(module)
        if len(seen) == 40:
            os.kill(os.getpid(), signal.SIGTERM if victim is None else signal.SIGKILL)

    with joined() as job:
        if job.rank in (victim, asked):
            guide.register_forward_pre_hook(count)
        try:
            for _ in fit(model, guide, ELBO(2), data, epochs=3, seed=4, checkpoint=folder / "checkpoints", every=5):
                pass
        except RankLost as error:
            raise SystemExit(f"error: {error}") from error
        if job.first:
            (folder / "end.json").write_text(json.dumps(numbers_of(model, guide)))


TURNS: dict[str, Callable] = {
    "captured": lambda job, folder: [after_steps(engine, 12) for engine in ("eager", "captured")],
    "start": start_apart,
    "noise": draw,
    "nan": meet_nan,
    "other batches": see_other_batches,
    "apart": come_apart,
    "resume": go_on,
    "told": lambda job, folder: [job.told(said if job.first else None).decode() for said in (b"word", b"")],
    "other programs": build_others,
    "engine": lambda job, folder: stepper(objective=free_bits(ELBO(2), 1.0), engine="captured"),
    "pyro's rws": lambda job, folder: stepper(objective=infer.ReweightedWakeSleep(2)),
    "pyro's mmd": lambda job, folder: stepper(objective=infer.Trace_MMD(RBF(2))),
    "pyro's tail": lambda job, folder: stepper(objective=infer.TraceTailAdaptive_ELBO(2, vectorize_particles=True)),
    "pyro's renyi": lambda job, folder: stepper("fixed", infer.RenyiELBO(0.5, 2)).step(torch.zeros(4, X_DIM)),
    "global": lambda job, folder: stepper("global in a plain plate", ELBO()).step(torch.zeros(4, X_DIM)),
    "no plate": lambda job, folder: SVI(
        without_plate, guide_without_plate, partial(torch.optim.SGD, lr=0.1), infer.Trace_ELBO()
    ).step(torch.zeros(4, X_DIM)),
}


# ------------------------------------------------------------------------------------------------ starting ranks


def start(work: str, folder: Path, ranks: int = RANKS, **settings) -> list[subprocess.Popen]:
    """Processes that know each other, each running one of the functions above."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    common["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    command = [sys.executable, __file__, work, str(folder), json.dumps(settings)]
    texts = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    return [subprocess.Popen(command, env={**os.environ, **common, "RANK": str(r)}, **texts) for r in range(ranks)]


def finish(processes: list[subprocess.Popen], seconds: float = 120) -> list[str]:
    """What each has printed; none is left running."""
    try:
        return [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


# ------------------------------------------------------------------------------------------------ what they did


@pytest.fixture(scope="module")
def gradients(tmp_path_factory) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Of this process on joint batches, and of each of two ranks."""
    folder = tmp_path_factory.mktemp("gradients")
    processes = start("gradients", folder)
    alone, said = all_trained(), finish(processes)
    assert not any(process.returncode for process in processes), said
    return alone, [load_file(folder / f"rank{r}.safetensors") for r in range(RANKS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_steps_equal_those_of_one_process_on_the_joint_batch(gradients, name):
    alone, ranks = gradients
    keys = [key for key in alone if key.startswith(f"{name}/")]
    assert len(keys) > 4
    for key in keys:
        torch.testing.assert_close(ranks[0][key], alone[key], rtol=1e-9, atol=1e-11)
        assert torch.equal(ranks[1][key], ranks[0][key])


@pytest.fixture(scope="module")
def behaviour(tmp_path_factory) -> list[dict]:
    """What each turn gave, by rank."""
    folder = tmp_path_factory.mktemp("behaviour")
    processes = start("behaviour", folder)
    said = finish(processes)
    assert not any(process.returncode for process in processes), said
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.slow
def test_captured_steps_of_ranks_are_those_that_pyro_makes(behaviour):
    eager, captured = behaviour[0]["captured"]
    assert captured == eager and behaviour[1]["captured"] == behaviour[0]["captured"]
    assert captured[-1] == 1.0  # each did run on the engine that was asked for


@pytest.mark.slow
def test_all_ranks_start_from_the_parameters_of_the_first(behaviour):
    (first, same), (second, taken) = behaviour[0]["start"], behaviour[1]["start"]
    assert first == same == taken != second


@pytest.mark.slow
def test_ranks_draw_noise_of_their_own_and_share_the_stream_outside(behaviour):
    (first, outside), (second, alike) = (found["noise"] for found in behaviour)
    assert len({*first, *second}) == 6
    assert outside == alike


@pytest.mark.slow
def test_what_is_not_finite_on_one_rank_is_an_error_of_all_and_no_step(behaviour):
    (first, kept), (second, kept_too) = (found["nan"] for found in behaviour)
    assert "not finite on rank 1" in first and "argument 0 of the batch" in second
    assert kept and kept_too


@pytest.mark.slow
def test_a_run_of_ranks_goes_on_bit_for_bit_from_a_folder_that_one_of_them_sees(behaviour):
    for rank, found in enumerate(behaviour):
        whole, half, again, seen = found["resume"]
        assert whole == again == behaviour[0]["resume"][0]
        assert half[0] == whole[0][:2] and half[1] != whole[1]
        assert seen == (rank == 0)


@pytest.mark.slow
def test_the_first_rank_tells_the_others(behaviour):
    assert [found["told"] for found in behaviour] == [["word", ""]] * RANKS


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("other batches", "ValueError: the ranks of this job see different batches; pass the same seed"),
        ("apart", "RuntimeError: step 2: parameters or buffers of the ranks have come apart"),
        ("other programs", "ValueError: the ranks of this job have built different programs.*same settings"),
        ("engine", "ValueError: engine='captured' cannot run free_bits.* on several ranks.*use engine='auto'"),
        ("pyro's rws", "ValueError: ReweightedWakeSleep has one weight for a whole batch.*use RWS"),
        ("pyro's mmd", "ValueError: Trace_MMD compares draws of a whole batch.*train it in one process"),
        ("pyro's tail", "ValueError: TraceTailAdaptive_ELBO ranks draws of a whole batch.*use Renyi, or one process"),
        ("pyro's renyi", "ValueError: RenyiELBO puts a plate's scale inside its logarithm; use Renyi"),
        ("global", r"ValueError: latent sites \['w'\] lie outside the plate over data.*use an ELBO"),
        ("no plate", "ValueError: the model has no plate over its data.*write with pyro.plate"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_shared_out_is_refused_on_every_rank(behaviour, turn, message):
    for found in behaviour:
        assert re.match(message, found[turn]), found[turn]


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_in_words_and_the_run_goes_on_to_the_same_end(tmp_path):
    whole = start("long", tmp_path / "whole")
    said = finish(whole)
    assert not any(process.returncode for process in whole), said
    first, second = start("long", tmp_path / "killed", victim=1)
    (words, _) = finish([first, second])
    assert second.returncode == -signal.SIGKILL and first.returncode == 1
    assert re.search(r"rank 0 of 2 has lost another rank.*run the same command again.*checkpoint is .*step-", words)
    assert "Traceback" not in words
    again = start("long", tmp_path / "killed")
    said = finish(again)
    assert not any(process.returncode for process in again), said
    ends = [json.loads((tmp_path / name / "end.json").read_text()) for name in ("whole", "killed")]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_all_after_the_same_step(tmp_path):
    first, second = processes = start("long", tmp_path, asked=1)
    said = finish(processes)
    assert first.returncode == second.returncode == 143, said
    assert "stopped in epoch 2" in said[0] and len([*tmp_path.glob("checkpoints/step-*")]) > 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    globals()[f"work_on_{sys.argv[1]}"](Path(sys.argv[2]), **json.loads(sys.argv[3]))
