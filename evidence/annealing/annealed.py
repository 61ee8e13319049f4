"""Annealed importance sampling, forwards for a lower bound on log p(x) and in reverse for an upper one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from dlvm.evidence.annealing.chains import Chains, Replayed
from dlvm.evidence.annealing.path import Path, Schedule, inverse_temperatures, sigmoid
from dlvm.evidence.estimate import Estimate, over
from dlvm.evidence.simulate import Simulated
from dlvm.evidence.target import Target
from dlvm.inference.particles.enumerated import to_be_summed
from dlvm.inference.programs.batches import data_in
from dlvm.inference.programs.chunks import Tick
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import batch_size
from dlvm.nets.arguments import count, real

STATES_AT_ONCE = 800


def annealed(
    model: Callable,
    data: Tensor | Iterable,
    guide: Callable | None = None,
    num_chains: int = 16,
    temperatures: int = 500,
    leaps: int = 10,
    schedule: Schedule = sigmoid,
    target_acceptance: float = 0.65,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> Estimate:
    """A lower bound on log p(x) by annealed importance sampling, as tight as the temperatures are many.

        log w = sum_t log f_t(u_{t-1}) - log f_{t-1}(u_{t-1}),   u_t ~ HMC that leaves f_t as it is,   E[w] = p(x)

        f_t(u) = p(u) p(x | u)^b_t, or q(u | x)^(1 - b_t) p(x, u)^b_t with a guide;   0 = b_0 < ... < b_T = 1

    p(x) is met in expectation for every T, since step sizes are found by pilot chains and fixed
    before those that count.

    Returns:
        an ``Estimate``, a lower bound.

    Args:
        model: a Pyro program with continuous latent sites, in one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        guide: where chains start, and what is annealed away; the prior unless told. A guide that fits needs far fewer
            temperatures.
        num_chains: per datum; at least 2 for standard errors, at least 25 for k-hat.
        temperatures: T; with 1 it is importance sampling. The gap shrinks as 1/T.
        leaps: leapfrog steps per transition, each one evaluation of model and slope.
        schedule: T -> b_0..b_T, such as ``sigmoid`` or ``linear``.
        target_acceptance: of the proposals; the step size of each datum and temperature follows it.
        rows: how many data at once; for 800 chains in all unless told.
        seed: of all that is drawn.
        progress: show a bar with the time left.
        engine: how densities and slopes are computed, as in ``SVI``; always in full precision.

    Raises:
        ValueError: a number is out of its range, the schedule does not rise from 0 to 1, a latent site is discrete or
            global, there are no data, or weights are NaN.

    References:
        Annealed Importance Sampling, Neal, 2001, arXiv:physics/9803008.
        On the Quantitative Analysis of Decoder-Based Generative Models, Wu, Burda, Salakhutdinov, Grosse, 2017,
        arXiv:1611.04273.

    Example:
        >>> import torch
        >>> from dlvm.models import PPCA
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> found = annealed(model, x, num_chains=4, temperatures=50, leaps=4)
        >>> bool((found.log_px - model.log_px(x)).abs().max() < 0.5)
        True
    """
    _check(num_chains, leaps, rows, target_acceptance)
    betas = inverse_temperatures(schedule, temperatures)
    pair = _pair(model, guide)
    chains = Chains(Replayed(pair, engine), num_chains, temperatures, leaps, target_acceptance)

    def method(args: tuple, tick: Tick) -> Estimate:
        path = Path(Target(model, args), guide)
        sizes = chains.sizes(path, betas, tick)
        return Estimate.of_weights("", chains.weights(path, path.draw(num_chains), betas, sizes, tick))

    found = over(data, method, pair, rows or _rows(num_chains), seed, progress, "annealing")
    return replace(found, method=chains.text("AIS", guide))


def reverse_annealed(
    model: Callable,
    simulated: Simulated,
    guide: Callable | None = None,
    num_chains: int = 16,
    temperatures: int = 500,
    leaps: int = 10,
    schedule: Schedule = sigmoid,
    target_acceptance: float = 0.65,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
    engine: str = "auto",
) -> Estimate:
    """An upper bound on log p(x) of simulated data, by chains from an exact posterior draw back to the start.

        log w = sum_t log f_{t-1}(u_t) - log f_t(u_t),   u_T ~ p(u | x),   E[w] = 1 / p(x)

    Together with ``annealed`` on the same data it brackets log p(x): bidirectional Monte Carlo. The chains of a datum
    start from the one exact draw there is, and first move a little at b = 1. Each is marginally right; the standard
    error is too small where they remember their start.

    Returns:
        an ``Estimate``, an upper bound.

    Args:
        model: as for ``annealed``.
        simulated: from ``simulate(model, n)``.
        others: as for ``annealed``; with the same settings and seed, step sizes are the same as there.

    Raises:
        TypeError: ``simulated`` is something else.
        ValueError: as for ``annealed``.

    References:
        Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo, Grosse, Ghahramani, Adams, 2015,
        arXiv:1511.02543.

    Example:
        >>> import torch
        >>> from dlvm.evidence.simulate import simulate
        >>> from dlvm.models import PPCA
        >>> model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
        >>> reverse_annealed(model, simulate(model, 5), num_chains=4, temperatures=50, leaps=4).side
        'upper'
    """
    if not isinstance(simulated, Simulated):
        raise TypeError(
            f"simulated must come from simulate(model, n), got {type(simulated).__name__}: reverse chains start at an "
            "exact draw from p(z | x), which real data do not have"
        )
    _check(num_chains, leaps, rows, target_acceptance)
    betas = inverse_temperatures(schedule, temperatures)
    pair = _pair(model, guide)
    chains = Chains(Replayed(pair, engine), num_chains, temperatures, leaps, target_acceptance)
    done = 0

    def method(args: tuple, tick: Tick) -> Estimate:
        nonlocal done
        target = Target(model, args)
        path, exact = Path(target, guide), exact_start(target, simulated, done)
        done += batch_size(pair, args)
        sizes = chains.sizes(path, betas, tick)
        u = chains.settled(path, exact.expand(num_chains, -1, -1).contiguous(), sizes[-1])
        return Estimate.of_weights("", chains.weights(path, u, betas.flip(0), sizes.flip(0), tick), side="upper")

    data = [simulated.args]
    found = over(data, method, pair, rows or _rows(num_chains), seed, progress, "annealing back")
    return replace(found, method=chains.text("reverse AIS", guide))


def _pair(model: Callable, guide: Callable | None) -> Pair:
    return Pair(model) if guide is None else Pair(model, guide)


def _rows(num_chains: int) -> int:
    return max(1, STATES_AT_ONCE // num_chains)


def _check(num_chains: int, leaps: int, rows: int | None, target_acceptance: float) -> None:
    count(num_chains=num_chains, leaps=leaps, rows=1 if rows is None else rows)
    real(target_acceptance=target_acceptance)
    if not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance must be between 0 and 1, got {target_acceptance}; 0.65 is usual")


def exact_start(target: Target, simulated: Simulated, start: int) -> Tensor:
    """The u of the latents that made a batch, shape (num_data, dim): for each datum an exact draw from p(u | x).

    Args:
        target: of the batch.
        simulated: all data.
        start: how many of them come before the batch.

    Raises:
        ValueError: a latent site has no value of its shape for each datum, or one that is not finite in u.
    """
    origin = torch.zeros(1, 1, target.dim, device=data_in(target.args).device)
    wanted = {name: (simulated.num_data, *value.shape[2:]) for name, value in target.values(origin).items()}
    values = simulated.values if isinstance(simulated.values, dict) else {}
    if values.keys() > wanted.keys() and (summed := to_be_summed(target.model, target.args)):
        values = {name: value for name, value in values.items() if name not in summed}
    got = {name: tuple(value.shape) if isinstance(value, Tensor) else value for name, value in values.items()}
    if got != wanted:
        raise ValueError(
            f"simulated must hold the model's latent sites with the shapes {wanted}, got {got}; pass what "
            "simulate(model, n) returns of the same model"
        )
    rows = slice(start, start + target.num_data)
    u = target.flat({name: value[rows].to(origin.device) for name, value in values.items()})
    if not u.isfinite().all():
        raise ValueError(
            f"simulated holds {int((~u.isfinite()).any(-1).sum())} data whose latents are not finite, outside of their "
            "support, or rounded to its edge; simulate them again"
        )
    return u
