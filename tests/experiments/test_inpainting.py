"""Parts of images that are given: which pixels, densities of the rest, and the script that compares them, tiny."""

from __future__ import annotations

import json

import matplotlib
import pytest
import torch

from dlvm.experiments import inpainting
from dlvm.experiments.data import Loader, Splits, digits
from dlvm.experiments.figures import completions
from dlvm.experiments.inpainting import Config, by_neighbours, log_bits, nearest, rates
from dlvm.experiments.options.columns import named_columns, part, quadrants


def test_quadrants_are_where_they_are_said_to_be_and_hold_one_another():
    data = Loader(torch.zeros(2, 30), image_shape=(5, 6))
    one, two, three = (quadrants(data, n).reshape(5, 6) for n in (1, 2, 3))
    assert one.nonzero().amin(0).tolist() == [2, 0] and one.nonzero().amax(0).tolist() == [4, 2]
    assert two[:, :3].all() and not two[:, 3:].any()
    assert (~three).nonzero().amin(0).tolist() == [0, 3] and (~three).nonzero().amax(0).tolist() == [1, 5]
    assert not (one & ~two).any() and not (two & ~three).any()
    colours = quadrants(Loader(torch.zeros(2, 48), image_shape=(3, 4, 4)), 1).reshape(3, 4, 4)
    assert torch.equal(colours[0], colours[2]) and int(colours.sum()) == 12


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quadrants(digits().train, 4), "quadrants must be 1, 2 or 3"),
        (lambda: quadrants(Loader(torch.zeros(2, 4)), 1), "given quadrants need images"),
        (lambda: named_columns(Loader(torch.zeros(2, 2)), ("a",)), "given_columns must be columns of the data, 0, 1"),
        (lambda: named_columns(Loader(torch.zeros(2, 2)), ()), "name some columns and leave some, got 0 of 2"),
        (lambda: named_columns(Loader(torch.zeros(2, 2)), ("0", "1")), "name some columns and leave some, got 2 of 2"),
        (lambda: completions({}, (8, 8)), "panels: expected at least one"),
    ],
)
def test_parts_that_are_none_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_part_of_a_table_keeps_its_names_and_its_holes():
    x = torch.tensor([[1.0, torch.nan, 3.0], [4.0, 5.0, 6.0]])
    data = Loader(x, columns=("a", "b", "c"), missing=True)
    found = part(data, named_columns(data, ("b", "c")))
    assert found.columns == ("b", "c") and found.has_missing and torch.equal(found.x[1], x[1, 1:])


def test_neighbours_give_a_density_that_sums_to_one_and_copies_what_it_has_seen():
    torch.manual_seed(0)
    x = (torch.rand(50, 5) < 0.5).float()
    seen = torch.tensor([True, True, False, False, True])
    every = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0))
    near = nearest(x[:, seen], x[:9, seen], 3)
    away = (x[:9, None, seen] != x[None][:, :, seen]).sum(-1)
    assert torch.equal(away.gather(1, near), away.sort(1).values[:, :3])
    p = rates(x[:, ~seen], near[:1], 0.3).expand(4, -1)
    assert log_bits(every, p).exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    same = torch.cat([x, x])  # the second time as validation and test data: the nearest are the rows themselves
    codes = (same[:, seen] @ torch.tensor([1.0, 2.0, 4.0])).long()
    same[:, ~seen] = torch.stack([codes % 2, codes // 4], 1).float()  # what is not seen is told by what is
    data = Splits(*(Loader(same, image_shape=(1, 5)) for _ in range(3)))
    values, filled = by_neighbours(Config(), data, seen, 0)
    assert values.mean().item() > -0.1 and (filled[0] - same[: len(filled[0])]).abs().max() < 0.3


@pytest.mark.slow
def test_a_latent_tells_together_what_a_network_tells_alone(tmp_path):
    """Images of two kinds that the seen half does not tell apart: only the CVAE knows that unseen pixels agree."""
    torch.manual_seed(0)
    kind = torch.rand(600, 1) < 0.5
    x = torch.where(kind, torch.rand(600, 16) < 0.95, torch.rand(600, 16) < 0.05).float()
    x[:, :8] = (torch.rand(600, 8) < 0.5).float()
    path = tmp_path / "kinds.npz"
    import numpy as np

    np.savez(path, images=(x.reshape(600, 4, 4).mT.numpy() * 255).astype("uint8"))
    small = dict(data=str(path), quadrants=(2,), z_dim=2, hidden=(32,), epochs=30, warm_up=5, lr=5e-3, batch_size=50)
    rows = inpainting.main(Config(**small, ways=("network", "cvae"), out=tmp_path / "run"))
    found = {row["way"]: row["log_px"] for row in rows}
    assert found["network"] == pytest.approx(8 * -0.6931, abs=0.5)  # each unseen pixel by itself is a fair coin
    best = -0.6931 + 8 * (0.95 * torch.tensor(0.95).log() + 0.05 * torch.tensor(0.05).log()).item()
    assert best - 0.4 < found["cvae"] < best + 0.4
    said = json.loads((tmp_path / "run" / "result.json").read_text())["verdict"]
    assert "2 quadrants seen: CVAE is best" in said and "which images do not tell apart" not in said
    assert (tmp_path / "run" / "completions.png").exists()


def test_what_is_not_seen_is_grey_in_the_figure():
    x = torch.zeros(2, 4)
    x[:, 0] = torch.nan
    fig = completions({"1 quadrant seen": {"seen": x, "data": torch.ones(2, 4)}}, (2, 2), title="Parts")
    texts = [t.get_text() for t in fig.findobj(matplotlib.text.Text)]
    assert {"Parts", "1 quadrant seen", "seen", "data"} <= set(texts)
    picture = fig.axes[0].images[0].get_array()
    assert ((picture > 0.3) & (picture < 0.4)).any()
