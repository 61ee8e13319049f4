"""Signal and noise of gradients: many draws of each estimator's, and what their moments say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Literal, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from dlvm.inference import Objective

LIMIT = 4.0  # standard errors that tell a squared distance from zero
FITTED = 3  # points at the right end of a curve that its slope is fitted to
ROUNDING = 1e-4  # relative differences below this are the arithmetic's


class Arm(NamedTuple):
    """A way to get a gradient: an objective for each number of particles, and what is known of it beforehand.

    ``theory`` holds the slopes of the signal-to-noise ratio in log-log, of the model's and the guide's gradient. Arms
    of one ``target`` estimate the same gradient, and share the signal of the least noisy, unless the guide's is biased.
    """

    name: str
    objective: Callable[[int], Objective]
    target: str
    theory: tuple[float | None, float | None] = (None, None)
    biased_guide: bool = False
    least: int = 1


class Group(NamedTuple):
    """Parameters whose gradient is looked at as one vector."""

    name: str
    program: Literal["model", "guide"]
    parameters: list[nn.Parameter]


class Setting(NamedTuple):
    """A pair of programs, the data whose gradient is measured, and those that baselines get used to."""

    model: nn.Module
    guide: nn.Module
    x: Tensor
    groups: list[Group]
    others: Iterable[tuple[Tensor, ...]]


def gradients(objective: Objective, setting: Setting, repeats: int) -> dict[str, Tensor]:
    """The gradient of the loss, nats per datum, under fresh noise each time: {group: (repeats, parameters)}."""
    parameters = [p for group in setting.groups for p in group.parameters]
    sizes = [sum(p.numel() for p in group.parameters) for group in setting.groups]
    drawn = []
    for _ in range(repeats):
        loss = objective.differentiable_loss(setting.model, setting.guide, setting.x) / len(setting.x)
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        drawn.append(torch.cat([gradient.flatten() for gradient in found]))
    return {g.name: part for g, part in zip(setting.groups, torch.stack(drawn).split(sizes, 1), strict=True)}


def accustom(objective: Objective, setting: Setting, passes: int) -> None:
    """Lets a baseline see the data, and trains what is to be; model and guide stay as they are."""
    if not {**objective.estimator.state_dict()}:
        return
    learnt = list(objective.parameters())
    adam = torch.optim.Adam(learnt, lr=1e-2) if learnt else None
    for batch in chain.from_iterable(repeat(setting.others, passes)):
        loss = objective.differentiable_loss(setting.model, setting.guide, *batch)
        if adam is not None:
            for parameter, gradient in zip(learnt, torch.autograd.grad(loss, learnt), strict=True):
                parameter.grad = gradient / len(batch[0])
            adam.step()


class Moments(NamedTuple):
    """Of a random vector from n draws: |mean|^2 without bias, its standard error if the mean is zero, and the trace
    of the covariance."""

    square: float
    se: float
    variance: float

    @property
    def resolved(self) -> bool:
        """Whether the mean is told from zero."""
        return self.square > LIMIT * self.se

    @property
    def norm(self) -> float:
        """|mean|, or an upper limit on it where it is not told from zero."""
        return math.sqrt(self.square if self.resolved else max(self.square, 0.0) + LIMIT * self.se)


def moments(draws: Tensor) -> Moments:
    """Moments of independent draws, shape (n, dim): inner products of different ones average to |mean|^2."""
    n = len(draws)
    inner = (draws.double() @ draws.double().T).clone()
    own = inner.diagonal().mean().item()
    inner.fill_diagonal_(0.0)
    square = inner.sum().item() / (n * (n - 1))
    return Moments(square, math.sqrt(2 * inner.square().sum().item()) / (n * (n - 1)), max(own - square, 0.0))


def distance(draws: Tensor, true: Tensor, norm: float) -> tuple[float, bool]:
    """How far the mean of draws is from that of others, in units of ``norm``, and whether that is told from zero."""
    found = moments(draws - true)
    share = found.norm / norm
    return max(share, ROUNDING), found.resolved and share > ROUNDING


def measure(
    setting: Setting, arms: Sequence[Arm], counts: Sequence[int], repeats: int, passes: int, seed: int
) -> list[dict]:
    """One row for each arm, number of particles and group of parameters.

    Args:
        setting: what is measured on.
        arms: the ways to get a gradient.
        counts: numbers of particles.
        repeats: gradients drawn for each.
        passes: over the setting's other data, for baselines.
        seed: of the noise, the same for every arm.
    """
    rows = []
    for count in counts:
        draws, seconds = {}, {}
        for arm in (arm for arm in arms if count >= arm.least):
            pyro.set_rng_seed(seed)
            objective = arm.objective(count)
            with pyro.get_param_store().scope():
                accustom(objective, setting, passes)
                pyro.set_rng_seed(seed)
                started = time.perf_counter()
                draws[arm] = gradients(objective, setting, repeats)
            seconds[arm] = (time.perf_counter() - started) / repeats
        for group in setting.groups:
            mine = {arm: found[group.name] for arm, found in draws.items()}
            rows += [
                {"group": group.name, "program": group.program, "num_particles": count, "seconds": seconds[row["arm"]]}
                | {"theory": row["arm"].theory[group.program == "guide"], "estimator": row.pop("arm").name}
                | row
                for row in compared(mine, group.program)
            ]
    return rows


def compared(draws: dict[Arm, Tensor], program: str) -> list[dict]:
    """Signal, noise and bias of each arm's gradient of one group, one row each."""
    known = {arm: moments(found) for arm, found in draws.items()}
    skewed = {arm for arm in draws if arm.biased_guide and program == "guide"}
    rows = []
    for arm, own in known.items():
        if own.variance == 0:
            continue
        fair = [other for other in known if other.target == arm.target and other not in skewed]
        best = min(fair, key=lambda other: known[other].variance)
        signal = own if arm in skewed else known[best]
        bias, biased = None, False
        if arm is not best and known[best].resolved:
            bias, biased = distance(draws[arm], draws[best], known[best].norm)
        rows.append(
            {
                "arm": arm,
                "snr": signal.norm / math.sqrt(own.variance),
                "resolved": signal.resolved,
                "signal": signal.norm,
                "variance": own.variance,
                "bias": bias,
                "biased": biased,
            }
        )
    return rows


def measure_against(
    setting: Setting,
    arms: Mapping[str, Callable[[], Objective]],
    unbiased: str,
    times: int,
    repeats: int,
    passes: int,
    seed: int,
) -> list[dict]:
    """Bias and noise of each arm's gradient in units of the true one; a row for each arm and group of parameters.

    Args:
        setting: what is measured on.
        arms: {name: makes an objective}.
        unbiased: the arm whose mean over ``times`` as many draws, of other noise, stands for the truth.
        times: how many more.
        repeats, passes, seed: as in ``measure``.
    """
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(seed + 1)
        many = gradients(arms[unbiased](), setting, times * repeats)
    true = {name: found.unflatten(0, (repeats, -1)).mean(1) for name, found in many.items()}
    rows = []
    for name, make in arms.items():
        pyro.set_rng_seed(seed)
        objective = make()
        with pyro.get_param_store().scope():
            accustom(objective, setting, passes)
            pyro.set_rng_seed(seed)
            draws = gradients(objective, setting, repeats)
        for group, found in draws.items():
            norm, variance = moments(true[group]).norm, moments(found).variance
            bias, biased = distance(found, true[group], norm)
            noise = math.sqrt(variance) / norm
            rows.append(
                {"group": group, "estimator": name, "noise": noise, "bias": bias, "biased": biased}
                | {"variance": variance, "signal": norm}
            )
    return rows


def curves(rows: Sequence[dict]) -> dict[tuple[str, str], list[dict]]:
    """Rows of one group and estimator together, groups in the order in which they first come."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["group"], row["estimator"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: [row["group"] for row in rows].index(item[0][0])))


def slope(rows: Sequence[Mapping[str, Any]], value: str = "snr") -> float | None:
    """The exponent s of value ~ num_particles^s at the largest particle numbers, by least squares in log-log.

    Args:
        rows: mappings with ``num_particles``, ``value`` and ``resolved``, as ``measure`` makes them.
        value: "snr" or "variance".

    Returns:
        The exponent from the last three rows; None if there are fewer than two, or if one of the ratios is not
        resolved.
    """
    last = sorted(rows, key=lambda row: row["num_particles"])[-FITTED:]
    if len(last) < 2 or (value == "snr" and not all(row["resolved"] for row in last)):
        return None
    counts, values = np.log([[row["num_particles"], row[value]] for row in last]).T
    return float(np.polyfit(counts, values, 1)[0])
