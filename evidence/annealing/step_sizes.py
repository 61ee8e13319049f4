"""Step sizes by pilot chains, which are thrown away: no draw that counts has a say in how it is moved."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, interpolate

from dlvm.evidence.annealing.hmc import Field, transition
from dlvm.evidence.annealing.path import Path

PILOT_CHAINS = 4
PILOT_TEMPERATURES, PILOT_MOVES, MOST_MOVES = 100, 200, 15
FIRST_SIZE, FIRST_MOVES, FIRST_RATE = 0.5, 30, 0.3
RATE = 0.1
REACH = 2  # pilot temperatures on either side that a size is averaged with
JITTER = 0.2


@torch.no_grad()
def tuned(
    path: Path, field: Field, betas: Tensor, leaps: int, target: float, num_chains: int, tick: Callable[[float], None]
) -> Tensor:
    """Step sizes that bring the acceptance of each datum, at each temperature, near a target.

        log eps <- log eps + rate (acceptance - target), from b_1 to b_T, averaged over neighbouring temperatures

    Where there are many temperatures the pilot takes a hundred of them, and sizes between are interpolated.

    Returns:
        shape (T + 1, num_data); the first row, at b_0, equals the second.

    Args:
        path: where the pilot starts, and its densities.
        field: the path's terms with their slopes.
        betas: b_0..b_T.
        leaps: leapfrog steps per proposal.
        target: acceptance between 0 and 1.
        num_chains: of the pilot, per datum.
        tick: told what share is done.
    """
    count = len(betas) - 1
    taken = torch.linspace(1, count, min(count, PILOT_TEMPERATURES)).round().long()
    rates = [FIRST_RATE] * FIRST_MOVES
    point = field(path.draw(num_chains))
    log_size = torch.full_like(point.u[0, :, 0], math.log(FIRST_SIZE / point.u.shape[-1] ** 0.25))
    moves = min(MOST_MOVES, math.ceil(PILOT_MOVES / len(taken)))
    found = []
    for b in betas[taken].tolist():
        for rate in [*rates, *[RATE] * moves]:
            size = jittered(log_size.exp(), num_chains)
            point, acceptance = transition(field, point, path.weights(b), size, leaps)
            log_size = log_size + rate * (acceptance.mean(0) - target).to(log_size)
        rates = []
        found.append(log_size)
        tick(1 / len(taken))
    sizes = spread(torch.stack(found, dim=-1), count).T.exp()
    return torch.cat([sizes[:1], sizes])


def spread(log_size: Tensor, count: int) -> Tensor:
    """A moving average over the last dimension, narrower at the ends, and from there to ``count`` values by lines."""
    rows = log_size.unsqueeze(0)
    if rows.shape[-1] > 2 * REACH:
        rows = avg_pool1d(rows, 2 * REACH + 1, 1, REACH, count_include_pad=False)
    return interpolate(rows, size=count, mode="linear", align_corners=True)[0]


def jittered(size: Tensor, num_chains: int) -> Tensor:
    """Shape (num_data,) -> (num_chains, num_data), each up to a fifth off, so that no trajectory closes on itself."""
    off = torch.rand(num_chains, len(size), dtype=size.dtype, device=size.device)
    return size * (1 + JITTER * (2 * off - 1))
