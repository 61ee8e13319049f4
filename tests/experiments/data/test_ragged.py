"""Batches of sequences: as long as their longest, each sequence once an epoch, and nothing behind an end counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlvm.experiments.data import Loader
from dlvm.experiments.options.common import DataOptions
from dlvm.models import BernoulliMixture, HiddenMarkov

STEPS = 7


def loader(number: int = 23, batch_size: int = 4, shuffle: bool = True, seed: int = 0) -> Loader:
    """Sequences that bear their number at every step within their lengths, and -1 behind."""
    lengths = torch.randint(1, STEPS + 1, (number,), generator=torch.Generator().manual_seed(number))
    x = torch.arange(number).float()[:, None, None].expand(-1, STEPS, 2).clone()
    x[torch.arange(STEPS) >= lengths[:, None]] = -1
    more = {"lengths": lengths, "mask": torch.arange(STEPS) < lengths[:, None], "weight": torch.rand(number)}
    return Loader(x, batch_size, shuffle, seed=seed, more=more, kind="sequence").giving(
        "x", "lengths", "mask", "weight"
    )


def numbers(batches: list[tuple[Tensor, ...]]) -> list[int]:
    return [int(row) for x, *_ in batches for row in x[:, 0, 0]]


@settings(max_examples=30, deadline=None)
@given(number=st.integers(1, 40), batch_size=st.integers(1, 9), pool=st.integers(1, 6), shuffle=st.booleans())
def test_an_epoch_is_each_sequence_once_in_batches_that_are_as_long_as_their_longest(number, batch_size, pool, shuffle):
    data = loader(number, batch_size, shuffle).pooled(pool)
    batches = list(data)
    assert sorted(numbers(batches)) == list(range(number)) and len(batches) == len(data)
    assert all(len(x) == min(batch_size, number) for x, *_ in batches[:-1])
    for x, lengths, mask, weight in batches:
        assert x.shape[1] == mask.shape[1] == lengths.max() and weight.shape == lengths.shape
        assert torch.equal(mask.sum(1), lengths)
        assert all((row[:length] == row[0]).all() for row, length in zip(x, lengths, strict=True))
        assert torch.equal(lengths, data["lengths"][x[:, 0, 0].long()])


def test_pools_lessen_the_padding_and_depend_on_the_seed_alone():
    def padded(data: Loader) -> int:
        return sum(mask.numel() - int(mask.sum()) for _, _, mask, _ in data)

    data = loader(200, 10)
    assert padded(data.pooled(10)) < 0.3 * padded(data)
    assert numbers(list(data.pooled(5))) == numbers(list(data.pooled(5)))
    assert numbers(list(data.pooled(5))) != numbers(list(data.seeded(1).pooled(5)))
    assert numbers(list(data.pooled(5))) != numbers(list(data))


def test_a_stream_of_pools_goes_on_where_it_was_kept():
    first = loader(30, 4).pooled(3)
    list(first)
    kept = first.state_dict()
    going_on, other = numbers(list(first)), loader(30, 4, seed=9).pooled(3)
    other.load_state_dict(kept)
    assert numbers(list(other)) == going_on


def test_batches_without_lengths_are_not_cut_and_examples_are_cut_like_batches():
    data = loader(3, 2, shuffle=False)
    assert all(x.shape[1] == STEPS for (x,) in data.giving("x"))
    longest = int(data["lengths"][:2].max())
    assert data.examples[0].shape == (2, longest, 2) and data.examples[2].shape == (2, longest)


def test_the_density_of_data_in_batches_is_that_of_each_sequence_alone_whatever_lies_behind():
    torch.manual_seed(0)
    x, lengths = torch.rand(12, STEPS, 3).gt(0.5).float(), torch.randint(1, STEPS + 1, (12,))
    model = HiddenMarkov(BernoulliMixture(2, 3))
    alone = torch.stack([model.log_px(row[None, :length])[0] for row, length in zip(x, lengths, strict=True)])
    for behind in (0.0, 1.0):
        filled = torch.where((torch.arange(STEPS) < lengths[:, None])[..., None], x, behind)
        data = Loader(filled, 5, more={"lengths": lengths}, kind="sequence").giving("x", "lengths")
        torch.testing.assert_close(torch.cat([model.log_px(*batch) for batch in data]), alone)


@pytest.mark.parametrize("lengths", [[0, 1, 2], [1, 2, 8], [-1, 1, 1]])
def test_lengths_that_the_padding_does_not_have_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths must be from 1 to 7, the steps that there are"):
        Loader(torch.zeros(3, STEPS, 2), more={"lengths": torch.tensor(lengths)}, kind="sequence")


def test_lengths_that_are_no_whole_numbers_are_refused():
    with pytest.raises(TypeError, match="lengths must be a tensor of whole numbers, got torch.float32"):
        Loader(torch.zeros(3, STEPS, 2), more={"lengths": torch.ones(3)}, kind="sequence")
    with pytest.raises(ValueError, match="pool must be an int of at least 1"):
        loader().pooled(0)
    with pytest.raises(ValueError, match="name must be one of .* got 'lengths'"):
        Loader(torch.zeros(3, 2)).pooled(2)


def test_the_option_pools_training_batches_of_sequences_alone(tmp_path):
    x, lengths = torch.rand(40, STEPS, 2), torch.arange(40) % STEPS + 1
    np.savez(tmp_path / "x.npz", x=x.numpy(), lengths=lengths.numpy())

    def padded(pool: int) -> int:
        train = DataOptions(data=str(tmp_path / "x.npz"), batch_size=4, pool=pool).splits().train
        return sum(x.shape[0] * x.shape[1] - int(lengths.sum()) for x, lengths in train.giving("x", "lengths"))

    assert padded(8) < 0.5 * padded(1)
    with pytest.raises(ValueError, match="pool .--pool. is for sequences of several lengths, got digits"):
        DataOptions(pool=2).splits()
    with pytest.raises(ValueError, match="pool must be an int of at least 1, got 0"):
        DataOptions(data=str(tmp_path / "x.npz"), pool=0).splits()
