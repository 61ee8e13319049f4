"""A second opinion on log p(x): draws from the prior, on data whose log p(x) is known."""

from __future__ import annotations

import logging
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from dlvm.inference import console, evaluate, verdict
from dlvm.inference.evaluation import second_opinion
from dlvm.inference.evaluation.second_opinion import Opinion, SecondOpinion

CENTRES = torch.tensor([-2.0, 2.0])


def two_modes(x: Tensor) -> None:
    """p(x) = 1/2 N(-2, 1) + 1/2 N(2, 1)."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(CENTRES[c.long()], 1.0), obs=x)


def stuck(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Bernoulli(1.0))


def deciding(x: Tensor) -> None:
    """p(c | x)."""
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Bernoulli(logits=4 * x))


LEFT = torch.linspace(-3.0, -1.0, 40)


def test_a_guide_on_the_wrong_one_of_two_modes_is_contradicted_and_not_called_collapsed():
    found = evaluate(two_modes, stuck, LEFT, num_particles=400)
    exact = torch.logsumexp(dist.Normal(CENTRES, 1.0).log_prob(LEFT[:, None]), 1) - math.log(2)
    by_guide = dist.Normal(2.0, 1.0).log_prob(LEFT) - math.log(2)
    assert found.log_px == pytest.approx(by_guide.mean().item(), abs=1e-5)
    asked = torch.linspace(0, 39, 16).long()
    assert found.second_opinion == pytest.approx((exact - by_guide)[asked].mean().item(), abs=0.1)
    assert (found.second_opinion_data, found.fixed_units, found.active_units) == (16, 1, 0)
    said = verdict(found)
    assert said.trustworthy is False and "which misses a part of the posterior" in str(said)
    assert "1 of 1 latent units have one answer for all x, and not the prior's" in str(said)


def test_where_both_agree_the_estimate_is_vouched_for():
    def wide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.9))

    found = evaluate(gaussian, wide, torch.linspace(-1.0, 1.0, 40), num_particles=500)
    assert abs(found.second_opinion) < found.second_opinion_margin < 0.2 and found.second_opinion_ess > 100
    assert found.verdict.count("agree within") == 1 and verdict(found).trustworthy


def gaussian(x: Tensor) -> None:
    """p(x) = N(0, 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior_below_zero(x: Tensor) -> None:
    """p(z | x) where x < 0; elsewhere far too low and narrow, where all weights are alike."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.where(x < 0, x / 2, x / 2 - 3), torch.where(x < 0, 0.5**0.5, 0.01)))


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_data_are_asked_for_from_all_batches_and_held_against_their_own_estimates(rows):
    """log p(x) differs by 100 nats between data; then sorted data, of which the guide fails for the last."""
    x = torch.linspace(-20.0, -1.0, 40)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x)
    near = evaluate(narrow_prior, narrow_posterior, [(part,) for part in x.split(rows)], num_particles=300)
    assert abs(near.second_opinion) < 0.01 and 12 <= near.second_opinion_data <= 16
    assert exact.std() > 30
    ends = torch.cat([torch.linspace(-2.0, -0.1, 36), torch.tensor([1.0, 1.5, 2.0, 2.5])])
    far = evaluate(gaussian, posterior_below_zero, [(part,) for part in ends.split(rows)], num_particles=300)
    assert far.second_opinion > 0.5 and verdict(far).trustworthy is False


def narrow_prior(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1e-3))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def narrow_posterior(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x * 1e-6, 1e-3))


def test_the_estimates_and_the_random_stream_are_those_without_it(monkeypatch):
    x = torch.linspace(-1.0, 1.0, 40)
    pyro.set_rng_seed(5)
    before = torch.get_rng_state()
    found = vars(evaluate(gaussian, posterior_below_zero, [(x[:30],), (x[30:],)], num_particles=50))
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(SecondOpinion, "look", lambda self, args: None)
    alone = vars(evaluate(gaussian, posterior_below_zero, [(x[:30],), (x[30:],)], num_particles=50))
    changed = {name for name in found if found[name] != alone[name]}
    assert changed == {name for name in found if name.startswith("second_opinion")}


def timid(x: Tensor) -> None:
    """Fails on what only the prior draws."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        assert z.min() > -3.4, "z is a length"
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def above_zero(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(5.0 + 0 * x, 0.1))


def test_a_model_that_fails_on_its_prior_is_evaluated_and_it_is_said_why_there_is_no_second_opinion(
    caplog, monkeypatch
):
    monkeypatch.setattr(console, "_said", set())
    x = torch.full((20,), 5.0)
    with caplog.at_level(logging.INFO, "dlvm"):
        found = evaluate(timid, above_zero, x, num_particles=1000)
    assert math.isfinite(found.log_px) and math.isnan(found.second_opinion) and found.complete
    assert any("no second opinion" in line and "z is a length" in line for line in caplog.messages)
    assert verdict(found).trustworthy is not True


def test_ctrl_c_in_it_keeps_the_estimates(monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(second_opinion, "weigh_rows", interrupt)
    found = evaluate(two_modes, deciding, LEFT, num_particles=50)
    assert found.complete and found.num_data == 40 and math.isnan(found.second_opinion)


def test_few_draws_contradict_only_beyond_what_chance_allows(monkeypatch):
    """One draw of 1000 counts: a mean weight e^t too large has a probability of at most e^-t, for n data e^(-n t)."""
    x = torch.linspace(8.0, 9.0, 16)
    found = evaluate(sharp, sharp_posterior, x, num_particles=1000)
    assert found.second_opinion_ess < 10
    assert found.second_opinion_margin == pytest.approx(0.01 + math.log(1000) / 16, abs=0.02)
    assert found.second_opinion < found.second_opinion_margin
    assert Opinion().num_data == 0


def sharp(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 0.1), obs=x)


def sharp_posterior(x: Tensor) -> None:
    cov = torch.eye(5) - torch.ones(5, 5) / 5.01
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x[:, None].expand(-1, 5) / 5.002, cov))
