"""Runs side by side, in turn or in threads, equal each alone; an error in the middle of anything leaves no trace."""

from __future__ import annotations

import sys
import threading
from functools import cache, partial

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from dlvm.distributions import Bernoulli
from dlvm.evidence import annealed, calibration, free, gaps, importance, views
from dlvm.guides import IAF, Diagonal, latents
from dlvm.inference import ELBO, IWAE, NVIL, SVI, ScoreFunction, check, evaluate, fit, log_weights
from dlvm.inference.programs.randomness import generator_state
from dlvm.models import VAE
from dlvm.nets import MLP

X = (torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
BATCHES = [(X[:4],), (X[4:8],), (X[8:],)]
ENGINES = ["eager", pytest.param("captured", marks=pytest.mark.slow)]
RUNS = {
    "bound": (Diagonal, lambda: IWAE(3), 1),
    "baseline": (Diagonal, lambda: ELBO(2, ScoreFunction(NVIL(MLP(4, 6, 1)))), 2),
    "flow": (partial(IAF, width=6), ELBO, 3),
}
Outcome = tuple[list[float], list[torch.Tensor]]


def pair(family=Diagonal, seed: int = 0, make=VAE):
    pyro.set_rng_seed(seed)
    model = make(2, Bernoulli(MLP(2, 6, 4)))
    return model, family(latents(model, X), MLP(4, 6))


def values(*modules) -> list[torch.Tensor]:
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def equal(a: Outcome, b: Outcome) -> bool:
    return a[0] == b[0] and len(a[1]) == len(b[1]) and all(map(torch.equal, a[1], b[1]))


class Started:
    """A run of a name, made and not begun."""

    def __init__(self, name: str, engine: str, epochs: int = 4):
        family, objective, seed = RUNS[name]
        self.model, self.guide = pair(family, seed)
        settings = dict(valid=BATCHES, epochs=epochs, seed=seed, engine=engine, progress=False)
        self.records = fit(self.model, self.guide, objective(), BATCHES, **settings)
        self.bounds: list[float] = []

    def go_on(self) -> bool:
        record = next(self.records, None)
        self.bounds += [] if record is None else [record.train, record.valid, record.grad_norm]
        return record is not None

    def outcome(self) -> Outcome:
        while self.go_on():
            pass
        found = evaluate(self.model, self.guide, X, num_particles=30, seed=5).log_px
        return [*self.bounds, found], values(self.model, self.guide)


@cache
def alone(name: str, engine: str = "eager") -> Outcome:
    return Started(name, engine).outcome()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_three_runs_in_turn_equal_each_alone(engine):
    together = {name: Started(name, engine) for name in RUNS}
    while any([run.go_on() for run in together.values()]):  # a list: each has its turn
        torch.rand(3)
    assert all(equal(run.outcome(), alone(name, engine)) for name, run in together.items())


def in_threads(*works) -> list:
    """What each returns, or the exception that it ended with."""
    found: list = [None] * len(works)
    gate = threading.Barrier(len(works))

    def run(position: int) -> None:
        gate.wait()
        try:
            found[position] = works[position]()
        except Exception as error:
            found[position] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads meet as often as they can
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_three_runs_in_threads_at_once_equal_each_alone(engine):
    expected = [alone(name, engine) for name in RUNS]
    runs = [Started(name, engine) for name in RUNS]
    before = settings()
    together = in_threads(*(run.outcome for run in runs))
    assert all(not isinstance(found, Exception) for found in together), together
    assert all(equal(a, b) for a, b in zip(together, expected, strict=True))
    assert settings() == before


@pytest.mark.slow
def test_evidence_of_one_pair_beside_the_training_of_another_is_that_of_the_pair_alone():
    model, guide = pair()
    work = [
        partial(evaluate, model, guide, X, num_particles=30),
        partial(annealed, model, X, temperatures=10, num_chains=2),
        partial(views, model, guide, X, num_particles=10, draws=20),
    ]
    numbers = [lambda r: r.log_px, lambda r: r.log_px.tolist(), lambda r: r.rate.value]
    expected = [number(job()) for number, job in zip(numbers, work, strict=True)]
    *found, run = in_threads(*work, Started("bound", "eager").outcome)
    assert [number(record) for number, record in zip(numbers, found, strict=True)] == expected
    assert equal(run, alone("bound"))


def test_steps_in_two_threads_have_their_turns():
    """Without streams of their own they share random numbers, and still never a handler, a plate or a parameter."""
    engines = [SVI(*pair(seed=seed), torch.optim.Adam, IWAE(2), engine="eager") for seed in (1, 2)]
    losses = in_threads(*(lambda svi=svi: [svi.step(X) for _ in range(40)] for svi in engines))
    assert all(isinstance(found, list) and bool(torch.tensor(found).isfinite().all()) for found in losses), losses
    assert pyro.poutine.runtime._PYRO_STACK == [] and not list(pyro.get_param_store().keys())


class Trip(Exception):
    pass


class Trap(VAE):
    """A VAE that raises at its n-th run."""

    runs, at = 0, None

    def forward(self, x=None, n=1):
        self.runs += 1
        if self.runs == self.at:
            raise Trip
        return super().forward(x, n)


class Snare(Diagonal):
    """A guide that raises at its n-th run, after it has drawn."""

    runs, at = 0, None

    def forward(self, *args, **kwargs):
        drawn = super().forward(*args, **kwargs)
        self.runs += 1
        if self.runs == self.at:
            raise Trip
        return drawn


class TrippingBound(IWAE):
    """An objective that raises at its n-th surrogate."""

    runs, at = 0, None

    def surrogate(self, *args):
        self.runs += 1
        if self.runs == self.at:
            raise Trip
        return super().surrogate(*args)


class TrippingAdam(torch.optim.SGD):
    """An optimizer that raises at its n-th step."""

    runs, at = 0, None

    def step(self, closure=None):
        self.runs += 1
        if self.runs == self.at:
            raise Trip
        return super().step(closure)


def settings() -> tuple:
    """Everything of the process that a run might alter."""
    generators, _ = generator_state()
    return (
        generators["torch"].tolist(),
        generators["random"],
        generators["numpy"][1].tolist(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        pyro.poutine.runtime._PYRO_STACK[:],
        list(pyro.get_param_store().keys()),
        pyro.settings.get("module_local_params"),
        pyro.infer.util.is_validation_enabled(),
        torch.distributions.Distribution._validate_args,
    )


CAPTURED_OPTIMIZER = pytest.param("optimizer", "captured", marks=pytest.mark.slow)


def trapped(kind: str):
    """A pair, an objective and an optimizer, and the one of them that will trip."""
    model, guide = pair(Snare, make=Trap)
    objective, made = TrippingBound(2), []

    def optimizer(parameters):
        made.append(TrippingAdam(parameters, lr=0.01))
        return made[0]

    tripping = {
        "model": lambda: model,
        "guide": lambda: guide,
        "objective": lambda: objective,
        "optimizer": lambda: made[0],
    }
    return model, guide, objective, optimizer, tripping[kind]


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    "kind, engine", [*((kind, "eager") for kind in ("model", "guide", "objective", "optimizer")), CAPTURED_OPTIMIZER]
)
def test_an_error_in_the_middle_of_a_run_leaves_the_process_as_it_was(kind, engine, validate):
    with pyro.validation_enabled(validate):
        model, guide, objective, optimizer, tripping = trapped(kind)
        if engine == "captured":  # such a step runs neither programs nor objective: those here count, and it cannot
            (model, guide), objective = pair(), IWAE(2)
        run = fit(model, guide, objective, BATCHES * 4, optimizer=optimizer, epochs=9, seed=1, engine=engine)
        next(run)
        before = settings()
        part = tripping()
        part.at = part.runs + 5
        with pytest.raises(Trip):
            next(run)
        assert settings() == before
        assert model.training and guide.training
        assert all(p.grad is None for m in (model, guide) for p in m.parameters())


@pytest.mark.parametrize("kind", ["model", "guide"])
@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("work", ["step", "evaluate", "importance", "annealed", "views", "gaps", "calibration"])
def test_an_error_in_the_middle_of_anything_leaves_the_process_as_it_was(work, after, kind):
    model, guide = pair(Snare, make=Trap)
    svi = SVI(model, guide, torch.optim.Adam, Trace_ELBO(), engine="eager")
    if work == "step":
        svi.step(X)
    jobs = {
        "step": lambda: [svi.step(X) for _ in range(9)],
        "evaluate": lambda: evaluate(model, guide, BATCHES * 3, num_particles=9, engine="eager"),
        "importance": lambda: importance(model, guide, BATCHES * 3, num_particles=9, engine="eager"),
        "annealed": lambda: annealed(model, BATCHES * 3, guide=guide, temperatures=5, num_chains=2, engine="eager"),
        "views": lambda: views(model, guide, BATCHES * 3, num_particles=5, draws=9),
        "gaps": lambda: gaps(model, guide, BATCHES * 3, local=free(Diagonal), steps=8, num_particles=5),
        "calibration": lambda: calibration(model, guide, num_data=99, num_particles=5),
    }
    part = model if kind == "model" else guide
    part.at = part.runs + after
    before = settings()
    try:
        jobs[work]()
    except Trip:
        pass
    except Exception as error:  # said once more with where it happened
        assert isinstance(error.__cause__ or error.__context__, Trip), error
    after_it = settings()
    assert after_it[3:] == before[3:]
    assert work == "step" or after_it == before  # a step does draw
    assert model.training and guide.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("work", ["latents", "check", "log_weights"])
def test_an_error_in_what_looks_at_a_program_leaves_the_process_as_it_was(work):
    model, guide = pair(make=Trap)
    before = settings()
    model.at = model.runs + 1
    jobs = {
        "latents": lambda: latents(model, X),
        "check": lambda: check(model, guide, IWAE(2), X),
        "log_weights": lambda: log_weights(model, guide, X),
    }
    with pytest.raises(Trip):
        jobs[work]()
    assert settings()[3:] == before[3:]
    assert work == "log_weights" or settings() == before


def test_a_run_left_in_the_middle_hinders_no_other():
    """A generator that is neither finished nor closed holds no turn, no stream and no handler."""
    before = settings()
    left = Started("bound", "eager")
    left.go_on()
    [found] = in_threads(Started("flow", "eager").outcome)
    assert equal(found, alone("flow"))
    pyro.set_rng_seed(0)
    assert settings()[3:] == before[3:]
    assert equal(left.outcome(), alone("bound"))
