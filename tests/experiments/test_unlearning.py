"""Erasing an attribute from a decoder: where codes are moved to, what is refused, and the script in tiny form."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.experiments import unlearning
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.runs.restore import restore
from dlvm.experiments.unlearning import Config, Direction, erased_dreams, having, unlearned
from dlvm.guides import FullyObserved
from dlvm.inference import evaluate, generate
from dlvm.models import VAE, Conditional


def two_kinds() -> VAE:
    """Eight pixels: the first four are on where z_1 > 1, the last four follow z_2; so z_1 is what to erase."""
    net = nn.Linear(2, 8)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[:4, 0], net.weight[4:, 1] = 20.0, 4.0
        net.bias[:4], net.bias[4:] = -20.0, 0.0
    return VAE(2, Bernoulli(net))


def carries(x: torch.Tensor) -> torch.Tensor:
    return x[:, :4].mean(1) > 0.5


def test_codes_are_moved_back_along_the_difference_of_means_and_no_farther_than_told():
    codes = torch.tensor([[5.0, 1.0], [3.0, 1.0], [1.0, 1.0], [-1.0, 1.0]])
    direction = Direction.between(codes, torch.tensor([True, True, False, False]))
    assert torch.allclose(direction.unit, torch.tensor([1.0, 0.0])) and direction.level.item() == 0.0
    assert torch.allclose(direction.erased(codes), torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 1.0]]))
    assert torch.allclose(direction.erased(codes, 2.0)[0], torch.tensor([-5.0, 1.0]))


def test_dreams_lack_the_attribute_and_are_the_old_ones_where_they_lacked_it():
    model = two_kinds()
    direction = Direction(torch.tensor([1.0, 0.0]), torch.tensor(-0.3))
    dreams = erased_dreams(model, direction, carries, 4000, seed=0)
    before = generate(model, 4000, seed=0)
    had = carries(before["x"])
    assert torch.equal(dreams.z, before["z"]) and not carries(dreams.x).any() and dreams.redrawn == 0.0
    assert torch.equal(dreams.x[~had], before["x"][~had])
    assert dreams.carried == pytest.approx(0.1587, abs=0.025)  # P(z_1 > 1), within four standard errors
    agree = (dreams.x[had][:, 4:].mean(1) > 0.5) == (dreams.z[had][:, 1] > 0)
    assert agree.double().mean() > 0.85  # what is not erased is still told by z_2


def test_what_moving_cannot_erase_is_replaced_by_other_draws_and_said():
    model, across = two_kinds(), Direction(torch.tensor([0.0, 1.0]), torch.tensor(-9.0))
    dreams = erased_dreams(model, across, carries, 2000, seed=0)
    assert not carries(dreams.x).any() and dreams.redrawn > 0.9


@pytest.mark.slow
def test_the_decoder_forgets_and_keeps_the_rest():
    """The bound of data without the attribute stays within a fifth of a nat; prior and old model stay as they were."""
    torch.manual_seed(0)
    model = two_kinds()
    model.likelihood.net = nn.Sequential(model.likelihood.net)  # a copy is trained, and no weight of this one
    before = {name: value.clone() for name, value in model.state_dict().items()}
    direction = Direction(torch.tensor([1.0, 0.0]), torch.tensor(-0.3))
    dreams = erased_dreams(model, direction, carries, 4000, seed=0)
    found = unlearned(model, dreams, Config(unlearn_epochs=30, lr=1e-2, epochs=30))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    fresh = generate(found, 4000, seed=9)
    left, had = (carries(x).double().mean().item() for x in (fresh["x"], generate(model, 4000, seed=9)["x"]))
    assert left < 0.25 * had and had > 0.1
    drawn = generate(model, 2000, seed=5)
    z, x = (drawn[name][~carries(drawn["x"]) & (drawn["z"][:, 0] < 0.5)] for name in ("z", "x"))
    old, new = (evaluate(Conditional(each.likelihood), FullyObserved(), [(z, x)]).log_px for each in (model, found))
    assert old - new < 0.2


LABELLED = Splits(*(Loader(torch.eye(4), labels=torch.tensor([0, 0, 1, 1]), shuffle=True) for _ in range(3)))
PLAIN = Splits(*(Loader(torch.eye(4)) for _ in range(3)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: having(Config(erase=7), LABELLED),
            "class of the data, .0, 1., got 7: there is nothing",
        ),
        (lambda: having(Config(), PLAIN), "attribute class needs data with labels"),
        (lambda: Direction.between(torch.eye(3), torch.zeros(3).bool()), "got 0 of 3; there is nothing to unlearn"),
        (lambda: Direction.between(torch.eye(3), torch.ones(3).bool()), "got 3 of 3"),
        (lambda: erased_dreams(two_kinds(), ALONG, lambda x: x[:, 0] > 2, 500, 0), "got it in 0.0% of 500 draws"),
        (lambda: erased_dreams(two_kinds(), ALONG, lambda x: x[:, 0] > -1, 500, 0), "got it in 100.0% of 500 draws"),
    ],
)
def test_nothing_to_unlearn_is_a_clear_word(call, words):
    with pytest.raises(ValueError, match=words):
        call()


ALONG = Direction(torch.tensor([1.0, 0.0]), torch.tensor(0.0))


def test_rows_are_in_the_order_of_their_labels_whatever_that_of_the_batches():
    assert torch.equal(LABELLED.train.first(LABELLED.train.num_data), torch.eye(4))
    assert having(Config(erase=1), LABELLED)[0].tolist() == [False, False, True, True]


@pytest.mark.slow
def test_it_erases_a_digit_and_keeps_the_pair(tmp_path):
    small = dict(z_dim=8, erase=0, epochs=15, lr=3e-3, warm_up=3, dreams=2000, unlearn_epochs=8, eval_particles=20)
    rows = unlearning.main(Config.of(**small, out=tmp_path / "run"))
    trained, after, fresh = ({key: row[key] for key in ("share", "others", "erased")} for row in rows)
    assert after["share"] < 0.5 * trained["share"] and fresh["share"] < 0.5 * trained["share"]
    assert trained["others"] - after["others"] < 1.0 and after["erased"] < trained["erased"] - 1.0
    model, _ = restore(tmp_path / "run")
    assert isinstance(model, VAE)
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["accuracy"] > 0.95 and "after unlearning" in found["verdict"]
    with pytest.raises(ValueError, match="model must be a VAE"):
        unlearning.main(Config.of("gmvae", epochs=1, warm_up=0, out=tmp_path / "other"))
