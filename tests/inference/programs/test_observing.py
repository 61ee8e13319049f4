"""What a model observes of its arguments, under whatever name, and draws in their place: exact ones, or a refusal."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.inference.programs.observing import Part, drawn, parts_of
from dlvm.inference.programs.pair import Pair

X = torch.arange(1.0, 13.0).reshape(4, 3)
LABELS = torch.tensor([0, 1, 1, 0])
N = 40_000


def test_arguments_are_told_by_what_is_observed_not_by_name():
    def model(images, labels, shared):
        with pyro.plate("data", len(images)):
            pyro.sample("y", dist.Categorical(torch.ones(2)), obs=labels.clone())
            pyro.sample("first", dist.Normal(shared.sum(), 1.0), obs=images[:, 0])
            pyro.sample("rest", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=images[:, 1:] + 0.0)
            pyro.sample("known", dist.Normal(0.0, 1.0), obs=torch.zeros(4))

    found = parts_of(Pair(model), (X, LABELS, torch.zeros(3)))
    assert {name: part.position for name, part in found.items()} == {"y": 1, "first": 0, "rest": 0}
    assert found["first"].places.tolist() == [0, 3, 6, 9]
    assert found["rest"].places.tolist() == [[1, 2], [4, 5], [7, 8], [10, 11]]
    assert found["y"].places is None or found["y"].places.tolist() == [0, 1, 2, 3]


def test_an_argument_given_twice_is_observed_where_the_model_says():
    def model(x, target):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x, 1.0).to_event(1), obs=target)

    assert parts_of(Pair(model), (X, X)) == {"x": Part(1)}


def walk(x):
    """x_t ~ N(x_{t-1} / 2, 1), written with the data in place of the step before."""
    with pyro.plate("data", len(x)):
        before = torch.zeros(len(x))
        for t in range(x.shape[1]):
            pyro.sample(f"x_{t}", dist.Normal(0.5 * before, 1.0), obs=x[:, t])
            before = x[:, t]


def test_steps_are_made_of_the_steps_that_were_drawn_before():
    torch.manual_seed(0)
    x = torch.full((N, 3), 7.0)
    pair = Pair(walk)
    (found,), _ = drawn(pair, (x,), parts_of(pair, (x,)))
    lower = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.25, 0.5, 1.0]])
    assert found.mean(0).abs().max() < 0.03
    assert (found.T.cov() - lower @ lower.T).abs().max() < 0.04


def test_latents_between_data_follow_what_was_drawn():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.0, 1.0), obs=x[:, 0])
            z = pyro.sample("z", dist.Normal(x[:, 0], 0.1))
            pyro.sample("b", dist.Normal(z, 0.1), obs=x[:, 1])
            pyro.sample("last", dist.Normal(x[:, 1], 0.1))

    torch.manual_seed(0)
    pair, x = Pair(model), torch.full((N, 2), 7.0)
    (found,), values = drawn(pair, (x,), parts_of(pair, (x,)))
    assert (values["z"] - found[:, 0]).std() == pytest.approx(0.1, rel=0.03)
    assert (found[:, 1] - values["z"]).std() == pytest.approx(0.1, rel=0.03)
    assert (values["last"] - found[:, 1]).std() == pytest.approx(0.1, rel=0.03)
    assert found[:, 0].std() == pytest.approx(1.0, rel=0.03)


def test_missing_data_stay_missing():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    x = torch.where(X > 4, X, torch.nan)
    pair = Pair(model)
    (found,), _ = drawn(pair, (x,), parts_of(pair, (x,)))
    assert torch.equal(found.isnan(), x.isnan())
    assert not torch.isclose(found, x).any()


def itself(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(x.roll(1, 1) / 2, 1.0).to_event(1), obs=x)


def tilted(x):
    with pyro.plate("data", len(x)):
        pyro.factor("tilt", x[:, 0])
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("model, words", [(itself, "made of its own data"), (tilted, "'tilt' observes no argument")])
def test_what_cannot_be_drawn_is_refused(model, words):
    pair = Pair(model)
    with pytest.raises(ValueError, match=words):
        drawn(pair, (X,), parts_of(pair, (X,)))
