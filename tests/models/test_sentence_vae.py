"""The sentence VAE and its limit without latents: exact answers, ragged batches, captured steps, refusals."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pyro
import pytest
import torch
from torch import nn

from dlvm.distributions import Sentences
from dlvm.guides import Diagonal, FullyObserved, latents
from dlvm.inference import ELBO, IWAE, SVI, MaximumLikelihood, evaluate, log_weights
from dlvm.models import LanguageModel, SentenceVAE
from dlvm.nets import GRU, MLP, CausalGRU, CausalTCN, DeepSet, Embedded

TOKENS, STEPS, WIDTH = 3, 4, 6
X, LENGTHS = torch.tensor([[1, 2, 2, 1], [0, 0, 0, 0], [1, 1, 0, 0]]), torch.tensor([4, 1, 3])
READERS = {
    "gru": lambda: Embedded(GRU(WIDTH, WIDTH), TOKENS),
    "bag": lambda: Embedded(DeepSet(MLP(WIDTH, WIDTH), MLP(WIDTH, WIDTH)), TOKENS),
}
ADAM = partial(torch.optim.Adam, lr=0.01)


def pair(net: str = "gru", reader: str = "gru", drop: float = 0.0) -> tuple[SentenceVAE, Diagonal]:
    pyro.set_rng_seed(0)
    decoder = CausalGRU(TOKENS, WIDTH, 1, 5) if net == "gru" else CausalTCN(TOKENS, WIDTH, 2, 2, 5)
    model = SentenceVAE(2, Sentences(decoder, MLP(2, 5), drop=drop), steps=STEPS)
    return model, Diagonal(latents(model, X, LENGTHS), READERS[reader]())


def test_the_language_model_is_exact_and_all_its_sentences_have_the_probability_one():
    torch.manual_seed(0)
    model = LanguageModel(Sentences(CausalGRU(TOKENS, WIDTH))).double()
    every = torch.tensor([*itertools.product(range(TOKENS), repeat=STEPS)])
    every = every[model.likelihood(steps=STEPS).support.check(every)]
    log_px = log_weights(model, FullyObserved(), every, num_particles=1)[0]
    assert log_px.exp().sum().item() == pytest.approx(1.0)
    found = evaluate(model, FullyObserved(), [(X, LENGTHS)], num_particles=1)
    exact = model.likelihood(steps=STEPS, lengths=LENGTHS).log_prob(X)
    assert found.log_px == pytest.approx(exact.mean().item())
    assert found.bits_per_dim == pytest.approx(-exact.sum().item() / math.log(2) / LENGTHS.sum().item())  # per token


def test_a_latent_that_is_not_asked_leaves_the_language_model():
    model, guide = pair()
    model, guide = model.double(), guide.double()
    nn.init.zeros_(model.likelihood.net.inputs.context.weight)
    plain = LanguageModel(Sentences(CausalGRU(TOKENS, WIDTH))).double()
    plain.likelihood.net.load_state_dict(model.likelihood.net.state_dict(), strict=False)
    found = evaluate(model, guide, [(X, LENGTHS)], num_particles=400)
    exact = plain.likelihood(steps=STEPS, lengths=LENGTHS).log_prob(X).mean().item()
    assert found.distortion == pytest.approx(-exact)
    assert found.log_px == pytest.approx(exact, abs=4 * max(found.log_px_se, 0.02))
    assert found.elbo < exact - 0.01


@pytest.mark.parametrize("reader", READERS)
def test_a_ragged_batch_is_each_sentence_alone_whatever_lies_behind(reader):
    model, guide = pair(reader=reader)
    z = torch.randn(3, 2)
    given = {"z": z}

    def bound(x: torch.Tensor, lengths: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        model_trace = pyro.poutine.trace(pyro.condition(model, data={"z": z})).get_trace(x, lengths)
        guide_trace = pyro.poutine.trace(pyro.condition(guide, data={"z": z})).get_trace(x, lengths)
        model_trace.compute_log_prob(), guide_trace.compute_log_prob()
        return (
            sum(site["log_prob"] for site in model_trace.nodes.values() if "log_prob" in site)
            - (guide_trace.nodes["z"]["log_prob"])
        )

    whole = bound(X, LENGTHS, given["z"])
    alone = [bound(X[i : i + 1, :n], LENGTHS[i : i + 1], z[i : i + 1])[0] for i, n in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(whole, torch.stack(alone))
    behind = torch.where(torch.arange(STEPS) < LENGTHS[:, None], X, -7)
    torch.testing.assert_close(bound(behind, LENGTHS, z), whole)


def test_lengths_are_told_by_the_end_where_they_are_not_given():
    model, _ = pair()
    for given in (LENGTHS, None):
        trace = pyro.poutine.trace(pyro.condition(model, data={"z": torch.ones(3, 2)})).get_trace(X, given)
        assert trace.nodes["x"]["fn"].lengths.tolist() == LENGTHS.tolist()


@pytest.mark.parametrize("net, drop", [("gru", 0.0), ("tcn", 0.5)])
def test_captured_steps_are_pyros_own(net, drop):
    losses = []
    for engine in ("eager", "captured"):
        svi = SVI(*pair(net, drop=drop), ADAM, IWAE(3), engine=engine)
        losses.append([float(svi.step(X, LENGTHS)) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_word_dropout_counts_in_training_alone():
    model, guide = pair(drop=0.6)
    plain, _ = pair()
    found = [evaluate(each, guide, [(X, LENGTHS)], num_particles=5, seed=0).log_px for each in (model, plain)]
    assert found[0] == found[1]
    svi = SVI(model, guide, ADAM, ELBO(), engine="eager")
    other = SVI(plain, guide, ADAM, ELBO(), engine="eager")
    losses = []
    for each in (svi, other):
        pyro.set_rng_seed(1)
        losses.append(each.step(X, LENGTHS))
    assert losses[0] != losses[1]


def test_learning_the_model_reaches_the_entropy_of_three_sentences():
    pyro.set_rng_seed(0)
    model = LanguageModel(Sentences(CausalGRU(TOKENS, 8)), steps=STEPS)
    svi = SVI(model, FullyObserved(), partial(torch.optim.Adam, lr=0.03), MaximumLikelihood(), engine="captured")
    for _ in range(150):
        svi.step(X, LENGTHS)
    found = evaluate(model, FullyObserved(), [(X, LENGTHS)], num_particles=1).log_px
    assert -math.log(3) - 0.05 < found <= -math.log(3)
    drawn = model(n=200)
    assert (drawn[:, None] == X).all(-1).any(-1).float().mean() > 0.9


@pytest.mark.parametrize(
    "x, lengths, said",
    [
        (X, torch.tensor([4, 2, 3]), "1 rows with tokens that count behind the end, token 0"),
        (X, torch.tensor([4, 1, 5]), "lengths must be from 1 to 4"),
        (X, torch.tensor([4, 0, 3]), "lengths must be from 1 to 4"),
        (X, torch.tensor([4, 1]), r"lengths must have shape \(3,\)"),
        (X + 1, None, "rows with tokens other than 0 to 2"),
        (X.float(), LENGTHS, "x must be a tensor of whole numbers"),
        (X[0], None, r"x must have shape \(batch, steps\)"),
    ],
)
def test_sentences_that_cannot_be_are_refused_in_words(x, lengths, said):
    model, _ = pair()
    with pytest.raises((ValueError, TypeError), match=said):
        model(x, lengths)


def test_a_decoder_belongs_to_the_model_with_latents_alone():
    plain, given = Sentences(CausalGRU(3, 4)), Sentences(CausalGRU(3, 4, context=2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="likelihood must have a decoder of z"):
        SentenceVAE(2, plain)
    with pytest.raises(ValueError, match="likelihood must have no decoder"):
        LanguageModel(given)
