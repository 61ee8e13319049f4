"""Figures of mixtures: what they draw and say, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from matplotlib.patches import Ellipse

from dlvm.experiments.figures import distance_curves, ellipses


def texts(figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_curves_say_which_way_comes_near_first():
    runs = {
        "EM": [[(1, -3.0), (2, -2.0)], [(1, -3.0), (2, -2.001)]],
        "slow": [[(1, -9.0), (5, -2.005)]],
        "bad": [[(1, -8)]],
    }
    figure = distance_curves(runs, "five components")
    assert "EM comes within 0.01 nats of the best run after 2 passes, slow after 5, bad not at all" in texts(figure)
    far = {name: [[(1, -8)]] for name in "abcdef"}
    assert "after 2 passes, slow after 5, 6 others not at all" in texts(
        distance_curves({**runs, **far} | {"bad": runs["EM"]}, "")
    )
    bold = {line.get_linestyle(): line for line in figure.axes[0].get_lines() if line.get_linewidth() > 2}
    assert bold["-"].get_ydata().tolist() == pytest.approx([1.0, 1e-3])  # half a thousandth is below the axis
    for wrong in ({}, {"EM": []}, {"EM": [[]]}, {"EM": [[(1, float("nan"))]]}):
        with pytest.raises(ValueError, match="histories"):
            distance_curves(wrong)


def test_an_ellipse_holds_its_components_axes():
    turned = torch.tensor([[2.5, 1.5], [1.5, 2.5]])  # of variances 4 and 1, the longer one at 45 degrees
    found = torch.ones(1), torch.tensor([[1.0, 2.0]]), turned[None], -3.0
    figure = ellipses(torch.randn(9, 2), {"EM": found, "truth": found})
    first = figure.axes[0]
    (one, two) = [patch for patch in first.patches if isinstance(patch, Ellipse)]
    assert (one.width, one.height) == pytest.approx((4.0, 2.0)) and (two.width, two.height) == pytest.approx((8.0, 4.0))
    assert one.angle % 180 == pytest.approx(45) and tuple(one.center) == (1.0, 2.0)
    assert first.get_title(loc="left") == "EM, \N{MINUS SIGN}3.00"
    for x, clusters in [(torch.zeros(3, 3), {"EM": found}), (torch.zeros(3, 2), {})]:
        with pytest.raises(ValueError, match="on the plane"):
            ellipses(x, clusters)
