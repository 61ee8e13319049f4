"""What one does with a program here, and what is claimed of it then."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from pyro.infer import ELBO as AnyELBO
from pyro.infer import Trace_ELBO

from dlvm.evidence import importance
from dlvm.inference import ELBO, IWAE, SVI, ScoreFunction, check, evaluate, fit, log_weights
from programs.alone import evaluating, one_by_one
from programs.brought import Brought, Pair
from programs.claims import (
    SIGMAS,
    Claim,
    Trained,
    expected,
    iwae,
    mean,
    near,
    same,
    stock,
    stock_bound,
    trained,
)

FROZEN = partial(torch.optim.SGD, lr=1e-12)
Way = Callable[[Brought], list[Claim]]


def estimator(pair: Pair) -> ScoreFunction | None:
    return ScoreFunction() if pair.discrete else None


def steps_of(pair: Pair) -> Callable:
    return partial(getattr(torch.optim, pair.optimizer), lr=0.02)


def losses(program: Brought, engine: str = "eager") -> list[Claim]:
    """Steps of our SVI with Pyro's objective, beside stock's on the same noise, and the weights after them."""
    theirs, pair = stock(program), program.pair()  # in this order: each begins with an empty store
    svi = SVI(pair.model, pair.guide, steps_of(pair), pair.objective, engine=engine)
    ours = trained(pair, svi)
    return [] if theirs is None else _alike(pair, ours, theirs)


def losses_of_elbo(program: Brought) -> list[Claim]:
    """Steps with ELBO(1), beside stock's with Trace_ELBO on the same noise."""
    theirs = stock(program, Trace_ELBO) if program.pair().ours_alike else None
    pair = program.pair()
    objective = ELBO(1, estimator(pair))
    ours = trained(pair, SVI(pair.model, pair.guide, steps_of(pair), objective, engine="eager"))
    if theirs is None:
        return []
    if pair.discrete:  # gradients by the score are ours alone
        return _beside(ours.losses[:1], theirs.losses[:1])
    return _alike(pair, ours, theirs)


def _alike(pair: Pair, ours: Trained, theirs: Trained) -> list[Claim]:
    if not pair.steps_alike:
        return [*_beside(ours.losses[:1], theirs.losses[:1]), Claim("weights moved by", ours.moved, 1e-3, math.inf)]
    return [*_beside(ours.losses, theirs.losses), *_moved(pair, ours, theirs)]


def _beside(ours: list[float], theirs: list[float]) -> list[Claim]:
    return [same(f"loss of step {i + 1}", a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]


def _moved(pair: Pair, ours: Trained, theirs: Trained) -> list[Claim]:
    if not len(ours.weights):
        return []
    apart = (ours.weights - theirs.weights).abs().max().item()
    return [
        Claim("weights moved by", ours.moved, 0.5 * theirs.moved, 2 * theirs.moved + 1e-9),
        near("largest distance from stock's weights", apart, 0.0, 5e-3),
    ]


def checked(program: Brought) -> list[Claim]:
    pair = program.pair()
    check(pair.model, pair.guide, ELBO(1, estimator(pair)), *pair.first)
    return []


def checked_with_stock(program: Brought) -> list[Claim]:
    pair = program.pair()
    check(pair.model, pair.guide, pair.objective, *pair.first)
    return []


def fitted(pair: Pair, objective: AnyELBO, engine: str = "eager", epochs: int = 1) -> list:
    """Epochs of training that move nothing, so that bounds are those of the program as it came."""
    settings = dict(valid=pair.batches, epochs=epochs, optimizer=FROZEN, seed=0, progress=False, engine=engine)
    return list(fit(pair.model, pair.guide, objective, pair.batches, **settings))


def fit_stock(program: Brought) -> list[Claim]:
    pair = program.pair()
    (epoch,) = fitted(pair, pair.objective)
    found = [same("train", epoch.train, stock_bound(program))]
    if pair.exact and pair.ours_alike:
        found.append(near("valid", epoch.valid, pair.reported, pair.tolerance))
    return found


def fit_elbo(program: Brought, engine: str = "eager") -> list[Claim]:
    pair = program.pair()
    (*_, epoch) = fitted(pair, ELBO(1, estimator(pair)), engine, 1 if engine == "eager" else 4)
    found = _bounds(program, pair, epoch, mean, 1)
    if pair.ours_alike and engine == "eager":
        found.append(same("train, on stock's noise", epoch.train, stock_bound(program, Trace_ELBO)))
    return found


def fit_iwae(program: Brought) -> list[Claim]:
    pair = program.pair()
    (epoch,) = fitted(pair, IWAE(5, estimator(pair)))
    return _bounds(program, pair, epoch, iwae, 5)


def _bounds(program: Brought, pair: Pair, epoch, bound: Callable, particles: int) -> list[Claim]:
    right, spread = expected(program, pair, bound, particles)
    return [near(word, getattr(epoch, word), right, SIGMAS * spread + 1e-3) for word in ("train", "valid")]


def evaluated(program: Brought, parts: bool = False) -> list[Claim]:
    pair = program.pair()
    chunk = 5 * min(pair.samples, 100) if parts else None
    e = evaluate(pair.model, pair.guide, pair.batches, num_particles=pair.samples, chunk=chunk, engine="eager")
    found = [log_px(pair, e.log_px, e.log_px_se), near("num_data", e.num_data, pair.num_data, 0)]
    if pair.exact:
        found.append(log_px(pair, e.elbo, 0.0)._replace(what="elbo"))
    if pair.x_dim is not None:
        bits = -pair.right / math.log(2) / pair.x_dim
        found.append(near("bits_per_dim", e.bits_per_dim, bits, found[0].high - found[0].low))
    return found


def log_px(pair: Pair, got: float, error: float) -> Claim:
    """log p(x) per datum; what counts once a batch may be in it or not."""
    error = 0.0 if math.isnan(error) else error
    within = pair.tolerance + 1e-2 * (error > 0) + SIGMAS * error + 0.5 * pair.num_data * error**2  # the last is bias
    low, high = sorted((pair.right, pair.reported))
    return Claim("log p(x)", got, low - within, high + within)


def estimate(pair: Pair, found) -> list[Claim]:
    """What an ``Estimate`` says."""
    return [log_px(pair, found.mean, found.mean_se), near("num_data", found.num_data, pair.num_data, 0)]


def weighed(program: Brought) -> list[Claim]:
    """Evidence by importance sampling."""
    pair = program.pair()
    return estimate(pair, importance(pair.model, pair.guide, pair.batches, num_particles=pair.samples, engine="eager"))


def rows_of(pair: Pair) -> int:
    """How many data the first batch has."""
    return one_by_one(pair, pair.first, 1).shape[1] if pair.plate else pair.num_data // sum(1 for _ in pair.batches)


def weights(program: Brought) -> list[Claim]:
    """log_weights of the first batch: their shape, and log p(x) of these data."""
    pair = program.pair()
    with torch.no_grad(), evaluating(pair):
        rows = pair.rows or rows_of(pair)
        found = log_weights(pair.model, pair.guide, *pair.first, num_particles=pair.samples)
    right = (pair.log_px[:rows].sum() if pair.per_datum else pair.log_px).item()
    share = (found - found.logsumexp(0)).exp().double()
    bias = (share.square().sum(0) - 1 / len(found)).clamp_min(0)
    within = rows * pair.tolerance + SIGMAS * bias.sum().sqrt().item() + bias.sum().item()
    columns = rows if pair.per_datum and (pair.plate or found.shape[1] > 1) else 1  # one, where q is of a whole batch
    return [near("columns", found.shape[1], columns, 0), near("sum of log p(x)", iwae(found).sum(), right, within)]


CORE: dict[str, Way] = {
    "losses": losses,
    "losses ELBO": losses_of_elbo,
    "check": checked,
    "check stock": checked_with_stock,
    "fit stock": fit_stock,
    "fit ELBO": fit_elbo,
    "fit IWAE": fit_iwae,
    "evaluate": evaluated,
    "evaluate in parts": partial(evaluated, parts=True),
    "importance": weighed,
    "log_weights": weights,
}
