"""What loaders and data sets refuse."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from hypothesis import strategies as st

import dlvm.experiments.data as room
from dlvm.experiments.data import (
    Loader,
    binarized_mnist,
    describe,
    digits,
    fashion_mnist,
    from_file,
    from_tensor,
    load,
    mnist,
    read_alike,
)
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_DATA, NOT_DEVICES, NOT_FINITE, NOT_NUMBERS, NOT_SEEDS, Case
from refusals.pairs import X

ROOM = room
GREY = torch.linspace(0, 1, 60).view(20, 3)
LOADER = Loader(X, 2, shuffle=True)
SEQUENCES = Loader(torch.ones(3, 2, 1), more={"lengths": torch.tensor([1, 2, 2])}, kind="sequence")
PARTS = from_tensor(GREY)
_kept = tempfile.TemporaryDirectory()  # goes with the process
FOLDER = Path(_kept.name)
ONE, TWO, TEXT = (str(FOLDER / name) for name in ("one.npy", "two.npz", "text.csv"))
np.save(ONE, GREY.numpy())
np.savez(TWO, a=GREY.numpy(), b=GREY.numpy())
Path(TEXT).write_text("1,2\n3,4\n", "utf-8")
TABLE = str(FOLDER / "table.csv")
Path(TABLE).write_text("id,a,b,kind\n" + "".join(f"r{k},{k},{k % 3},{'uv'[k % 2]}\n" for k in range(9)), "utf-8")
LONG = str(FOLDER / "long.csv")
Path(LONG).write_text("id,t,a\n" + "".join(f"s{k},{t},{k}\n" for k in range(9) for t in (0, 1, 3)), "utf-8")


def one_of(*values: object) -> st.SearchStrategy:
    return st.sampled_from(values)


class Elsewhere:
    """An object that says it is an array."""

    __array__ = None


ALL_BUT_ONE = GREY.clone().index_put_((torch.tensor(7), torch.tensor(1)), torch.tensor(float("nan")))
MASKED = np.ma.masked_array(GREY.numpy(), mask=GREY.numpy() > 0.5)
NOT_MATRICES = one_of(
    *(torch.zeros(shape) for shape in [(), (5,), (0, 3), (5, 0), (2, 3, 4), (1, 1, 1, 1, 1)]),
    torch.zeros(2, 2, dtype=torch.complex64), torch.eye(3).to_sparse(), torch.zeros(5, 3, device="meta"),
    torch.full((2, 2), 1e300, dtype=torch.float64),
    ALL_BUT_ONE, GREY / 0, -GREY / 0, np.eye(3), GREY.tolist(), "x", Elsewhere(), torch.Tensor, PARTS, LOADER, [GREY],
)  # fmt: skip
NOT_ROWS = one_of(
    *(np.zeros(shape) for shape in [(), (5,), (0, 3), (5, 0), (1, 1, 1, 1, 1), (2, 2), (1, 3)]),
    np.array([["a"], ["1"]]), np.array([[None], [1]]), np.zeros((9, 2), "M8[s]"), np.zeros((9, 2), complex),
    np.zeros(9, [("a", float)]), np.full((9, 2), np.nan), np.full((9, 2), 1e300), MASKED, torch.eye(9).to_sparse(),
    torch.zeros(9, 3, device="meta"), ALL_BUT_ONE, [[1.0]],
    "digits", Elsewhere(), PARTS, None, np.ndarray,
)  # fmt: skip
NOT_LABELS = one_of(
    torch.zeros(20), torch.zeros(20, 1, dtype=torch.int64), torch.arange(19), torch.tensor(1), np.zeros(20),
    torch.zeros(20, dtype=torch.complex64), torch.zeros(20, dtype=torch.int64, device="meta"), np.array(["a"] * 19),
    list(range(20)), range(20), torch.zeros(0, dtype=torch.int64),
)  # fmt: skip
NOT_BATCHES = st.one_of(NOT_COUNTS, NOT_FINITE, one_of(True, 2.0, np.float32(3), 1e9, np.array([2]), slice(2)))
NOT_BINARIZE = one_of(
    "", "auto", "Static", "none", True, 0, 0.5, [], ["static"], ("dynamic",), {}, GREY, np.eye(2), min
)
NOT_SIZES = one_of(
    0, -1, 0.0, 1.0, -0.1, 2.5, float("nan"), float("inf"), True, None, "0.1", [1], torch.tensor(1), 10**30
)
NOT_SCALES = st.one_of(NOT_NUMBERS, NOT_FINITE, one_of(0, 0.0, -255, None, 10**400, torch.tensor(2.0), 1e-42))
NOT_SHAPES = one_of((2, 3), (-1, -4), (4.0, 1.0), (2, True, 2), (), [5], "4", 4, torch.eye(4), (None, 4), ("4",), {4})
NOT_PATHS = one_of(None, 0, 1.5, b"data", [], {}, ["."], torch.zeros(2), Path, "", " ", "a\0b")
NOT_FOLDERS = st.one_of(NOT_PATHS.filter(lambda v: v is not None), one_of(ONE, Path(TEXT), "~nobody-of-this-name/x"))
NOT_PLACES = st.one_of(NOT_DEVICES, one_of("meta", "cuda:99", "", None, torch.device("meta"), torch.device, {}))
NOT_NAMED = one_of(
    "minst", "MNIST", "", " ", "digits ", "digits.csv.gz", "x.pt", "x.pkl", ".npy", str(FOLDER), Path("digits"),
    b"digits", ["digits"], digits,
)  # fmt: skip
NOT_COLUMNS = one_of("", "A", "none", "a,b", 0, 1.5, ["a"], ("a",), {}, b"a", torch.zeros(2))  # of TABLE
NOT_LISTS = one_of("a", ["none"], ("a", "none"), [0], 1, {"a"}, [None], torch.zeros(2), ["a", 2], b"a")
NOT_WORDS = one_of("-200", "", 0, [-200], (None,), {"NA"}, b"NA", torch.zeros(2), 1.5)
NOT_MORE = one_of(
    [], "x", 3, {"x": GREY}, {"labels": GREY}, {0: GREY}, {"a b": GREY}, {"": GREY}, {"m": GREY[:5]}, {"m": 1.0},
    {"m": torch.tensor(1.0)}, {"m": [1] * 19}, {"m": GREY / 0}, {"m": GREY.to_sparse()}, {"m": GREY.to("meta")},
    {"m": GREY * 1j},
)  # fmt: skip
NOT_NAMES = one_of("abc", ["a"], list("abcdefghijkl"), ["a"] * 20, 3, [1] * 20, {"a": 1}, torch.zeros(20), b"abc")
NOT_KINDS = one_of("", "counts", "Binary", "sequence ", True, 0, ["real"], ("grey",), {}, GREY)
ALIKE = describe(Loader(GREY))
NOT_DESCRIPTIONS = one_of(None, {}, [], "x", 3, {"version": 1}, {**ALIKE, "version": 0}, GREY, LOADER)
NOT_STATES = one_of(
    {}, [], None, torch.zeros(4), {"generator": None}, {"generator": GREY}, {"generator": "0"}, {"state": 0}, 3,
    "state", {"generator": torch.zeros(3, dtype=torch.uint8)}, {"generator": LOADER},
)  # fmt: skip


def shared(function: Callable, name: str) -> list[Case]:
    """What every named data set takes."""
    return [
        Case(name, "binarize", lambda v: function(binarize=v), NOT_BINARIZE),
        Case(name, "batch_size", lambda v: function(batch_size=v), NOT_BATCHES),
        Case(name, "device", lambda v: function(device=v), NOT_PLACES),
        Case(name, "seed", lambda v: function(seed=v), NOT_SEEDS),
    ]


def from_files(function: Callable, name: str) -> list[Case]:
    """What those take besides that lie in files, which are not to be looked for in vain."""
    return [*shared(function, name), Case(name, "data_dir", lambda v: function(data_dir=v), NOT_FOLDERS)]


def unlike(x: object) -> bool:
    """Whether it is no matrix of three columns, which would be one."""
    if getattr(x, "shape", (0, 0))[1:] != (3,) or getattr(x, "is_meta", False):
        return True
    return not np.isfinite(np.asarray(x, float)).all()


def table_options(function: Callable, name: str) -> list[Case]:
    """Which columns of a table are what."""
    return [
        Case(name, "label_column", lambda v: function(TABLE, label_column=v), NOT_COLUMNS),
        Case(name, "index_column", lambda v: function(TABLE, index_column=v), NOT_COLUMNS),
        Case(name, "split_column", lambda v: function(TABLE, split_column=v), NOT_COLUMNS),
        Case(name, "split_column", lambda v: function(TABLE, split_column=v), one_of("kind", "a", "id"), ""),
        Case(name, "index_column", lambda v: function(TABLE, index_column=v), one_of("kind", "b")),
        Case(name, "columns", lambda v: function(TABLE, columns=v), NOT_LISTS),
        Case(name, "columns", lambda v: function(TABLE, columns=v), one_of([], ["a", "a"])),
        Case(name, "drop_columns", lambda v: function(TABLE, drop_columns=v), NOT_LISTS),
        Case(name, "missing", lambda v: function(TABLE, missing=v), NOT_WORDS),
        Case(name, "label_column", lambda v: function(ONE, label_column=v), one_of("a", "x")),
        *step_options(lambda **v: function(LONG, **v), name),
        Case(name, "lines", lambda v: function(ONE, lines=v), one_of(None, "a", 1, [], {}, torch.zeros(2))),
        Case(name, "text_column", lambda v: function(ONE, text_column=v), one_of("a", "x")),
    ]


def step_options(function: Callable, name: str) -> list[Case]:
    """Which columns of a table with a line for each step are what."""
    steps = {"sequence_column": "id", "time_column": "t"}
    return [
        Case(name, "sequence_column", lambda v: function(sequence_column=v), NOT_COLUMNS),
        Case(name, "time_column", lambda v: function(sequence_column="id", time_column=v), NOT_COLUMNS),
        Case(name, "time_column", lambda v: function(time_column=v), one_of("t", "a")),
        Case(name, "time_step", lambda v: function(time_step=v, **steps), NOT_SCALES.filter(lambda v: v is not None)),
        Case(name, "time_step", lambda v: function(time_step=v, **steps), one_of(2.0, 0.7, 3, 1.0), ""),
        Case(name, "text_column", lambda v: function(text_column=v), NOT_COLUMNS),
    ]


CASES = [
    Case("Loader", "x", Loader, st.one_of(NOT_DATA, NOT_MATRICES), "x must"),
    Case("Loader", "x", lambda v: Loader(v, dynamic=True), one_of(2 * GREY, -GREY, GREY + 1e-6), "x must"),
    Case("Loader", "batch_size", lambda v: Loader(X, v), NOT_BATCHES),
    Case("Loader", "seed", lambda v: Loader(X, seed=v), NOT_SEEDS),
    Case("Loader", "labels", lambda v: Loader(GREY, labels=v), st.one_of(NOT_NUMBERS, NOT_LABELS)),
    Case("Loader", "image_shape", lambda v: Loader(X, image_shape=v), NOT_SHAPES),
    Case("Loader", "more", lambda v: Loader(GREY, more=v), NOT_MORE),
    Case("Loader", "columns", lambda v: Loader(GREY, columns=v), NOT_NAMES),
    Case("Loader", "index", lambda v: Loader(GREY, index=v), NOT_NAMES),
    Case("Loader", "label_names", lambda v: Loader(GREY, labels=torch.arange(20), label_names=v), NOT_NAMES),
    Case("Loader", "vocabulary", lambda v: Loader(GREY, vocabulary=v), one_of("abc", ["a", "a"], 3, [1], {"a": 1})),
    Case("Loader", "kind", lambda v: Loader(GREY, kind=v), NOT_KINDS),
    Case("Loader", "x", lambda v: Loader(v, missing=True), one_of(GREY / 0, -GREY / 0, GREY * torch.nan), "x must"),
    Case("Loader.giving", "name", LOADER.giving, one_of("", "y", "mask", "X", 0, None)),
    Case("Loader.__getitem__", "name", lambda v: LOADER[v], one_of("", "y", "mask", "X", 0, None, ("x",))),
    Case("Loader.to", "device", LOADER.to, NOT_PLACES),
    Case("Loader.pooled", "pool", SEQUENCES.pooled, NOT_BATCHES, "pool must"),
    Case("Loader.take", "n", LOADER.take, st.one_of(NOT_BATCHES, st.integers(7)), "n must"),
    Case("Loader.seeded", "seed", LOADER.seeded, NOT_SEEDS),
    Case("Loader.load_state_dict", "state", LOADER.load_state_dict, NOT_STATES),
    Case("Splits.tested_on", "most", PARTS.tested_on, NOT_BATCHES.filter(lambda v: v is not None)),
    Case("load", "name", load, st.one_of(NOT_CALLABLE, NOT_NAMED)),
    Case("load", "name", load, one_of("a\0.npy", "none.csv", str(FOLDER / "none.npz"), Path("~/none.npy")), "path"),
    *shared(lambda **v: load("digits", **v), "load"),
    *shared(lambda **v: load(ONE, **v), "load"),
    Case("load", "data_dir", lambda v: load("mnist", data_dir=v), NOT_FOLDERS),
    Case("load", "data_dir", lambda v: load(ONE, data_dir=v), NOT_PATHS.filter(lambda v: v is not None)),
    Case("load", "key", lambda v: load("digits", key=v), one_of("", "x", 0, [])),
    Case("load", "key", lambda v: load(TWO, key=v), one_of(None, "", "x", "a.npy", 0, ["a"], {}, b"a")),
    Case("load", "scale", lambda v: load("digits", scale=v), st.one_of(NOT_NUMBERS, NOT_FINITE, st.floats())),
    Case("load", "scale", lambda v: load(ONE, scale=v), NOT_SCALES.filter(lambda v: v is not None)),
    *table_options(load, "load"),
    *(
        Case("load", name, lambda v, name=name: load("digits", **{name: v}), one_of("a", ("a",)))
        for name in (
            "label_column",
            "index_column",
            "split_column",
            "columns",
            "drop_columns",
            "missing",
            "sequence_column",
            "time_column",
            "time_step",
            "text_column",
            "lines",
        )
    ),
    *shared(digits, "digits"),
    *from_files(mnist, "mnist"),
    *from_files(fashion_mnist, "fashion_mnist"),
    *from_files(binarized_mnist, "binarized_mnist"),
    Case("binarized_mnist", "binarize", lambda v: binarized_mnist(binarize=v), one_of("dynamic", "threshold")),
    Case("from_file", "path", from_file, st.one_of(NOT_PATHS, one_of("x.npy", FOLDER, "~nobody-of-this-name"))),
    Case("from_file", "path", from_file, one_of(__file__, TEXT + "~", Path(__file__).parent), "path"),
    Case("from_file", "key", lambda v: from_file(TWO, v), one_of(None, "", "x", "a.npy", 0, ["a"], {}, b"a", ("a",))),
    Case("from_file", "key", lambda v: from_file(TEXT, v), one_of("", "x", 0, [])),
    *table_options(from_file, "from_file"),
    *shared(lambda **v: from_file(ONE, **v), "from_file"),
    Case("from_file", "valid", lambda v: from_file(ONE, valid=v), st.one_of(NOT_NUMBERS, NOT_SIZES)),
    Case("from_file", "test", lambda v: from_file(ONE, test=v), st.one_of(NOT_NUMBERS, NOT_SIZES)),
    Case("from_file", "scale", lambda v: from_file(ONE, scale=v), NOT_SCALES.filter(lambda v: v is not None)),
    Case("from_tensor", "x", from_tensor, st.one_of(NOT_DATA, NOT_ROWS), "x "),
    Case(
        "from_tensor", "x", lambda v: from_tensor(v, binarize="static"), one_of(2 * GREY, -GREY, GREY * 1e30), "x must"
    ),
    *shared(lambda **v: from_tensor(GREY, **v), "from_tensor"),
    Case("from_tensor", "valid", lambda v: from_tensor(GREY, valid=v), st.one_of(NOT_NUMBERS, NOT_SIZES)),
    Case("from_tensor", "test", lambda v: from_tensor(GREY, test=v), st.one_of(NOT_NUMBERS, NOT_SIZES)),
    Case("from_tensor", "scale", lambda v: from_tensor(GREY, scale=v), NOT_SCALES.filter(lambda v: v is not None)),
    Case("from_tensor", "columns", lambda v: from_tensor(GREY, columns=v), NOT_NAMES),
    Case("from_tensor", "index", lambda v: from_tensor(GREY, index=v), NOT_NAMES),
    Case("from_tensor", "more", lambda v: from_tensor(GREY, more=v), NOT_MORE),
    Case("from_tensor", "missing", lambda v: from_tensor(GREY, missing=v), NOT_WORDS),
    *(
        Case("from_tensor", name, lambda v, name=name: from_tensor(GREY, **{name: v}), one_of("a", 0, ("a",)))
        for name in ("label_column", "index_column", "split_column", "sequence_column", "text_column")
    ),
    *step_options(lambda **v: from_tensor(pandas.read_csv(LONG), **v), "from_tensor"),
    Case("describe", "loader", describe, one_of(None, GREY, PARTS, "digits", digits)),
    Case("read_alike", "x", lambda v: read_alike(v, ALIKE), st.one_of(NOT_DATA, NOT_ROWS.filter(unlike)), "x"),
    Case("read_alike", "x", lambda v: read_alike(v, ALIKE), one_of("", "none.csv", Path("~nobody-of-this-name")), ""),
    Case("read_alike", "description", lambda v: read_alike(GREY, v), NOT_DESCRIPTIONS),
    Case("read_alike", "description", lambda v: read_alike(GREY, v), one_of({**ALIKE, "shape": [4]}), "as in training"),
    Case("read_alike", "batch_size", lambda v: read_alike(GREY, ALIKE, v), NOT_BATCHES),
    Case("read_alike", "device", lambda v: read_alike(GREY, ALIKE, device=v), NOT_PLACES),
    Case("from_tensor", "kind", lambda v: from_tensor(GREY, kind=v), NOT_KINDS),
    Case("from_tensor", "labels", lambda v: from_tensor(GREY, labels=v), st.one_of(NOT_NUMBERS, NOT_LABELS)),
]
ANY = {
    "Loader(shuffle)": "any truth value",
    "Loader(dynamic)": "any truth value; what it asks of x is held against x",
    "Loader(name)": "any text",
    "from_tensor(name)": "any text",
    "from_file(name)": "any text",
    "Loader(missing)": "any truth value; what it allows is held against x",
}
RECORDS = {"Splits"}
