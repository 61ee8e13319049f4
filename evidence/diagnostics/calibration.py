"""Whether q(z | x) is as wide as it should be, where it should be: on data simulated from the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from numbers import Real

import pyro
import torch
from pyro import poutine
from torch import Tensor

from dlvm.evidence.diagnostics.calibration_record import JOINT, Calibration, Ranked
from dlvm.evidence.diagnostics.guide_draws import draw_each
from dlvm.evidence.simulate import simulate
from dlvm.inference.particles.enumerated import model_trace, to_be_summed
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.rows import batch_size
from dlvm.nets.arguments import count

FEWEST_DATA = 20
ROUNDING = 32


def calibration(
    model: Callable,
    guide: Callable,
    num_data: int = 1000,
    num_particles: int = 100,
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    weighted: bool = False,
    example: tuple | None = None,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    """Simulation-based calibration: ranks of the latents that made each datum among draws from the guide.

        (z*, x) ~ p(z, x),   z_1..z_L ~ q(z | x),   u = (sum_k w_k [z_k < z*] + v (1 + sum_k w_k [z_k = z*])) / (L + 1)

    v is uniform, and w_k = 1. Where q(z | x) = p(z | x), u is uniform for every dimension of every site, and for
    log p(x, z), which is ranked in the same way and sees a joint misfit that no single dimension shows. Uniform ranks
    do not prove that q is right: the prior has them for each dimension, though not for log p(x, z).

    Returns:
        a ``Calibration``.

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``, or any other with ``example``;
            latents may be discrete.
        guide: draws all of the model's latent sites.
        num_data: how many data are simulated, at least 20.
        num_particles: L per datum; at least 2.
        levels: of the central credible intervals whose coverage is counted, each between 0 and 1.
        weighted: let w_k be the importance weights, of mean 1, so that what is tested is q as corrected by them: right
            only as L grows.
        example: arguments as for a batch of data, for a model without ``n`` or with more than x; see ``simulate``.
        rows: how many data at once; picked from the width of x unless told.
        seed: of the data, and of the draws.
        progress: show a bar with the time left. After Ctrl-C the record is of the data that were done.

    Raises:
        ValueError: ``num_data``, ``num_particles`` or a level is out of its range, a latent site is not drawn by the
            guide, or lies outside the plate over data; or as for ``simulate``.
        TypeError: as for ``simulate``.

    References:
        Validating Bayesian Inference Algorithms with Simulation-Based Calibration, Talts, Betancourt, Simpson, Vehtari,
        Gelman, 2018, arXiv:1804.06788.
        Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities Shapes
        Sensitivity, Modrak, Moon, Kim, Buerkner, Huurre, Faltejskova, Gelman, Vehtari, 2023, arXiv:2211.02383.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
        >>> guide = Diagonal(latents(model, torch.zeros(5, 3)), MLP(3, 8))
        >>> found = calibration(model, guide, num_data=50, num_particles=20)
        >>> [row.name for row in found.rows]
        ['z[0]', 'z[1]', 'log p(x, z)']
    """
    _check(num_data, num_particles, levels)
    pair, simulated, started = Pair(model, guide), simulate(model, num_data, seed, example), time.perf_counter()
    parts: list[dict[str, Tensor]] = []
    done = 0

    def take(found: Particles, args: tuple) -> None:
        nonlocal done
        start, done = done, done + batch_size(pair, args)
        lacking = simulated.values.keys() - found.latents.keys()
        summed = lacking & to_be_summed(pair.model, args) if lacking else lacking
        truth = {name: value[start:done] for name, value in simulated.values.items() if name not in summed}
        parts.append({name: u.cpu() for name, u in _ranked(pair, found, args, truth, weighted).items()})

    draw_each(pair, [simulated.args], num_particles, take, rows, seed, progress, "calibration")
    ranked = [Ranked(name, torch.cat([part[name] for part in parts]), num_particles) for name in parts[0]]
    seconds = time.perf_counter() - started
    return Calibration(tuple(ranked), tuple(levels), num_particles, weighted, seconds, asked=num_data)


def _ranked(pair: Pair, found: Particles, args: tuple, truth: dict[str, Tensor], weighted: bool) -> dict[str, Tensor]:
    """{quantity: u}, shapes (num_data,)."""
    shape = found.log_w.shape
    weight = shape[0] * found.log_w.double().softmax(0) if weighted else torch.ones_like(found.log_w).double()
    drawn, ranked = found.latents, {}
    for name, value in truth.items():
        if name not in drawn or drawn[name].shape[:2] != shape or len(value) != shape[1]:
            raise ValueError(
                f"latent site {name!r} is not drawn by the guide for each datum apart; put it into the plate over data "
                "in both programs, or give it a value with poutine.condition inside poutine.block"
            )
        draws, exact = drawn[name].reshape(*shape, -1), value.reshape(shape[1], -1)
        scalar = value.dim() == 1
        for j in range(exact.shape[-1]):
            ranked[name if scalar else f"{name}[{j}]"] = _position(exact[:, j], draws[..., j], weight)
    joint, exact = found.log_p, _log_joint(pair, found, args, truth)
    slack = ROUNDING * torch.finfo(joint.dtype).eps * exact.abs()  # the same z may score otherwise in another batch
    joint = torch.where((joint - exact).abs() <= slack, exact, joint)
    ranked[JOINT] = _position(exact, joint, weight)
    return ranked


def _position(exact: Tensor, draws: Tensor, weight: Tensor) -> Tensor:
    """u of the formula above: exact (num_data,) among draws and their weights (num_particles, num_data)."""
    less, equal = (weight * (draws < exact)).sum(0), (weight * (draws == exact)).sum(0)
    return (less + torch.rand_like(less) * (1 + equal)) / (len(draws) + 1)


def _log_joint(pair: Pair, found: Particles, args: tuple, values: dict[str, Tensor]) -> Tensor:
    """log p(x, z) at given values, shape (num_data,)."""
    given = poutine.Trace()
    for name, value in values.items():
        given.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    with pyro.validation_enabled(False):
        trace = model_trace(pair.model, given, args, {}, lambda: pair.nesting(args, {}))
        trace.compute_log_prob()
    layout = found.layout._replace(num_particles=1)
    first, *others = (layout.reduce(site["unscaled_log_prob"], site) for site in sample_sites(trace))
    return sum(others, first)[0]


def _check(num_data: int, num_particles: int, levels: Sequence[float]) -> None:
    count(num_data=num_data, num_particles=num_particles)
    if num_data < FEWEST_DATA:
        raise ValueError(f"num_data must be at least {FEWEST_DATA}, got {num_data}; fewer tell nothing of uniformity")
    if num_particles < 2:
        raise ValueError(f"num_particles must be at least 2, got {num_particles}; 100 is usual")
    inside = isinstance(levels, Sequence) and [isinstance(level, Real) and 0 < level < 1 for level in levels]
    if not inside or not all(inside):
        raise ValueError(f"levels must be one or more numbers between 0 and 1, got {levels!r}; write (0.5, 0.9)")
