"""The hidden Markov model against the sum over all paths, the mixture that one step is, and its own EM."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch.nn import functional as F

from dlvm.distributions import MarkovChain
from dlvm.evidence import exact
from dlvm.guides import ExactPosterior, FullyObserved
from dlvm.inference import ELBO, SVI, ScoreFunction, evaluate, fit_em, impute, log_weights
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair
from dlvm.models import BernoulliMixture, GaussianMixture, HiddenMarkov

STATES, STEPS = 3, 4
PATHS = F.one_hot(torch.tensor([*itertools.product(range(STATES), repeat=STEPS)]), STATES).double()
LENGTHS = torch.tensor([4, 2, 3, 1, 4])


def bits(seed: int = 0, sum_out: bool = True) -> HiddenMarkov:
    torch.manual_seed(seed)
    return HiddenMarkov(BernoulliMixture(STATES, 5), sum_out).double()


def chorale(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.rand(5, STEPS, 5).gt(0.5).double()


def by_paths(model: HiddenMarkov, x: torch.Tensor) -> torch.Tensor:
    """log p(x, z) of one whole sequence and every path, by the program itself with z observed."""
    n = len(PATHS)
    given = pyro.condition(HiddenMarkov.forward, data={"z": PATHS})
    whole = HiddenMarkov(model.mixture, sum_out=False)
    whole.transition_logits = model.transition_logits
    trace = pyro.poutine.trace(given).get_trace(whole, x.expand(n, -1, -1))
    trace.compute_log_prob()
    return trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]


def test_the_density_is_the_sum_over_all_paths_and_the_posterior_is_theirs():
    model, x = bits(), chorale()[0]
    joint = by_paths(model, x)
    torch.testing.assert_close(model.log_px(x[None])[0], joint.logsumexp(0))
    torch.testing.assert_close(model.posterior(x[None]).log_prob(PATHS), joint - joint.logsumexp(0))
    trace = pyro.poutine.trace(model).get_trace(x[None])
    torch.testing.assert_close(trace.log_prob_sum(), joint.logsumexp(0))


def test_one_step_is_the_mixture():
    model, x = bits(), chorale()[:, :1]
    torch.testing.assert_close(model.log_px(x), model.mixture.log_px(x[:, 0]))


def test_a_ragged_batch_is_each_sequence_alone_and_what_lies_behind_does_not_count():
    model, x = bits(), chorale()
    alone = torch.stack([model.log_px(x[i : i + 1, :length])[0] for i, length in enumerate(LENGTHS)])
    torch.testing.assert_close(model.log_px(x, LENGTHS), alone)
    other = torch.where(torch.arange(STEPS)[:, None] < LENGTHS[:, None, None], x, 1 - x)
    torch.testing.assert_close(model.log_px(other, LENGTHS), alone)
    hidden = HiddenMarkov(model.mixture, sum_out=False).double()
    hidden.transition_logits = model.transition_logits
    log_w = log_weights(hidden, hidden.guide, x, LENGTHS, num_particles=3)
    torch.testing.assert_close(log_w, alone.expand(3, -1))  # by the exact posterior every weight is p(x)


def test_a_step_that_was_not_seen_is_summed_out():
    model, x = bits(), chorale()[:1]
    every = torch.tensor([*itertools.product([0.0, 1.0], repeat=5)]).double()
    filled = x.repeat(len(every), 1, 1)
    filled[:, 2] = every
    holed = x.clone()
    holed[:, 2] = torch.nan
    torch.testing.assert_close(model.log_px(holed)[0], model.log_px(filled).logsumexp(0))
    torch.testing.assert_close(exact(model, holed).log_px, model.log_px(holed))
    x[0, 2, 1] = torch.nan
    with pytest.raises(ValueError, match="x has 1 steps that .* are NaN in part"):
        model.log_px(x)


def test_a_step_of_em_is_that_of_the_paths_one_by_one():
    model, x = bits(), chorale()
    shares = torch.stack([by_paths(model, row).softmax(0) for row in x])
    z = torch.einsum("np,pti->nti", shares, PATHS)
    moves = torch.einsum("np,pti,ptj->ij", shares, PATHS[:, :-1], PATHS[:, 1:])
    list(fit_em(model, x, iterations=1))
    torch.testing.assert_close(model.mixture.weights, z[:, 0].mean(0))
    torch.testing.assert_close(model.transition, moves / moves.sum(-1, keepdim=True))
    ones = torch.einsum("nti,ntd->id", z, x) / z.sum((0, 1))[:, None]
    torch.testing.assert_close(model.mixture.probabilities, ones.clamp(1e-3, 1 - 1e-3))


def test_em_finds_the_chain_that_made_the_data():
    torch.manual_seed(0)
    truth = HiddenMarkov(GaussianMixture(2, 1, "diagonal")).double()
    with torch.no_grad():
        truth.mixture.loc.copy_(torch.tensor([[-2.0], [2.0]]))
        truth.transition_logits.copy_(torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log())
    lengths = torch.randint(1, 12, (400,))
    x = truth(n=400, steps=11, lengths=lengths).detach()
    found = HiddenMarkov(GaussianMixture(2, 1, "diagonal")).double().start_at(x, lengths)
    steps = list(fit_em(found, [(x, lengths)], iterations=60))
    assert all(step.rise >= -1e-9 for step in steps[1:]) and steps[-1].log_px >= truth.log_px(x, lengths).mean()
    order = found.mixture.loc[:, 0].argsort()
    torch.testing.assert_close(found.transition[order][:, order], truth.transition, atol=0.05, rtol=0)


def test_evaluation_is_exact_and_so_is_one_without_the_lengths_that_all_have():
    model, x = bits(), chorale()
    found = evaluate(model, FullyObserved(), [(x, LENGTHS)], num_particles=3)
    assert found.log_px == pytest.approx(model.log_px(x, LENGTHS).mean().item(), abs=1e-9)


@pytest.mark.parametrize(
    "args, words",
    [
        (
            (torch.zeros(5, 5),),
            r"x must have shape \(batch, steps, 5\) and be .*, got \(5, 5\) and .*; one sequence is x\[None\]",
        ),
        ((torch.full((2, 4, 5), 0.5).double(),), "x has 8 steps that no class can have produced"),
        ((torch.zeros(2, 4, 5).double(), torch.tensor([5, 1])), "lengths must be from 1 to 4"),
        ((torch.zeros(2, 4, 5).double(), torch.tensor([4])), r"lengths must have shape \(2,\), one for each sequence"),
    ],
)
def test_what_no_sequence_is_is_refused(args, words):
    with pytest.raises(ValueError, match=words):
        bits().log_px(*args)


@pytest.mark.parametrize("sum_out", [True, False])
def test_captured_steps_are_the_eager_ones_over_batches_of_other_lengths(sum_out):
    left = []
    for engine in ("eager", "captured"):
        model, x = bits(sum_out=sum_out), chorale()
        guide = FullyObserved() if sum_out else FromPosterior(model)
        estimator = ELBO() if sum_out else ELBO(estimator=ScoreFunction())
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), estimator, engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x, lengths) for lengths in (LENGTHS, LENGTHS.flip(0), LENGTHS.clamp_max(3))]
        left.append((losses, [p.detach().clone() for p in model.parameters()], svi.running))
    assert left[1][2] == "captured" and left[0][0] == pytest.approx(left[1][0], rel=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(left[0][1], left[1][1], strict=True))


class FromPosterior(PyroModule):
    """q(z | x) with parameters of its own."""

    def __init__(self, model):
        super().__init__("guide")
        self.logits = torch.nn.Parameter(torch.zeros(STEPS, STATES).double())

    def forward(self, x, lengths=None):
        with pyro.plate("data", len(x)):
            move = torch.zeros(STATES, STATES, dtype=torch.double)
            return pyro.sample("z", MarkovChain(self.logits[0], move, self.logits.expand(len(x), -1, -1), lengths))


def test_padded_steps_are_no_numbers_and_a_guide_that_counts_them_is_refused():
    model, x = bits(), chorale()
    found = evaluate(model, FullyObserved(), [(x, LENGTHS)])
    number = 5 * LENGTHS.sum().item()
    assert found.bits_per_dim == pytest.approx(-model.log_px(x, LENGTHS).sum().item() / math.log(2) / number)
    hidden = HiddenMarkov(model.mixture, sum_out=False).double()

    def unmasked(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.OneHotCategorical(torch.ones(5, STEPS, STATES).double()).to_event(1))

    with pytest.raises(ValueError, match="latent site 'z' has a mask in the model that the guide's lacks"):
        evaluate(hidden, unmasked, [(x, LENGTHS)])


@pytest.mark.parametrize("sum_out", [True, False])
@torch.no_grad()
def test_a_step_that_was_not_seen_is_imputed_by_the_sum_over_all_paths(sum_out):
    model, x = bits(sum_out=sum_out), chorale()[:1]
    hidden = x.clone()
    hidden[:, 1] = torch.nan
    found = impute(model, ExactPosterior(model), (hidden, LENGTHS[:1]), num_draws=4000)
    every = torch.tensor([*itertools.product([0.0, 1.0], repeat=5)]).double()
    filled = x.repeat(len(every), 1, 1)
    filled[:, 1] = every
    shares = model.log_px(filled).softmax(0)
    torch.testing.assert_close(found.mean[0, 1], shares @ every)
    torch.testing.assert_close(found.sd[0, 1].square(), shares @ every - (shares @ every).square())
    drawn = (found.draws[:, 0, 1] == every[:, None]).all(-1).double().mean(1)
    assert ((drawn - shares).abs() < 4.5 * (shares * (1 - shares) / 4000).sqrt() + 1e-9).all()
    assert found.mean[0, [0, 2, 3]].equal(x[0, [0, 2, 3]])


@torch.no_grad()
def test_particles_of_ragged_sequences_are_drawn_at_once():
    model = HiddenMarkov(GaussianMixture(STATES, 2, "diagonal"), sum_out=False)
    x = torch.randn(5, STEPS, 2)
    single = weigh(Pair(model, ExactPosterior(model)), (x, LENGTHS), {}, 3)
    assert not single.parts
    torch.testing.assert_close(single.log_w, model.log_px(x, LENGTHS).expand(3, -1), rtol=0, atol=1e-4)
