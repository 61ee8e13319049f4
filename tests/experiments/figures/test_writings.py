"""Sequences as they are written."""

from __future__ import annotations

import matplotlib
import pytest
import torch

from dlvm.experiments.figures import writings
from dlvm.experiments.setups.pictures import words


def test_a_row_is_written_up_to_its_end_where_it_has_one():
    assert words(torch.tensor([2, 1, 0, 0]), ("<end>", "a", "b")) == ["b", "a"]
    assert words(torch.tensor([2, 1, 0, 2]), ("c", "a", "b")) == ["b", "a", "c", "b"]
    assert words(torch.tensor([1, 1]), ("<end>", "a")) == ["a", "a"]


def test_each_label_has_its_lines_and_long_ones_are_cut():
    fig = writings({"data": ["anna", "x" * 200], "draws": ["otto", "eve"]})
    texts = [text.get_text() for text in fig.findobj(matplotlib.text.Text)]
    assert "otto\neve" in texts and f"anna\n{'x' * 44}…" in texts
    with pytest.raises(ValueError, match="at least one line for each label"):
        writings({"data": []})
