"""Files and objects that people bring, broken ones or such as need a word more: what each of them is told."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from brought import (
    COUNTS,
    FRAME,
    RGB,
    TYPES,
    Endless,
    Items,
    beside,
    h5ad,
    it,
    npy,
    npz,
    pictures,
    text,
)
from scipy import sparse
from torch.utils.data import DataLoader

from dlvm.experiments.data import from_file, from_tensor

TABLE = "cell,g1,g2,type\nc1,1,2,T\nc2,3,4,B\nc3,5,6,T\nc4,7,8,B\n"
LONG = COUNTS.repeat(5, 0)

REFUSED = {
    "a column of text": (
        text(TABLE),
        {"index_column": "cell"},
        "column 'type' holds text ('T', 'B'): say --label-column type if it names classes, --index-column type if it "
        "names the rows, or --drop-columns type",
    ),
    "two columns of text": (text(TABLE), {}, "(so do type): say --label-column cell if"),
    "a frame with dates": (
        it(pandas.DataFrame({"day": pandas.date_range("2020-01-01", periods=4), "a": range(4)})),
        {},
        "x: column 'day' holds text ('2020-01-01 00:00:00', ",
    ),
    "a cell that is no number": (
        text("a,b\n1,2\n3,oops\n5,6\n"),
        {},
        "line 3, column 2: expected a number, got 'oops' in b: mend the file",
    ),
    "a word for what is missing": (
        text("a,b\n1,2\n3,NA\n5,6\n"),
        {},
        "line 3, column 2: expected a number, got 'NA' in b: mend the file, say --missing NA",
    ),
    "an empty cell": (text("a,b\n1,2\n,4\n5,6\n"), {}, "line 3, column 1: expected a number, got '' in a"),
    "a cell with an underscore": (text("a,b\n1,2\n1_0,4\n5,6\n"), {}, "expected a number, got '1_0' in a"),
    "a longer line": (text("a,b\n1,2\n3,4,5\n"), {}, "line 3: expected 2 columns as in line 1, got 3"),
    "a shorter line among semicolons": (
        text("a;b\n1,5;2\n3\n5;6\n"),
        {},
        "line 3: expected 2 columns as in line 1, got 1: mend the file (its cells seem to be separated by ';')",
    ),
    "a quote that does not end": (text('a,b\n"1,2\n3,4\n'), {}, "line 2: a quoted cell does not end in it"),
    "names alone": (text("a,b\n"), {}, "holds no line of numbers: give at least one row"),
    "nothing": (text(""), {}, "holds no line of numbers"),
    "another encoding": (text(b"\xff\xfe1\x00,\x002\x00"), {}, "is no utf-8 text"),
    "commas of thousands, or decimal ones": (
        text("a;b\n1,234;2\n5,678;3\n"),
        {},
        "'1,234' may be a decimal number or one of thousands",
    ),
    "decimal commas and points": (
        text("a;b\n1,5;2\n2.5;3\n"),
        {},
        "numbers are written as '1,5' and as '2.5': write all in one way",
    ),
    "an id twice": (
        text(TABLE.replace("c3", "c1")),
        {"index_column": "cell", "label_column": "type"},
        "must name each row, got 'c1' in line 2 and line 4: make them unlike, or leave --index-column out",
    ),
    "a name of a column twice": (text("a,a\n1,2\n3,4\n"), {}, "must name its columns differently, got 'a' twice"),
    "classes that are not there": (
        text(TABLE),
        {"label_column": "typ"},
        "label_column (--label-column) must name a column of",
    ),
    "a class that is empty": (
        text(TABLE.replace("5,6,T", "5,6,")),
        {"label_column": "type", "index_column": "cell"},
        "line 4: label_column 'type' must say a class in each row, got ''",
    ),
    "another class in every row": (
        text(TABLE),
        {"label_column": "cell", "drop_columns": ["type"]},
        "must be classes, got another in every row ('c1', 'c2', ...): names of rows are --index-column",
    ),
    "classes with fractions": (
        text("a,y\n1,0.5\n2,1\n3,1\n"),
        {"label_column": "y"},
        "must be classes, got 0.5 in row 0",
    ),
    "one column for two roles": (
        text(TABLE),
        {"label_column": "type", "index_column": "type"},
        "each role needs a column of its own",
    ),
    "a column both chosen and left out": (
        text(TABLE),
        {"columns": ["g1"], "drop_columns": ["g1"]},
        "must have one role each, got ['g1'] twice",
    ),
    "no column left": (
        text("a,y\n1,0\n2,1\n3,1\n"),
        {"label_column": "a", "drop_columns": ["y"]},
        "must leave some for x",
    ),
    "a part of another name": (
        text("a,s\n1,train\n2,holdout\n"),
        {"split_column": "s"},
        "must say train, valid or test in each row, got 'holdout' in row 1",
    ),
    "no training part": (text("a,s\n1,valid\n2,test\n"), {"split_column": "s"}, "must say train in some rows"),
    "a number without end": (
        text("a\n1\ninf\n3\n"),
        {"missing": ["NA"]},
        "x must be finite, got 1 NaN or inf, the first at row 1",
    ),
    "a number that is not there": (
        text("a,b\n1,2\nnan,4\n5,6\n"),
        {},
        "got 1 NaN or inf, the first at row 1, column 0 (from 0; x has shape (3, 2)): "
        "drop or fill in those rows first, or say --missing nan",
    ),
    "nothing but what is missing": (
        text("a\nNA\nNA\nNA\n"),
        {"missing": ["NA"]},
        "x must hold some entries, got all of (3, 1)",
    ),
    "a column that training never sees": (
        text("a,b\n1,NA\n2,NA\n3,NA\n4,NA\n"),
        {"missing": ["NA"]},
        "x must hold each column in training, got b missing in all rows: --drop-columns takes it out",
    ),
    "one row": (text("a,b\n1,2\n"), {}, "x has 1 row, too few for valid=0.1 and test=0.1"),
    "--key with a table": (text("1,2\n3,4\n"), {"key": "a"}, "key='a' names an array of a .npz file, got x.csv"),
    "--label-column with arrays": (
        npy(LONG),
        {"label_column": "y"},
        "label_column (--label-column) names columns of a table, got 'y' for x.npy",
    ),
    "objects in an array": (it(np.array([[None], [1]])), {}, "x must hold real numbers, got an array of dtype object"),
    "text in an array": (it(np.array(TYPES)[:, None]), {}, "x must hold real numbers, got an array of dtype <U1"),
    "complex numbers": (it(torch.zeros(9, 2, dtype=torch.cfloat)), {}, "x must hold real numbers, got torch.complex64"),
    "five dimensions": (npy(np.zeros((9, 1, 2, 2, 2))), {}, "x must have 2 dimensions (rows, columns) or 3 to 4"),
    "images with a sign": (
        npy(RGB.view(np.int8)),
        {},
        "images in int8 hold levels below 0, got -1: view them as uint8",
    ),
    "two arrays without a role": (
        npz(a=LONG, b=LONG),
        {},
        "key must name one of the arrays of x.npz, ['a', 'b'], got None",
    ),
    "fewer classes than rows": (npz(x=LONG, y=[0, 1]), {}, "labels must be one per row of x, 20, got shape (2,)"),
    "parts of other widths": (
        npz(train=LONG, test=LONG[:, :2]),
        {},
        "the parts of x must have rows of one shape, got {'train': (20, 3), ",
    ),
    "a masked array": (it(np.ma.masked_equal(COUNTS, 5)), {}, "x must hold all its numbers, got 1 masked ones"),
    "a folder without images": (it(Path(__file__).parent), {}, "holds no image (.png, .jpg, "),
    "images of two sizes": (
        pictures(a=RGB[0], b=RGB[0, :1]),
        {},
        "must be of one size, got 3 x 2 for a.png and 3 x 1 for b.png: resize or crop them",
    ),
    "an image that is none": (beside(pictures(a=RGB[0]), b"PNG", "b.png"), {}, "b.png is no readable image"),
    "half an image": (
        beside(pictures(a=RGB[0]), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "b.png"),
        {},
        "b.png is no readable image",
    ),
    "images of 16 bits": (
        pictures(a=RGB[0, ..., 0].astype(np.uint16)),
        {},
        "a.png must have 8 bits per pixel, got mode I",
    ),
    "images beside classes": (
        pictures(a=RGB[0], cat__b=RGB[1]),
        {},
        "images lie beside sub-folders, which name classes, such as a",
    ),
    "columns of images": (
        pictures(a=RGB[0]),
        {"columns": ["a"]},
        "columns (--columns) names columns of a table, got ('a',)",
    ),
    "columns of a sparse matrix": (
        it(sparse.csr_matrix(LONG)),
        {"label_column": "a"},
        "label_column (--label-column) names columns of a table, got 'a' for x",
    ),
    "an empty frame": (it(FRAME[:0]), {}, "x must hold at least one row and one column, got a frame of shape (0, 4)"),
    "a data set without end": (it(Endless()), {}, "x must be a data set with a length, got Endless"),
    "a loader without end": (it(DataLoader(Endless())), {}, "x must be a data set with a length, got Endless"),
    "a loader that shuffles": (
        it(DataLoader(Items(list(LONG)), shuffle=True)),
        {},
        "x must be a DataLoader with an order, got one that shuffles: pass its dataset instead",
    ),
    "indices beyond the genes": (
        h5ad(**{"X/indices": np.array([1, 2, 0, 0, 1, 2, 0, 9])}),
        {},
        "x.h5ad is no readable .h5ad file (its indices are damaged",
    ),
    "an empty data set": (it(Items([])), {}, "x must not be empty, got a Items of length 0"),
    "items of two shapes": (
        it(Items([torch.zeros(2), torch.zeros(3)])),
        {},
        "x must hold items of one shape, got others in x",
    ),
    "items of three things": (it(Items([(1, 2, 3)] * 9)), {}, "x must hold items x or (x, y), got 3 things in one"),
    "items without an x": (
        it(Items([{"image": 1}] * 9)),
        {},
        "x must hold items with an x, got ['image']: name the data x",
    ),
    "items that are no arrays": (it(Items([RGB] * 3 + [object()])), {}, "must hold tensors or arrays, got object"),
    "a damaged .h5ad": (text("HDF", "x.h5ad"), {}, "x.h5ad is no readable .h5ad file"),
    "a layer that is not there": (
        h5ad(),
        {"key": "raw"},
        "key (--key) must name a layer of x.h5ad, ['doubled'], got 'raw'",
    ),
    "a gene that is not there": (h5ad(), {"columns": ["g9"]}, "must name a column of"),
    "names of other genes": (
        h5ad(**{"var/names": ["g1"]}),
        {},
        "x must have the shape (4, 1) of its names, got (4, 3)",
    ),
    "no classes of cells": (h5ad(), {"label_column": "typ"}, "label_column (--label-column) must name a column of"),
    "a damaged .parquet": (text("PAR1", "x.parquet"), {}, "x.parquet"),
    "another kind of file": (text("", "x.xlsx"), {}, "path must be a .npy, .npz, .csv, .tsv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_told_with_its_remedy(case, tmp_path):
    make, how, message = REFUSED[case]
    made = make(tmp_path)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        (from_file if hasattr(made, "is_dir") else from_tensor)(made, **how)


@pytest.mark.parametrize(("module", "name"), [("pandas", "x.parquet"), ("h5py", "x.h5ad")])
def test_a_package_that_is_not_there_is_named(module, name, tmp_path, monkeypatch):
    real = importlib.import_module

    def without(wanted, *more):
        if wanted.startswith(module):
            raise ImportError(wanted)
        return real(wanted, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name} needs {module} to be read: pip install {module}"):
        from_file(tmp_path / name)
