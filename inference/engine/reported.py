"""What is reported of an objective, and on what it can run, where it lacks what Pyro's own have."""

from __future__ import annotations

from collections.abc import Callable

from pyro.infer import (
    ELBO,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    Trace_ELBO,
)

from dlvm.inference.engine.recording import Refused

JIT = (JitTrace_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO, JitTraceMeanField_ELBO)


def reporting(objective: ELBO, programs: tuple[Callable, Callable], args: tuple, kwargs: dict) -> ELBO:
    """Whose ``loss`` is reported for an objective: its own, or that of the ELBO of as many particles.

    Some objectives have gradients alone, as Pyro's ``TraceTailAdaptive_ELBO``, whose ``loss`` raises
    NotImplementedError. Found by one loss, which runs both programs.
    """
    if not callable(loss := getattr(objective, "loss", None)):
        return _elbo(objective, programs, args, kwargs)
    try:
        loss(*programs, *args, **kwargs)
    except NotImplementedError as error:
        if not _raised_by(error, loss):
            raise
        return _elbo(objective, programs, args, kwargs)
    return objective


def _elbo(objective: ELBO, programs: tuple[Callable, Callable], args: tuple, kwargs: dict) -> ELBO:
    """Run once, so that it knows how deep plates nest, and draws no more than what it is made of from then on."""
    found = Trace_ELBO(objective.num_particles, vectorize_particles=objective.vectorize_particles)
    found.max_plate_nesting = objective.max_plate_nesting
    found.loss(*programs, *args, **kwargs)
    return found


def _raised_by(error: Exception, method: Callable) -> bool:
    """Whether the method itself raises it, rather than something that it calls."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_code is getattr(method, "__code__", None)


def engine_for(engine: str, objective: ELBO) -> str:
    """The engine that an objective can run on: Pyro's Jit objectives are recorded by torch.jit, and by nobody else.

    Raises:
        Refused: another was asked for by name.
    """
    if not isinstance(objective, JIT) or engine not in ("auto", "captured", "compiled"):
        return engine
    if engine != "auto":
        raise Refused(
            f"engine={engine!r} cannot record {type(objective).__name__}, which torch.jit records; pass "
            f"{type(objective).__name__.removeprefix('Jit')} in its place, or engine='eager'"
        )
    return "eager"
