"""Plates and scales: a bound on a subsample is an unbiased estimate of the bound on all data."""

from __future__ import annotations

from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1, Q, assert_close
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO

from dlvm.inference import IWAE, Renyi, log_weights

pytestmark = pytest.mark.usefixtures("float64")
XS = torch.stack([X_1, X_1 + 1, -X_1, 2 * X_1])
OBJECTIVES = pytest.mark.parametrize(
    "objective", [IWAE(1), IWAE(3), Renyi(0.5, 3), Renyi(-0.5, 3), Renyi(1.0, 3)], ids=repr
)


def programs(full: int, family=dist.MultivariateNormal, q=lambda loc: (loc + 0.2, Q.cov)):
    """Programs of (x, rows): rows None is a plate over all of x, else x[rows] stands for `full` data."""

    def plate(x, rows):
        return pyro.plate("data", full, subsample=torch.arange(len(x)) if rows is None else rows)

    def model(x, rows=None):
        with plate(x, rows) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z @ GOLDEN_1.weight.T + GOLDEN_1.mu
            pyro.sample("x", dist.Normal(mean, GOLDEN_1.s2.sqrt()).to_event(1), obs=x[i])

    def guide(x, rows=None):
        with plate(x, rows) as i:
            pyro.sample("z", family(*q(GOLDEN_1.posterior(x[i]).loc)))

    return model, guide


def drawing(z):
    """A Gaussian that draws the given z: the same particles for a datum in every subsample."""

    class Drawn(dist.MultivariateNormal):
        def rsample(self, sample_shape=torch.Size()):  # noqa: B008
            return z

    return Drawn


def particles(objective):
    z = GOLDEN_1.posterior(XS).loc + 0.4 * torch.randn(objective.num_particles, 4, 2)
    return z if objective.num_particles > 1 else z[0]


@OBJECTIVES
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_mean_over_all_subsamples_is_the_loss_on_all_data(objective, size):
    """Exactly, by enumeration, each datum keeping its particles."""
    z = particles(objective)
    whole = objective.loss(*programs(4, drawing(z)), XS)
    subsets = [torch.tensor(rows) for rows in combinations(range(4), size)]
    parts = [objective.loss(*programs(4, drawing(z[..., rows, :])), XS, rows) for rows in subsets]
    assert max(parts) - min(parts) > 1
    assert_close(sum(parts) / len(parts), whole, 1e-10)


@OBJECTIVES
def test_the_loss_of_a_batch_is_the_sum_over_its_data(objective):
    z = particles(objective)
    whole = objective.loss(*programs(4, drawing(z)), XS)
    alone = [objective.loss(*programs(1, drawing(z[..., i : i + 1, :])), XS[i : i + 1]) for i in range(4)]
    assert_close(sum(alone), whole, 1e-10)


@OBJECTIVES
def test_gradients_of_subsamples_are_unbiased_too(objective):
    z, shift = particles(objective), torch.zeros(4, requires_grad=True)

    def gradient(rows):
        kept = z if rows is None else z[..., rows, :]
        loss = objective.differentiable_loss(*programs(4, drawing(kept)), XS + shift, rows)
        return torch.autograd.grad(loss, shift)[0]

    parts = torch.stack([gradient(torch.tensor(rows)) for rows in combinations(range(4), 2)])
    assert_close(parts.mean(0), gradient(None), 1e-10)


@OBJECTIVES
@pytest.mark.parametrize("scale", [0.25, torch.tensor(0.25)], ids=["number", "0-d tensor"])
def test_a_scale_around_both_programs_scales_the_loss_exactly(objective, scale):
    model, guide = programs(full=4)
    losses = []
    for pair in ((model, guide), tuple(poutine.scale(program, scale=scale) for program in (model, guide))):
        pyro.set_rng_seed(1)
        losses.append(objective.loss(*pair, XS))
    assert losses[1] == 0.25 * losses[0]


@pytest.mark.parametrize("objective", [IWAE(1), Renyi(0.5, 3)], ids=repr)
def test_a_scale_annealed_to_zero_gives_a_loss_of_zero(objective):
    """poutine.scale refuses a scale that starts at zero; a 0-d tensor can be moved there in place."""
    scale = torch.tensor(0.25)
    both = [poutine.scale(program, scale=scale) for program in programs(4)]
    scale.zero_()
    assert objective.loss(*both, XS) == 0.0


def test_subsampling_and_scale_multiply():
    exact = programs(400, q=lambda loc: (loc, GOLDEN_1.posterior(XS).cov))
    loss = IWAE(3).loss(*(poutine.scale(program, scale=0.5) for program in exact), XS, torch.arange(4))
    assert_close(loss, -0.5 * 100 * GOLDEN_1.log_px(XS).sum(), 1e-8)


def test_scaling_inside_the_logarithm_is_no_bound_but_ours_is():
    """400 data of which the four are seen: per datum, pyro's Renyi bound passes log p(x) by far, ours stays below.

    Means of 400 estimates; 4 standard errors.
    """
    model, guide = programs(full=400)
    log_px, rows = GOLDEN_1.log_px(XS).mean(), torch.arange(4)
    theirs = RenyiELBO(alpha=0, num_particles=5, vectorize_particles=True)
    draws = {}
    for name, objective in {"pyro": theirs, "ours": IWAE(5), "elbo": Trace_ELBO()}.items():
        draws[name] = torch.tensor([-objective.loss(model, guide, XS, rows) / 400 for _ in range(400)])
    se = {name: values.std() / 20 for name, values in draws.items()}
    assert draws["pyro"].mean() - 4 * se["pyro"] > log_px + 0.3
    assert draws["ours"].mean() + 4 * se["ours"] < log_px
    assert draws["elbo"].mean() + 4 * se["elbo"] < draws["ours"].mean() - 4 * se["ours"]


def test_the_bound_per_datum_does_not_depend_on_the_plates_full_size():
    losses = []
    for full in (4, 400):
        pyro.set_rng_seed(1)
        losses.append(IWAE(5).loss(*programs(full), XS, torch.arange(4)) / full)
    assert_close(losses[0], losses[1], 1e-12)


def test_weights_do_not_depend_on_the_plates_full_size():
    log_w = []
    for full in (4, 400):
        pyro.set_rng_seed(1)
        log_w.append(log_weights(*programs(full), XS, torch.arange(4), num_particles=5))
    assert_close(log_w[0], log_w[1], 1e-12)
