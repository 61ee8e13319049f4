"""Sequences as a roll or as curves, each up to its own end."""

from __future__ import annotations

import pytest
import torch

from dlvm.experiments.figures import sequences

LENGTHS = torch.tensor([4, 2])


def test_bits_make_a_roll_and_all_other_numbers_curves_up_to_the_ends():
    bits = torch.zeros(2, 4, 6)
    bits[:, :, 1:4] = 1
    roll = sequences({"data": (bits, LENGTHS), "draws": (bits, LENGTHS)}, [f"n{k}" for k in range(6)])
    images = [ax.images[0].get_array().shape for ax in roll.axes]
    assert images == [(3, 4), (3, 2)] * 2  # from the lowest number in use to the highest
    x = torch.arange(2 * 4 * 6.0).view(2, 4, 6)
    x[..., 0] *= 0
    curves = sequences({"data": (x, LENGTHS)})
    assert [len(ax.lines) for ax in curves.axes] == [4, 4]
    assert [len(ax.lines[0].get_xdata()) for ax in curves.axes] == [4, 2]


def test_what_is_no_such_sequence_is_refused():
    x = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"lengths \(n,\) from 1 to steps, got \(2, 4, 3\) and \[5, 1\]"):
        sequences({"data": (x, torch.tensor([5, 1]))})
    with pytest.raises(ValueError, match="as many sequences of as many numbers in each"):
        sequences({"data": (x, LENGTHS), "draws": (x[:1], LENGTHS[:1])})
