"""What holds of every model of sequences and the guide that scripts give it: padding, lengths, holes, any T."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from small_models import OWN_ALONE, SMALLER, STEPS, WORDS, data

from dlvm.evidence import importance
from dlvm.experiments.options.guides import own
from dlvm.experiments.setups.named import named
from dlvm.experiments.setups.sequences import SequenceSetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.guides import IAF, Diagonal
from dlvm.inference import ELBO, IWAE, SVI, Enumeration

EACH = [word for word in WORDS if issubclass(named(word), SequenceSetup)]
FEW = 7


def made(word, family=None):
    """A pair in double precision, and seven sequences of lengths 1 to 6 as its arguments."""
    pyro.set_rng_seed(0)
    setup = named(word)(**SMALLER[word])
    family = family or (own if word in OWN_ALONE else Diagonal)
    model, guide = fresh_pair(setup, data(setup), family, observed=True)
    batch = [part[:FEW].clone() for part in data(setup).examples]
    batch = [part.double() if part.is_floating_point() else part for part in batch]
    return model.double(), guide.double(), batch


def weights(model, guide, batch):
    """Bounds on log p(x) by three draws, of each sequence under noise of its own, which others do not move."""
    return torch.cat([estimate(model, guide, [part[row : row + 1] for part in batch], 3) for row in range(FEW)])


def estimate(model, guide, batch, num_particles):
    return importance(model, guide, [tuple(batch)], num_particles=num_particles, engine="eager").log_px


def behind(batch, value):
    """The batch with another number behind each length."""
    x, lengths, *others = batch
    counts = torch.arange(x.shape[1]) < lengths[:, None]
    return [torch.where(counts.reshape(counts.shape + (1,) * (x.dim() - 2)), x, value), lengths, *others]


@pytest.mark.parametrize("word", EACH)
def test_what_stands_behind_a_length_counts_nothing(word):
    model, guide, batch = made(word)
    expected = weights(model, guide, batch)
    for value in (torch.nan, 1e6) if batch[0].is_floating_point() else (3, 0):
        torch.testing.assert_close(weights(model, guide, behind(batch, value)), expected)


@pytest.mark.parametrize("word", EACH)
def test_room_behind_the_last_step_changes_nothing(word):
    """A sequence alone, cut to its steps, has the bound of one whose batch has room for more."""
    model, guide, batch = made(word)
    x, lengths, *others = batch
    row = int((lengths < STEPS).nonzero()[-1])
    steps, found = int(lengths[row]), []
    for room in (STEPS, steps):
        cut = [x[row : row + 1, :room], lengths[row : row + 1], *(o[row : row + 1, :room] for o in others)]
        found.append(importance(model, guide, [tuple(cut)], num_particles=5000, engine="eager"))
    error = sum(float(estimate.log_px_se.nan_to_num(0.0)) ** 2 for estimate in found) ** 0.5  # NaN of exact numbers
    assert abs(float(found[0].log_px - found[1].log_px)) < 4 * error + 1e-9


BAD = {
    "longer than the room": (lambda n: torch.full((FEW,), STEPS + 1), ValueError, "lengths must be from 1 to 6"),
    "zero": (lambda n: torch.cat([n[:-1], n.new_zeros(1)]), ValueError, "lengths must be from 1 to 6"),
    "negative": (lambda n: -n, ValueError, "lengths must be from 1 to 6"),
    "of another batch": (lambda n: n[:-1], ValueError, "lengths must have shape"),
    "real numbers": (lambda n: n.double(), TypeError, "lengths must be .*whole numbers"),
    "truth values": (lambda n: n > 2, TypeError, "lengths must be .*whole numbers"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("word", EACH)
def test_lengths_that_cannot_be_are_refused_by_name(word, bad):
    model, guide, (x, lengths, *others) = made(word)
    change, error, words = BAD[bad]
    with pytest.raises(error, match=words):
        model(x, change(lengths), *others)
    with pytest.raises(error, match="lengths must"):
        ELBO().loss(model, guide, x, change(lengths), *others)


@pytest.mark.parametrize("word", EACH)
def test_a_hole_inside_a_sequence_is_summed_out_or_refused_in_words(word):
    model, guide, batch = made(word)
    x, lengths, *others = batch
    if not x.is_floating_point():
        return  # tokens have no NaN
    row = int((lengths == STEPS).nonzero()[0])
    x = x.clone()
    x[row, 2] = torch.nan
    try:
        found = estimate(model, guide, [x, lengths, *others], 3)
    except ValueError as error:
        assert any(said in str(error) for said in ("NaN", "not seen", "missing")), error
    else:
        assert found.isfinite().all()
        before = weights(model, guide, batch)
        after = weights(model, guide, [x, lengths, *others])
        assert torch.equal(before[:row], after[:row]) and before[row] != after[row]


@pytest.mark.slow
@pytest.mark.parametrize("family", [None, IAF], ids=["diagonal", "iaf"])
@pytest.mark.parametrize("word", EACH)
def test_captured_steps_are_the_eager_ones_over_batches_of_other_lengths(word, family):
    if family is not None and word in OWN_ALONE:
        return
    left = []
    for engine in ("eager", "captured"):
        model, guide, (x, lengths, *others) = made(word, family)
        objective = ELBO(estimator=Enumeration()) if named(word).defaults.get("estimator") == "enumeration" else IWAE(2)
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), objective, engine=engine)
        losses = []
        for steps in (STEPS, STEPS, 4, 4, STEPS, 4):
            cut = [part[:, :steps] for part in (x, *others)]
            counts = lengths.clamp_max(steps)
            if not x.is_floating_point():
                cut[0] = cut[0] * (torch.arange(steps) < counts[:, None] - 1)  # a sentence ends where it is cut
            losses.append(svi.step(cut[0], counts, *cut[1:]))
        left.append((losses, [p.detach().clone() for p in (*model.parameters(), *guide.parameters())], svi.running))
    assert left[1][2] == "captured"
    assert left[0][0] == pytest.approx(left[1][0], rel=1e-9)
    for eager, captured in zip(left[0][1], left[1][1], strict=True):
        torch.testing.assert_close(eager, captured, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "word",
    [
        "linear_gaussian_ssm",
        "switching_ssm",
        "ornstein_uhlenbeck",
        "hidden_markov",
        "autoregressive_hmm",
        "factorial_hmm",
    ],
)
def test_gaussians_of_bits_are_said_to_be_densities(word, monkeypatch):
    said = []
    monkeypatch.setattr("dlvm.experiments.setups.sequences.say", said.append)
    options = {"emission": "gaussian"} if word.endswith(("markov", "hmm")) else {}
    setup = named(word)(**SMALLER[word], **options)
    setup.model(data(setup))
    assert len(said) == 1 and "under Gaussians nats are of a density" in said[0] and "gives probabilities" in said[0]
