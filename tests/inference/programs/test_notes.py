"""Errors of a user's own program keep their class, say where they happened, and print no long tensor."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, IWAE, SVI, NonFinite, check, evaluate, fit
from dlvm.inference.programs.errors import OutOfConstraint
from dlvm.inference.programs.notes import note, said, shorten, without_tensors
from dlvm.models import PPCA
from dlvm.nets import MLP


class Failing(PyroModule):
    """Raises an error of the user's own behind site z, on the batch that holds a nine."""

    def __init__(self, error: Exception):
        super().__init__("model")
        self.net, self.error = nn.Linear(2, 3), error

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            if (x == 9).any():
                raise self.error
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


ERRORS = [RuntimeError, NotImplementedError, AssertionError, IndexError, KeyError, ValueError, ZeroDivisionError]
WORKS = {
    "check": lambda m, g, good, bad: check(m, g, IWAE(2), bad),
    "fit": lambda m, g, good, bad: list(fit(m, g, IWAE(2), [(good,), (bad,)], epochs=1)),
    "evaluate": lambda m, g, good, bad: evaluate(m, g, [(good,), (bad,)], num_particles=30),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("work", WORKS)
def test_an_error_of_the_users_own_keeps_its_class_and_is_told_where(kind, work):
    good = torch.randn(6, 3)
    bad = good.clone()
    bad[2, 1] = 9
    model = Failing(kind("no such thing"))
    guide = Diagonal(latents(model, good), MLP(3, 4))
    with pytest.raises(kind) as caught:
        WORKS[work](model, guide, good, bad)
    text = said(caught.value)
    assert type(caught.value) is kind and "no such thing" in text
    assert "fails so on a batch (float32 of shape (6, 3)), after site 'z'" in text
    assert work == "check" or "batch 2" in text
    assert "Trace Shapes" not in text and "width" not in text


def test_the_epoch_and_batch_of_a_failing_step_are_told_with_the_remedy_for_a_batch_of_one():
    class Encoder(nn.Module):
        out_features = 4

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

        def forward(self, x):
            return self.net(x)

    model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.randn(7, 3)
    guide = Diagonal(latents(model, x), Encoder())
    with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
        list(fit(model, guide, ELBO(), [(x[:6],), (x[6:],)], epochs=1))
    text = said(caught.value)
    assert "in epoch 1, batch 2" in text and "(1, 3)" in text and "drop_last=True" in text and "width" not in text


class Bursting(PyroModule):
    """Its scale is a number without bounds, which one large step carries below zero."""

    def __init__(self):
        super().__init__("model")
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(0.0, self.scale).to_event(1), obs=x)


def test_a_scale_that_training_carries_below_zero_is_a_fault_in_numbers_that_goes_back():
    x = 0.7 * torch.randn(20, 3)
    for rollbacks in (0, 8):
        torch.manual_seed(0)
        model = Bursting()
        guide = Diagonal(latents(model, x), MLP(3, 4))
        run = fit(
            model, guide, ELBO(), [(x,)] * 3, epochs=2, seed=0, rollbacks=rollbacks,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.15),
        )  # fmt: skip
        if rollbacks:
            assert [epoch.epoch for epoch in run] == [1, 2] and (model.scale > 0).all()
            continue
        words = r"^epoch 1, batch 2: .*parameter 'scale', which must be .* of site 'x' in the model; no step was taken"
        with pytest.raises(OutOfConstraint, match=words) as caught:
            list(run)
        assert isinstance(caught.value, NonFinite) and "tensor([" not in said(caught.value)


def test_a_scale_that_is_wrong_from_the_start_is_an_error_of_the_model():
    x = torch.randn(20, 3)
    model = Bursting()
    guide = Diagonal(latents(model, x), MLP(3, 4))
    model.scale.data.fill_(-1.0)
    with pytest.raises(ValueError, match="Expected parameter scale"):
        SVI(model, guide, torch.optim.Adam, ELBO()).step(x)


def test_long_tensors_are_cut_wherever_an_error_comes_from():
    inner = ValueError(f"found {torch.arange(40.0).reshape(4, 10)} and tensor(1.) there")
    try:
        raise RuntimeError("outer\n Trace Shapes: \n x 1 2 3") from inner
    except RuntimeError as error:
        shorten(error)
        assert str(error) == "outer" and str(error.__cause__) == "found tensor(...) and tensor(1.) there"
    assert without_tensors("a tensor(1)") == "a tensor(1)"


def test_notes_stand_once():
    error = KeyError("z")
    for _ in range(2):
        note(error, "in batch 1")
    assert said(error) == "'z'; in batch 1"
