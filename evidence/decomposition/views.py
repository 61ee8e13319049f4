"""The ELBO seen twice: as rate and distortion, and as what the aggregate posterior makes of the rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from dlvm.evidence.decomposition.aggregate import Aggregate, aggregated
from dlvm.evidence.decomposition.record import Views
from dlvm.evidence.decomposition.totals import Totals
from dlvm.inference.particles.analytic_kl import with_analytic_kl
from dlvm.inference.particles.row_weights import RowWeights
from dlvm.inference.programs.batches import arguments, batches_of, to_device_of
from dlvm.inference.programs.chunks import walking
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.row_arguments import number_of_rows, picks_rows, rowed
from dlvm.inference.programs.rows import gathered, width_of
from dlvm.nets.arguments import count

NUMBERS_AT_ONCE = 2_000_000
OF_WHOLE_BATCHES = (
    "since data weigh otherwise alone than in their batch, lie along another axis than the first, or are rows that the "
    "batch picks by subsample=; described(model, per_datum={name: axis}) says along which axis they lie"
)


@torch.no_grad()
def views(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 32,
    aggregate: int | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Views:
    """Takes the ELBO apart: rate and distortion, and the rate once more by the aggregate posterior q(z).

        ELBO = -(rate + distortion),   rate = E_x KL(q(z | x) || p(z)),   distortion = -E_x E_q log p(x | z)

        rate = I_q(x; z) + KL(q(z) || p(z)),   q(z) = 1/N sum_n q(z | x_n)

        KL(q(z) || p(z)) = KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d))

    z is all latent sites together. The second line is estimated by draws z of q(z), with q(z) the exact mixture over
    the data given, and the third where all dimensions are independent given x in the guide, and in the prior. With a
    mixture over fewer data, I_q is too low and the KLs are too high in expectation. Where a part is not known, the
    record says why: a flow without an inverse, sites that are not in one plate over data, a prior that depends on the
    datum.

    After Ctrl-C the record is of the data that were done, or lacks the second view.

    Returns:
        a ``Views``.

    Args:
        model, guide: Pyro programs of the same signature; latents may be discrete.
        data: a tensor x, or an iterable of batches (tuples of arguments), all kept in memory.
        num_particles: per datum, for rate, distortion and moments.
        aggregate: how many data, drawn at random, q(z) is made of; all unless told.
        draws: of q(z), at least; spread evenly over its data. The cost is draws times data, in bounded memory; for a
            guide whose density runs a net per pair, as an inverse autoregressive flow, take fewer of both.
        seed: of all that is drawn.
        progress: show a bar with the time left.

    Raises:
        ValueError: a number is below 1, there are no data, data lie outside the likelihood's support, or the pair
            gives more or less than one weight per datum, or NaN.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound, Hoffman, Johnson, 2016.
        Fixing a Broken ELBO, Alemi et al., 2018, arXiv:1711.00464.
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen, Li, Grosse, Duvenaud, 2018,
        arXiv:1802.04942.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.7, arXiv:1906.02691.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> found = views(model, Diagonal(latents(model, x), MLP(3, 8)), x, draws=10)
        >>> abs(found.information.value) < 1e-6  # all data are the same
        True
    """
    count(num_particles=num_particles, draws=draws, aggregate=1 if aggregate is None else aggregate)
    started, pair = time.perf_counter(), Pair(model, guide)
    totals, weigh = Totals(num_particles), RowWeights(pair, with_analytic_kl)
    move = to_device_of(pair)
    batches = [move(arguments(batch)) for batch in batches_of(data)]
    whole = any(rowed(pair, args) is None or picks_rows(pair, args) for args in batches)
    if not whole:
        batches = [gathered(batches, partial(rowed, pair))]
    num_data, first = sum(number_of_rows(pair, args) for args in batches), batches[0]
    components = num_data if aggregate is None else min(aggregate, num_data)
    rows = max(1, NUMBERS_AT_ONCE // (num_particles * width_of(first, pair)))
    with walking(pair, seed, progress) as steps:
        walked = steps.over(
            batches, rows, lambda part, _: totals.add(weigh(part, num_particles)), "rate and distortion"
        )
        second = Aggregate(components, reason=OF_WHOLE_BATCHES if whole else "since it was interrupted")
        if walked.complete and not whole:
            with suppress(KeyboardInterrupt):
                second = aggregated(pair, first, components, draws, steps.ticks("aggregate posterior", components))
    return totals.record(second, walked.complete, time.perf_counter() - started)
