"""Counts of batches with few labels: log-weights summed by hand, mixed batches, and what batches and sizes must be."""

from __future__ import annotations

from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from dlvm.distributions import DiagonalNormal, LibrarySize, NegativeBinomial
from dlvm.guides import Diagonal, Labelled, latents
from dlvm.inference import ELBO, Enumeration, generate, log_weights
from dlvm.inference.programs.pair import Pair
from dlvm.models import SCANVI
from dlvm.nets import MLP, Classes, Joined

CLASSES, GENES, BATCHES, SHARES = 3, 6, 2, torch.tensor([0.5, 0.3, 0.2])
LOC, SCALE = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.5])
Y, B = torch.tensor([0, -1, 2, -1, -1, 1]), torch.tensor([0, 1, 1, 0, 1, 0])


def pair(seed: int = 0) -> tuple[SCANVI, Labelled]:
    """A small pair, far from its start."""
    pyro.set_rng_seed(seed)
    likelihood = NegativeBinomial(Joined(MLP(2 + BATCHES, 8), [MLP(2), Classes(BATCHES)]), GENES, torch.ones(GENES) + 1)
    model = SCANVI(CLASSES, 2, likelihood, DiagonalNormal(MLP(CLASSES), 2), LibrarySize(LOC, SCALE), SHARES)
    encoder = Joined(MLP(GENES + BATCHES, 8), [MLP(GENES), Classes(BATCHES)])
    guide = Labelled(Diagonal(latents(model, torch.ones(6, GENES), None, B), encoder))
    with torch.no_grad():
        for p, far in [(p, 0.3) for p in model.parameters()] + [(p, 0.05) for p in guide.parameters()]:
            p.add_(far * torch.randn_like(p))
    return model, guide


MODEL, GUIDE = pair()
X = torch.poisson(5 * torch.rand(6, GENES, generator=torch.Generator().manual_seed(1)))


def joint_by_hand(i: int, c: int, z: Tensor, size: Tensor) -> Tensor:
    """log p(x_i, y = c, z, l | b_i) of Pyro's own negative binomial, from the numbers of the nets."""
    b = B[i : i + 1]
    rates = MODEL.likelihood.rates
    rate = size * rates(z[None], b)[0] / (2 * GENES)  # their mean is 2 in every column
    r = 1 / MODEL.likelihood.dispersion()
    counts = dist.NegativeBinomial(r, logits=rate.log() - r.log()).log_prob(X[i]).sum()
    prior = MODEL.prior(torch.eye(CLASSES)[c][None])
    library = dist.LogNormal(LOC[b[0]], SCALE[b[0]]).log_prob(size)
    return SHARES[c].log() + prior.log_prob(z[None])[0] + library + counts


def weights(y: Tensor | None, seed: int = 3) -> tuple[Tensor, poutine.Trace]:
    """log-weights of the six data at one draw, and what was drawn."""
    pyro.set_rng_seed(seed)
    trace = poutine.trace(GUIDE).get_trace(X, y, B)
    return log_weights(MODEL, poutine.replay(GUIDE, trace=trace), X, y, B)[0], trace


@pytest.mark.parametrize("y", [None, Y, torch.full((6,), -1)], ids=["no labels", "some", "none of them"])
def test_log_weights_are_sums_by_hand(y: Tensor | None) -> None:
    found, trace = weights(y)
    site = {name: trace.nodes[name] for name in ("y", "z", "library")}
    for i in range(6):
        c = int(site["y"]["value"][i].argmax())
        labelled = y is not None and int(y[i]) >= 0
        assert not labelled or c == int(y[i])
        log_q = sum(site[name]["fn"].log_prob(site[name]["value"])[i] for name in ("z", "library"))
        if not labelled:
            log_q = log_q + GUIDE.guide.posteriors[0](GUIDE.guide.features(X, None, B)).logits.log_softmax(-1)[i, c]
        expected = joint_by_hand(i, c, site["z"]["value"][i], site["library"]["value"][i]) - log_q
        assert found[i].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)


def test_the_enumerated_bound_is_the_sum_over_classes() -> None:
    objective = ELBO(1, Enumeration())
    pyro.set_rng_seed(3)
    found = objective.draw(Pair(MODEL, GUIDE), (X, Y, B), {})
    value, drawn = objective.value(found), {site["name"]: site for site in found.drawn}
    z, size = drawn["z"]["value"], drawn["library"]["value"]
    log_z, log_l = (drawn[name]["fn"].log_prob(drawn[name]["value"]) for name in ("z", "library"))
    log_y = GUIDE.guide.posteriors[0](GUIDE.guide.features(X, None, B)).logits.log_softmax(-1)
    for i in range(6):
        each = [joint_by_hand(i, c, z[c, i], size[c, i]) - log_z[c, i] - log_l[c, i] for c in range(CLASSES)]
        free = sum(log_y[i, c].exp() * (each[c] - log_y[i, c]) for c in range(CLASSES))
        expected = free if Y[i] < 0 else each[int(Y[i])]
        assert value[i].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)


def test_a_mixed_batch_is_its_two_halves() -> None:
    known = Y >= 0
    together, trace = weights(Y)
    for rows, y in ((known, Y[known]), (~known, None)):

        def drawn(*args: object, rows: Tensor = rows) -> None:
            with pyro.plate("data", int(rows.sum())):
                for name, events in (("y", 1), ("z", 1), ("library", 0)):
                    pyro.sample(name, dist.Delta(trace.nodes[name]["value"][rows], event_dim=events))

        replayed = poutine.replay(GUIDE, trace=poutine.trace(drawn).get_trace())
        torch.testing.assert_close(together[rows], log_weights(MODEL, replayed, X[rows], y, B[rows])[0])


def test_counts_drawn_in_a_batch_have_its_size_and_its_mean() -> None:
    """Where z and b change no rate, counts of all columns together have the mean of l."""
    plain = deepcopy(MODEL)
    with torch.no_grad():
        for p in plain.likelihood.rates.head.parameters():
            p.zero_()
    pyro.set_rng_seed(0)
    for b in range(BATCHES):
        total = plain(y=torch.full((20_000,), 1), b=torch.full((20_000,), b)).sum(-1)
        expected = (LOC[b] + SCALE[b] ** 2 / 2).exp().item()
        assert total.mean().item() == pytest.approx(expected, abs=4 * total.std().item() / 20_000**0.5)
    assert generate(MODEL, n=4, given={"b": torch.tensor([0, 1, 1, 0])})["library"].shape == (4,)
    assert MODEL(b=torch.tensor([1]), n=5).shape == (5, GENES)


def test_sizes_are_those_of_each_batch() -> None:
    """log-normal by moments of log totals; of all data where a batch has but one row."""
    x, b = torch.tensor([[1.0, 3.0], [7.0, 9.0], [2.0, 2.0], [5.0, 0.0]]), torch.tensor([0, 0, 0, 1])
    library, log = LibrarySize.of(x, b, 2), x.sum(1).log()
    torch.testing.assert_close(library.loc, torch.stack([log[:3].mean(), log.mean()]))
    torch.testing.assert_close(library.scale, torch.stack([log[:3].std(correction=0), log.std(correction=0)]))
    torch.testing.assert_close(library(torch.tensor([1])).mean, (log.mean() + log.var(correction=0) / 2).exp()[None])
    with pytest.raises(ValueError, match="1 rows without a count"):
        LibrarySize.of(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    "b, error, said",
    [
        (torch.tensor([0, 1, 2, 0, 0, 0]), ValueError, "got 2"),
        (torch.tensor([0, 1, -1, 0, 0, 0]), ValueError, "got -1"),
        (
            torch.tensor([0, 1]),
            ValueError,
            r"b must have one batch for each of 6 data, as x and y do, shape \(6,\), got \(2,\)",
        ),
        (torch.zeros(6, 1), ValueError, r"got \(6, 1\)"),
        ([0, 1, 0, 1, 0, 1], TypeError, "b must be a tensor of batches"),
        (None, ValueError, "which of 2 each datum is from, got None"),
    ],
)
def test_what_is_no_batch_is_refused(b: object, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        MODEL(X, Y, b)
