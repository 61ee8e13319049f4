"""Rows of any shape, type, layout and size come out of loaders as they went in; damaged files never as other ones."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st

from dlvm.experiments.data import Loader, from_file, from_tensor, load
from dlvm.experiments.data.files import read_idx

NUMBERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">f8", ">i2", "g"]
LITTLE = 16 << 20


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def epoch(loader: Loader) -> torch.Tensor:
    return torch.cat([x for (x,) in loader])


def in_order(x: np.ndarray) -> np.ndarray:
    """Rows in lexicographic order: what stays the same however they are permuted."""
    return x[np.lexsort(x.T[::-1])]


@st.composite
def arrays(draw) -> np.ndarray:
    """Rows or images of any numeric type; plain, in Fortran's order, reversed, a column of a larger array, repeated."""
    shape = draw(st.sampled_from([(3, 1), (5, 2), (40, 3), (9, 2, 3), (6, 1, 2, 2)]))
    dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
    greys = np.random.default_rng(draw(st.integers(0, 99))).random(shape)
    x = (greys * draw(st.sampled_from([1, 2, 120])) - (dtype.kind in "if") * 0.5).astype(dtype)
    kind = draw(st.sampled_from(["plain", "fortran", "reversed", "strided", "repeated"]))
    if kind == "fortran":
        x = np.asfortranarray(x)
    elif kind == "reversed":
        x = x[::-1]
    elif kind == "strided":
        x = np.stack([x, x], -1)[..., 0]
    elif kind == "repeated":
        x = np.broadcast_to(x[:1], x.shape)
    return x


@quick(60)
@given(arrays(), st.sampled_from([1, 255, 0.3, 1e-3, np.float32(2)]), st.booleans(), st.booleans())
def test_every_row_of_any_array_is_in_one_part_with_its_label(x, scale, as_tensor, double):
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    given_x = torch.from_numpy(x.copy()) if as_tensor and x.dtype.isnative and x.dtype != np.longdouble else x
    labels = np.arange(len(x), dtype=">i4")[::-1]
    parts = from_tensor(given_x, 4, valid=1, test=1, scale=scale, labels=labels)
    found = np.concatenate([part.x.numpy() for part in parts])
    expected = x.reshape(len(x), -1).astype(np.float64) / float(scale)
    order = len(x) - 1 - np.concatenate([part.labels.numpy() for part in parts])
    np.testing.assert_allclose(found, expected[order], rtol=1e-15 if double else 3e-7)
    assert sorted(order) == list(range(len(x))) and found.dtype == (np.float64 if double else np.float32)
    assert {part.image_shape for part in parts} == {x.shape[1:] if x.ndim > 2 else None}


@quick(50)
@given(
    st.integers(1, 30), st.sampled_from([1, 2, 7, 29, 10**6, 2**80]), st.booleans(), st.integers(-(2**63), 2**63 - 1)
)
def test_an_epoch_is_a_permutation_whatever_the_batches_and_the_seed(n, batch_size, shuffle, seed):
    x = torch.arange(2.0 * n).view(n, 2)
    loader = Loader(x, batch_size, shuffle, seed=seed)
    found = epoch(loader)
    assert torch.equal(found.sort(0).values, x) and len(list(loader)) == len(loader)
    assert shuffle or torch.equal(found, x)
    assert torch.equal(epoch(loader.seeded(seed)), found if n > 1 or not shuffle else x)


@quick(40)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 14), st.integers(0, 9), st.booleans())
def test_a_stream_goes_on_from_where_its_state_was(n, width, batch_size, epochs, dynamic):
    loader = Loader(rows(n, n, width), batch_size, shuffle=True, dynamic=dynamic)
    for _ in range(epochs):
        epoch(loader)
    state, expected = loader.state_dict(), epoch(loader)
    other = Loader(loader.x, batch_size, shuffle=True, dynamic=dynamic, seed=5)
    other.load_state_dict(state)
    assert torch.equal(epoch(other), expected)


@quick(30)
@given(
    st.integers(1, 9), st.integers(1, 9), st.booleans(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
)
def test_certain_pixels_are_drawn_as_they_are_in_any_batches(n, batch_size, shuffle, dtype):
    torch.set_default_dtype(dtype)
    x = (rows(n, n, 5) > 0.5).to(dtype)
    found = epoch(Loader(x, batch_size, shuffle, dynamic=True))
    assert found.dtype is dtype and torch.equal(in_order_of(found), in_order_of(x))


def in_order_of(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(in_order(x.double().numpy()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_greys_are_drawn_with_their_probability_in_every_dtype(dtype, binarize):
    torch.set_default_dtype(dtype)
    grey = torch.tensor([0.0, 1e-3, 0.1, 0.25, 0.5, 0.9, 0.999, 1.0], dtype=torch.float64)
    p = grey.to(dtype).double()
    draws = epoch(from_tensor(grey.expand(40_000, -1), 997, binarize, 1, 1).train).double()
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    off = (draws.mean(0) - p).abs()
    assert (off <= 5 * (p * (1 - p) / len(draws)).sqrt() + 2**-15).all(), off


@quick(40)
@given(st.integers(1, 40), st.sampled_from([0.0, 1e-30, 1.0, 1e30, 3e38]), st.booleans())
def test_means_are_those_of_double_precision_also_of_the_largest_numbers(n, size, shifted):
    x = (rows(n, n, 3) + shifted * 1e4).clamp(max=1e4) * (1e-4 * size)
    expected = x.double().mean(0)
    torch.testing.assert_close(Loader(x).mean.double(), expected, rtol=2e-7, atol=0)


@quick(40)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-300, 1e300))
def test_a_number_over_a_scale_is_that_number_or_an_error_never_infinite(number, scale):
    x = np.full((3, 1), number)
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = (x / scale).astype(np.float32)
    try:
        found = from_tensor(x, scale=scale, valid=1, test=1).train.x
    except ValueError as error:
        assert "must be finite" in str(error) and not np.isfinite(expected).all()
    else:
        np.testing.assert_array_equal(found.numpy(), expected[:1])


def test_what_a_scale_makes_infinite_is_not_blamed_on_the_data_alone():
    with pytest.raises(ValueError, match=r"x / 1e-300 \(scale\) must be finite"):
        from_tensor(torch.ones(5, 2), scale=1e-300)
    assert from_tensor(torch.full((5, 2), 2e300, dtype=torch.float64), scale=1e300).train.x.unique().item() == 2


@quick(40)
@given(
    st.integers(3, 60),
    st.sampled_from([1, 2, np.int64(1), np.uint8(2), 0.1, np.float32(0.25), 0.5]),
    st.integers(1, 60),
)
def test_a_part_depends_on_the_number_of_rows_alone(n, valid, batch_size):
    x = rows(1, n, 2)
    if n < 6 and valid == 0.5:
        n = 6
        x = rows(1, n, 2)
    one, two = (from_tensor(data, batch_size, valid=valid, test=1, seed=s) for data, s in ((x, 0), (x.double() + 1, 3)))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.x + 1, b.x)
    assert one.valid.num_data == (valid if valid >= 1 else max(1, round(n * float(valid))))


@quick(30)
@given(st.integers(2, 20), st.integers(1, 20), st.booleans())
def test_some_of_some_rows_are_the_first_ones(n, most, dynamic):
    loader = Loader((rows(n, n, 3) > 0.5).float(), 4, dynamic=dynamic, labels=torch.arange(n))
    few = loader.take(min(most, n))
    assert torch.equal(few.x, loader.x[:most]) and torch.equal(epoch(few.take(1)), loader.x[:1])
    assert few.labels.tolist() == list(range(min(most, n))) and loader.num_data == n


@quick(40)
@given(arrays(), st.sampled_from([".npy", ".npz", ".csv"]), st.integers(1, 9))
def test_a_file_holds_what_the_array_does(tmp_path_factory, x, suffix, batch_size):
    path = tmp_path_factory.mktemp("files") / f"x{suffix}"
    if suffix == ".csv":
        x = x.reshape(len(x), -1).astype(np.float64)
        np.savetxt(path, x, delimiter=",")
    else:
        (np.save if suffix == ".npy" else np.savez_compressed)(path, x)
    for mine, theirs in zip(from_file(path, valid=1, test=1), from_tensor(x, valid=1, test=1), strict=True):
        assert torch.equal(mine.x, theirs.x) and mine.image_shape == theirs.image_shape
    assert load(str(path), batch_size=batch_size).train.batch_size == batch_size


CELLS = ["1", "-0.0", "1e30", "1e-300", " 2 ", "+.5", "1E2"]
ODD = ["nan", "inf", "-inf", "1e999", "", "x", "0x1", "1_0", "½", '"1"', "٣", "1\x00"]


@quick(120)
@given(st.lists(st.lists(st.sampled_from(3 * CELLS + ODD), min_size=1, max_size=3), min_size=1, max_size=6))
def test_a_table_is_what_its_cells_say_or_refused(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("tables") / "x.csv"
    path.write_text("\n".join(map(",".join, cells)) + "\n", "utf-8")
    written = [[cell.strip('"') for cell in line] for line in cells if ",".join(line).strip(", ")]
    if written and not any(map(is_number, written[0])):
        written = written[1:]
    try:
        found = torch.cat([part.x for part in from_file(path, valid=1, test=1)])
    except ValueError as error:
        assert len(str(error)) > 40
    else:
        expected = np.array([[float(cell) for cell in line] for line in written]).astype(np.float32)
        np.testing.assert_array_equal(in_order(found.numpy()), in_order(expected))


def is_number(cell: str) -> bool:
    try:
        return isinstance(float(cell), float)
    except ValueError:
        return False


# --- damaged files


@st.composite
def damages(draw) -> list[tuple[str, float, bytes]]:
    """What becomes of a file: bytes changed, cut out or put in, at places given as shares of its length."""
    one = st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.floats(0, 1), st.binary(min_size=1, max_size=6))
    return draw(st.lists(one, min_size=1, max_size=3))


def damaged(content: bytes, damage: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, bytes_ in damage:
        at = int(where * len(content))
        after = {"flip": at + len(bytes_), "cut": at + 9 * len(bytes_), "insert": at}[kind]
        content = content[:at] + (b"" if kind == "cut" else bytes_) + content[after:]
    return content


GOOD = np.random.default_rng(0).normal(size=(12, 3)).round(3)


def written(suffix: str) -> bytes:
    out = io.BytesIO()
    if suffix == ".npy":
        np.save(out, GOOD)
    elif suffix == ".npz":
        np.savez(out, GOOD)
    elif suffix == ".packed.npz":
        np.savez_compressed(out, GOOD)
    else:
        np.savetxt(out, GOOD, delimiter=",", fmt="%.3f")
    return out.getvalue()


def matrix(path: Path) -> np.ndarray | None:
    """What a file holds, in the order of rows that sorting gives; None if it is refused in words."""
    try:
        parts = from_file(path)
    except (ValueError, TypeError) as error:
        assert path.name in str(error) or "x must" in str(error) or "x has" in str(error), error
        return None
    return in_order(np.concatenate([part.x.numpy() for part in parts]))


def by_others(path: Path) -> np.ndarray:
    """What numpy, or Python's float, reads in a file that has no checksum."""
    if path.suffix == ".npy":
        found = np.load(path, allow_pickle=False)
        return found.reshape(len(found), -1)
    lines = [line.split(",") for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    return np.array([[float(cell) for cell in line] for line in lines if is_number(line[0]) or line != lines[0]])


def hold(path: Path, content: bytes, suffix: str) -> None:
    path.write_bytes(content)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = matrix(path)
        if found is None:
            return
        expected = GOOD if suffix.endswith(".npz") else by_others(path)
        np.testing.assert_array_equal(found, in_order(expected.astype(np.float32)))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".packed.npz", ".csv"])
def test_a_damaged_file_is_refused_or_read_as_it_stands(tmp_path, suffix):
    content = written(suffix)

    @quick(60)
    @given(damages())
    def property(damage):
        hold(tmp_path / f"x{suffix}", damaged(content, damage), suffix)

    property()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".packed.npz", ".csv"])
def test_and_so_are_many_more_in_little_memory(tmp_path, suffix):
    content = written(suffix)

    @quick(250)
    @given(damages())
    def property(damage):
        tracemalloc.start()
        try:
            hold(tmp_path / f"x{suffix}", damaged(content, damage), suffix)
            assert tracemalloc.get_traced_memory()[1] < LITTLE
        finally:
            tracemalloc.stop()

    property()


@quick(60)
@given(damages())
def test_a_damaged_idx_file_is_refused_by_its_checksum(tmp_path_factory, damage):
    content = bytes([0, 0, 8, 2, 0, 0, 0, 5, 0, 0, 0, 3]) + bytes(range(15))
    path = tmp_path_factory.mktemp("idx") / "images"
    path.write_bytes(damaged(content, damage))
    try:
        found = read_idx(path, hashlib.sha256(content).hexdigest())
    except ValueError as error:
        assert "sha256 expected" in str(error) and "remove it" in str(error)
    else:
        assert found.tobytes() == content[12:]
