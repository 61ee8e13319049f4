"""Data are taken apart where a datum alone has the densities that it has among others, and nowhere else."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.evidence import importance
from dlvm.inference import evaluate
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.row_arguments import rowed

X = torch.linspace(-2, 2, 12).reshape(6, 2)
SAME = torch.linspace(0, 3, 6)[:, None].expand(6, 2)


def program(
    *, offset=lambda x, more: torch.zeros(2), loc=lambda x, more: x.sum(-1, keepdim=True) / 3, observes=True, size=len
):
    def run(x, more=None):
        with pyro.plate("data", size(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1) if observes else loc(x, more), 1.0).to_event(1))
            if observes:
                pyro.sample("x", dist.Normal(z + offset(x, more), 1.0).to_event(1), obs=x)

    return run


PLAIN = program(), program(observes=False)
LOCAL = torch.linspace(-1, 1, 6)[:, None]
CASES = {
    "ordinary": (*PLAIN, (X,), False),
    "rows of another argument": (program(offset=lambda x, y: y), PLAIN[1], (X, SAME), False),
    "an argument that all share": (program(offset=lambda x, y: y.mean(0)), PLAIN[1], (X, torch.ones(4, 2)), False),
    "and that is as long": (program(offset=lambda x, y: y.mean(0)), PLAIN[1], (X, SAME), False),
    "statistics of the batch": (program(offset=lambda x, y: x - x.mean(0)), PLAIN[1], (X,), True),
    "and in the guide": (PLAIN[0], program(observes=False, loc=lambda x, y: x[:, :1] - x.mean()), (X,), True),
    "a parameter for each datum": (PLAIN[0], program(observes=False, loc=lambda x, y: LOCAL[: len(x)]), (X,), True),
    "and indexed by hand": (PLAIN[0], program(observes=False, loc=lambda x, y: LOCAL), (X,), True),
    "another axis": (
        lambda x: program()(x.T),
        lambda x: program(observes=False)(x.T),
        (X.T.contiguous(),),
        True,
    ),
}


@pytest.mark.parametrize("model, guide, args, whole", CASES.values(), ids=CASES)
def test_a_batch_is_cut_where_its_data_are_independent(model, guide, args, whole):
    assert (rowed(Pair(model, guide), args) is None) is whole


def test_without_a_guide_data_that_are_not_independent_stay_together():
    """The latents of a model alone are its own draws, which must be the same ones where a datum is looked at alone."""
    assert rowed(Pair(PLAIN[0]), (X,)) == (0,)
    assert rowed(Pair(program(offset=lambda x, y: x - x.mean(0))), (X,)) is None
    assert rowed(Pair(program(offset=lambda x, y: y.mean(0))), (X, SAME)) == (0, None)


def test_a_shared_argument_as_long_as_one_batch_is_told_from_one_of_another_length():
    model = program(offset=lambda x, y: y.mean(0))
    pair = Pair(model, PLAIN[1])
    assert rowed(pair, (X, SAME[:4])) == (0, None) and rowed(pair, (X[:4], SAME[:4])) == (0, None)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0] is not CASES["another axis"][0]])
def test_evidence_of_small_chunks_is_exact_for_each_of_them(name):
    """x ~ N(z 1 + c, I), z ~ N(0, 1): log p(x) from the closed form; the guides are wrong, and importance says so."""
    model, guide, args, _ = CASES[name]
    offset = {"rows of another argument": SAME, "an argument that all share": torch.ones(2)}.get(name, torch.zeros(2))
    offset = {"and that is as long": SAME.mean(0), "statistics of the batch": X - X.mean(0)}.get(name, offset)
    cov = torch.ones(2, 2) + torch.eye(2)
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), cov).log_prob(X - offset)
    found = importance(model, guide, [args], num_particles=4000, chunk=1000)
    assert (found.log_px - exact).abs().max() < 0.15
    assert abs(evaluate(model, guide, [args], num_particles=4000, chunk=1000).log_px - exact.mean().item()) < 0.15


def test_a_batch_that_fails_when_it_is_cut_stays_whole():
    def model(x):
        with pyro.plate("data", len(x)), pyro.plate("pairs", len(x) // 2, dim=-2):  # of one row there is none
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    assert rowed(Pair(model, lambda x: None), (torch.zeros(4),)) is None


def test_data_that_look_back_by_several_rows_stay_together():
    def before(x):
        return torch.cat([x.new_zeros(5, 2), x])[: len(x)]

    x = torch.linspace(-2, 2, 60).reshape(30, 2)
    model = program(offset=lambda x, more: 2.4 * before(x))
    assert rowed(Pair(model, PLAIN[1]), (x,)) is None
    small = evaluate(model, PLAIN[1], x, num_particles=2000, chunk=100)
    cov = torch.ones(2, 2) + torch.eye(2)
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), cov).log_prob(x - 2.4 * before(x)).mean().item()
    assert abs(small.log_px - exact) < 5 * max(small.log_px_se, small.log_px_bias)
