"""The data room: loaders, splits, binarisation, and what is refused."""

from __future__ import annotations

import doctest
import importlib
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlvm.experiments.data import Loader, Splits, digits, from_file, from_tensor, load
from dlvm.experiments.data.splits import split_rows

GREY = torch.linspace(0, 1, 12).reshape(4, 3)


def epoch(loader: Loader) -> torch.Tensor:
    return torch.cat([x for (x,) in loader])


# --- Loader


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), shuffle=st.booleans())
def test_an_epoch_is_every_row_once_in_full_batches_but_the_last(n, batch_size, shuffle):
    loader = Loader(torch.arange(n).float()[:, None], batch_size, shuffle)
    batches = [x for (x,) in loader]
    assert sorted(torch.cat(batches)[:, 0].tolist()) == list(range(n))
    assert len(batches) == len(loader)
    assert all(len(x) == batch_size for x in batches[:-1]) and 1 <= len(batches[-1]) <= batch_size


def test_batches_are_tuples_of_the_default_dtype():
    (batch,) = next(iter(Loader(torch.ones(3, 2, dtype=torch.uint8))))
    assert batch.dtype == torch.get_default_dtype()


def test_attributes():
    labels = torch.tensor([3, 1, 2, 0], dtype=torch.uint8)
    loader = Loader(GREY, 3, labels=labels, image_shape=(1, 3), name="grey")
    assert (loader.num_data, loader.x_dim, loader.batch_size, len(loader)) == (4, 3, 3, 2)
    assert loader.labels.dtype == torch.int64 and loader.labels.tolist() == [3, 1, 2, 0]
    assert repr(loader) == "Loader(grey: 4 x 3, 2 batches of 3)"


def test_the_same_seed_gives_the_same_epochs_and_another_seed_others():
    x = torch.rand(50, 4)
    one, two, other = (Loader(x, 7, shuffle=True, dynamic=True, seed=s) for s in (0, 0, 1))
    first, second = epoch(one), epoch(one)
    assert torch.equal(first, epoch(two)) and torch.equal(second, epoch(two))
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch(other))


def test_seeded_shares_the_data_and_not_the_stream():
    loader = Loader(torch.rand(30, 4), 7, shuffle=True, dynamic=True, seed=5)
    first, copy = epoch(loader), loader.seeded(5)
    assert copy.x.data_ptr() == loader.x.data_ptr()
    untouched = epoch(Loader(loader.x, 7, shuffle=True, dynamic=True, seed=5).seeded(5))
    assert torch.equal(epoch(copy), first) and torch.equal(first, untouched)
    alone, together = loader.seeded(5), loader.seeded(5)
    list(alone)
    expected = epoch(alone)
    list(together)
    epoch(loader.seeded(6))  # another run in between
    assert torch.equal(epoch(together), expected)


def test_the_global_random_state_is_neither_read_nor_moved():
    loader = Loader(torch.rand(20, 3), 6, shuffle=True, dynamic=True)
    before = torch.get_rng_state()
    first = epoch(loader.seeded(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(epoch(loader.seeded(0)), first)


def test_dynamic_draws_have_the_mean_of_the_greys():
    loader, epochs = Loader(GREY, 4, dynamic=True), 4000
    draws = torch.stack([epoch(loader) for _ in range(epochs)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    standard_error = (GREY * (1 - GREY) / epochs).sqrt()
    assert ((draws.mean(0) - GREY).abs() <= 4.5 * standard_error).all()  # exact where the grey is 0 or 1


def test_zero_is_never_drawn_as_a_one_and_one_always():
    x = torch.tensor([0.0, 1.0]).repeat(1000, 250)
    loader = Loader(x, 1000, dynamic=True)
    assert all(torch.equal(epoch(loader), x) for _ in range(8))  # a 2^-16 chance of an error would show


def test_rates_are_resolved_to_two_to_the_minus_fifteen():
    step = 2.0**-15
    p = torch.tensor([step, 1 - step, 8 * step, 0.25 + step, 1 / 255, 0.4 * step, 1 - 0.4 * step])
    rounded = torch.tensor([step, 1 - step, 8 * step, 0.25 + step, 129 * step, 0.0, 1.0])
    draws = epoch(Loader(p.expand(200_000, -1), 10_000, dynamic=True)).mean(0)
    standard_error = (rounded * (1 - rounded) / 200_000).sqrt()
    assert ((draws - rounded).abs() <= 4.5 * standard_error).all()
    assert draws[0] > 0 and draws[1] < 1


def test_neighbours_are_drawn_independently():
    draws = epoch(Loader(torch.full((20_000, 9), 0.3), 1000, dynamic=True))
    correlation = torch.corrcoef(torch.cat([draws[:-1].T, draws[1:].T])) - torch.eye(18)
    assert correlation.abs().max() < 5 / 20_000**0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (7, 5), (2, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_of_any_size_and_default_dtype(shape, dtype):
    torch.set_default_dtype(dtype)
    (batch,) = next(iter(Loader(torch.full(shape, 0.5), dynamic=True)))
    assert batch.shape == shape and batch.dtype == dtype and set(batch.unique().tolist()) <= {0.0, 1.0}


def test_draws_follow_the_rows_of_strided_data_and_of_a_shuffle():
    x = (torch.arange(60) % 7 < 3).float().reshape(6, 10).T  # certain: a draw is the row itself
    assert torch.equal(epoch(Loader(x, 4, dynamic=True)), x)
    shuffled, plain = (epoch(Loader(x, 4, shuffle=True, dynamic=dynamic)) for dynamic in (True, False))
    assert sorted(shuffled.tolist()) == sorted(x.tolist())
    assert torch.equal(shuffled, plain) and not torch.equal(shuffled, x)


@pytest.mark.parametrize("dynamic", [True, False])
def test_batches_that_are_kept_are_not_overwritten(dynamic):
    loader = Loader(torch.rand(50, 4), 10, shuffle=True, dynamic=dynamic)
    kept, copies = [], []
    for _ in range(3):
        for (x,) in loader:
            kept.append(x)
            copies.append(x.clone())
    assert torch.equal(torch.cat(kept), torch.cat(copies))
    assert len({x.data_ptr() for x in kept}) == len(kept)


def test_draws_are_not_the_numbers_that_made_the_data():
    torch.manual_seed(0)
    x = torch.rand(100, 10)  # Loader(seed=0) on the same stream would compare these with themselves
    assert abs(epoch(Loader(x, dynamic=True, seed=0)).mean() - x.mean()) < 0.05


def test_example_is_binary_and_stays_while_the_stream_moves_on():
    loader = Loader(torch.rand(30, 5), 20, shuffle=True, dynamic=True)
    example = loader.example
    epoch(loader)
    assert example.shape == (8, 5) and set(example.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(loader.example, example)
    assert torch.equal(Loader(GREY, 2).example, GREY[:2])


def test_mean_is_that_of_the_greys():
    torch.testing.assert_close(Loader(GREY, dynamic=True).mean, GREY.mean(0))


def test_take_keeps_the_first_rows_and_their_labels():
    loader = Loader(GREY, 3, labels=torch.arange(4)).take(2)
    assert torch.equal(loader.x, GREY[:2]) and loader.labels.tolist() == [0, 1] and len(loader) == 1
    with pytest.raises(ValueError, match="n must be an int from 1 to 2, got 3"):
        loader.take(3)
    certain = torch.eye(5)
    assert torch.equal(epoch(Loader(certain, 2, dynamic=True).take(3)), certain[:3])


def test_to_starts_the_stream_afresh_on_the_device():
    loader = Loader(torch.rand(20, 3), 6, shuffle=True, dynamic=True, labels=torch.arange(20))
    first = epoch(loader)
    assert torch.equal(epoch(loader.to("cpu")), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_to_moves_data_labels_and_batches():
    loader = Loader(torch.rand(20, 3), 6, shuffle=True, dynamic=True, labels=torch.arange(20)).to("cuda")
    tensors = [loader.x, loader.labels, loader.example, loader.mean, *(x for (x,) in loader)]
    assert {x.device.type for x in tensors} == {"cuda"}
    assert torch.equal(epoch(loader.seeded(3)), epoch(loader.seeded(3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(0, 3)}, "non-empty matrix, got shape (0, 3)"),
        ({"x": torch.zeros(2, 3, 4)}, "non-empty matrix, got shape (2, 3, 4)"),
        ({"x": torch.tensor([[0.0, float("nan")]])}, "got 1 NaN or inf, the first at row 0, column 1"),
        ({"x": 2 * GREY, "dynamic": True}, "must lie in [0, 1] for dynamic=True, got values from 0 to 2"),
        ({"x": GREY, "batch_size": 0}, "batch_size must be an int of at least 1, got 0"),
        ({"x": GREY, "batch_size": 2.0}, "batch_size must be an int of at least 1, got 2.0"),
        ({"x": GREY, "labels": torch.arange(3)}, "labels must have shape (4,), one per row, got (3,)"),
        ({"x": GREY, "labels": torch.zeros(4)}, "labels must be whole numbers, got dtype torch.float32"),
        ({"x": GREY, "image_shape": (2, 2)}, "image_shape must hold the 3 columns of x, got (2, 2)"),
    ],
)
def test_loader_refuses(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Loader(**arguments)


def test_loader_wants_a_tensor():
    with pytest.raises(TypeError, match="x must be a tensor, got ndarray"):
        Loader(np.zeros((2, 2)))


# --- splits and binarisation


@settings(max_examples=60, deadline=None)
@given(n=st.integers(3, 300), valid=st.floats(0.01, 0.3), test=st.integers(1, 60))
def test_split_rows_share_no_row_and_cover_all(n, valid, test):
    if n - max(1, round(n * valid)) - test < 1:
        with pytest.raises(ValueError, match="too few for valid="):
            split_rows(n, valid, test)
    else:
        rows = split_rows(n, valid, test)
        assert sorted(torch.cat(rows).tolist()) == list(range(n))
        assert [len(r) for r in rows] == [n - max(1, round(n * valid)) - test, max(1, round(n * valid)), test]


def test_digits_are_cut_as_stated_with_the_labels_of_their_rows():
    from sklearn.datasets import load_digits

    splits = digits(binarize=None)
    assert [loader.num_data for loader in splits] == [1297, 200, 300]
    assert splits.train.image_shape == (8, 8) and splits.train.x_dim == 64
    bunch = load_digits()
    theirs = np.c_[bunch.data, bunch.target]
    mine = torch.cat([torch.column_stack([16 * s.x, s.labels]) for s in splits]).numpy()
    assert np.array_equal(mine[np.lexsort(mine.T)], theirs[np.lexsort(theirs.T)])


def test_validation_and_test_are_fixed_draws_whatever_the_seed():
    one, two = digits(binarize="dynamic", seed=0), digits(binarize="dynamic", seed=1)
    assert one.train.dynamic and not one.valid.dynamic and not one.test.dynamic
    assert torch.equal(one.valid.x, two.valid.x) and torch.equal(one.test.x, two.test.x)
    assert not torch.equal(epoch(one.train), epoch(two.train))
    static = digits(binarize="static", seed=7)
    assert torch.equal(static.test.x, one.test.x) and not static.train.dynamic


def test_static_is_one_draw_with_the_mean_of_the_greys():
    grey, static = digits(binarize=None).train.x, digits(binarize="static").train.x
    assert set(static.unique().tolist()) == {0.0, 1.0}
    standard_error = (grey * (1 - grey)).sum().sqrt()
    assert (static.sum() - grey.sum()).abs() < 4 * standard_error
    assert torch.equal(static, digits(binarize="static", seed=3).train.x)


def test_threshold_is_grey_of_at_least_one_half():
    grey, threshold = digits(binarize=None), digits(binarize="threshold")
    for a, b in zip(grey, threshold, strict=True):
        assert torch.equal((a.x >= 0.5).float(), b.x)


def test_unknown_binarize_is_refused():
    with pytest.raises(ValueError, match="must be 'static', 'dynamic', 'threshold' or None.*got 'auto'"):
        digits(binarize="auto")


# --- your own arrays


def test_from_tensor_keeps_rows_labels_and_image_shape_together():
    x = torch.arange(20.0)[:, None, None].expand(20, 2, 3)
    splits = from_tensor(x, labels=np.arange(20), valid=4, test=0.25, name="mine")
    assert isinstance(splits, Splits) and [s.num_data for s in splits] == [11, 4, 5]
    for s in splits:
        assert s.image_shape == (2, 3) and s.x_dim == 6 and s.name == "mine"
        assert torch.equal(s.x[:, 5].long(), s.labels)
    assert sorted(torch.cat([s.labels for s in splits]).tolist()) == list(range(20))


def test_eight_bit_images_are_scaled_only_when_asked():
    x = np.random.default_rng(0).integers(0, 256, (30, 4), dtype=np.uint8)
    x[:, 0] = 255
    assert from_tensor(x).train.x.max() == 255
    assert from_tensor(x, binarize="dynamic", scale=255).train.x.max() == 1
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\] for binarize='static', got .*scale=255"):
        from_tensor(x, binarize="static")


def test_big_endian_arrays_are_read():
    x = np.arange(30, dtype=">f8").reshape(10, 3)
    assert sorted(torch.cat([s.x for s in from_tensor(x)])[:, 0].tolist()) == list(range(0, 30, 3))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.full((5, 2), np.inf), ValueError, "got 10 NaN or inf, the first at row 0, column 0"),
        (torch.zeros(0, 2), ValueError, "x must not be empty, got shape (0, 2)"),
        (torch.zeros(5), ValueError, "x must have 2 dimensions (rows, columns)"),
        (torch.zeros(5, 1, 1, 1, 1), ValueError, "got shape (5, 1, 1, 1, 1)"),
        (torch.zeros(2, 2), ValueError, "x has 2 rows, too few for valid=0.1 and test=0.1"),
        (np.array([["a"], ["b"]]), TypeError, "x must hold real numbers, got an array of dtype <U1"),
        (np.array([[None], [1]]), TypeError, "got an array of dtype object"),
        (torch.zeros(5, 2, dtype=torch.complex64), TypeError, "got torch.complex64"),
        ([[1.0]], TypeError, "got list"),
    ],
)
def test_from_tensor_refuses(x, error, message):
    with pytest.raises(error, match=re.escape(message)):
        from_tensor(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"valid": 1.0}, "valid must be a fraction in (0, 1) or a number of rows, got 1.0"),
        ({"test": 0}, "test must be a fraction in (0, 1) or a number of rows, got 0"),
        ({"batch_size": -1}, "batch_size must be an int of at least 1, got -1"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"labels": torch.arange(3)}, "labels must have shape (20,), one per row, got (3,)"),
    ],
)
def test_from_tensor_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_tensor(torch.zeros(20, 2), **arguments)


# --- your own files


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_the_three_formats_hold_the_same_rows(tmp_path, suffix):
    x = np.random.default_rng(1).normal(size=(25, 3))
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npy":
        np.save(path, x)
    elif suffix == ".npz":
        np.savez(path, x=x)
    else:
        np.savetxt(path, x, delimiter=",", header="a,b,c", comments="")
    splits = load(str(path))
    assert splits.train.name == "mine"
    for mine, theirs in zip(splits, from_tensor(x), strict=True):
        torch.testing.assert_close(mine.x, theirs.x)


def test_a_csv_needs_no_header_and_may_have_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("1,2\n\n3,4e0\r\n 5 ,6\n", encoding="utf-8-sig")
    splits = from_file(path)
    assert sorted(tuple(s.x[0].tolist()) for s in splits) == [(1, 2), (3, 4), (5, 6)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,oops\n", "line 3, column 2: expected a number, got 'oops'"),
        ("1,2\n3,\n", "line 2, column 2: expected a number, got ''"),
        ("1,b\n1,2\n", "line 1, column 2: expected a number, got 'b'"),
        ("1,2\n3,4\n5\n", "line 3: expected 2 columns as in line 1, got 1"),
        ("a,b\n", "holds no line of numbers"),
        ("1,2\n3,nan\n5,6\n", "got 1 NaN or inf, the first at row 1, column 1"),
    ],
)
def test_csv_faults_are_located(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_file(path)


def test_a_csv_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe1\x00,\x00")
    with pytest.raises(ValueError, match="is no utf-8 text"):
        from_file(path)


def test_several_arrays_need_a_key(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, b=np.zeros((9, 2)), a=np.ones((9, 2)))
    assert from_file(path, key="a").train.x.min() == 1
    for key in (None, "c"):
        message = f"key must name one of the arrays of x.npz, ['a', 'b'], got {key!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            from_file(path, key=key)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_and_damaged_files_are_refused_unopened(tmp_path):
    bombs = np.array([[Bomb()]], dtype=object)
    np.savez(tmp_path / "objects.npz", bombs)
    np.save(tmp_path / "objects.npy", bombs)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    np.savez_compressed(tmp_path / "good.npz", np.random.default_rng(0).normal(size=(99, 9)))
    damaged = bytearray((tmp_path / "good.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(damaged)
    (tmp_path / "short.npz").write_bytes(damaged[:300])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in "objects.npz objects.npy pickle.npy pickle.npz flipped.npz short.npz empty.npy".split():
        with pytest.raises(ValueError, match=rf"{name} is no readable file of plain numpy arrays"):
            from_file(tmp_path / name)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: no file .*none.npy"):
        from_file(tmp_path / "none.npy")
    (tmp_path / "x.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match="path must be a .npy, .npz, .*, got x.xlsx"):
        from_file(tmp_path / "x.xlsx")
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    with pytest.raises(ValueError, match="key='a' names an array of a .npz file, got x.npy"):
        from_file(tmp_path / "x.npy", key="a")


# --- by name


def test_load_leaves_the_default_to_the_data_set_and_passes_the_rest_on():
    assert load("digits").train.dynamic
    assert load("digits", binarize=None, batch_size=7).train.batch_size == 7
    with pytest.raises(ValueError, match="must be digits, mnist, fashion_mnist, binarized_mnist.* or the path of a"):
        load("cifar")
    with pytest.raises(ValueError, match="scale is for files, got {'scale': 255} for digits"):
        load("digits", scale=255)


ROOM = """_torchvision by_name checks draws files images larochelle loader rows splits user_data
    description prepare readers.any_file readers.arrays readers.found readers.tables readers.text""".split()


@pytest.mark.parametrize("name", ROOM)
def test_docstring_examples(name):
    module = importlib.import_module(f"dlvm.experiments.data.{name}")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, optionflags=flags).failed == 0
