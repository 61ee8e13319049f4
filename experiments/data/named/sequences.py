"""Sequences: Bach's chorales as piano rolls; names, plays and molecules as tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlvm.experiments.data.named.kept import CHORALES, NAMES, SHAKESPEARE, ZINC_TEST, ZINC_TRAIN, paths_of
from dlvm.experiments.data.prepare import cut, in_order
from dlvm.experiments.data.readers.arrays import open_arrays
from dlvm.experiments.data.readers.writing import END, tokens_of
from dlvm.experiments.data.rows import Rows
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits

Device = str | torch.device
WINDOW = 128  # characters of a play in a row
SMILES = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|.")  # an atom in brackets or of two letters, a ring's number, a character


def jsb(
    binarize: Binarize | None = None,
    batch_size: int = 20,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """Chorales of J. S. Bach: at each quarter note which of 88 keys sound, as 0 and 1.

    Returns: 229, 76 and 77 sequences, (rows, 160, 88), zero behind their ends; `more` has `lengths` and `mask`
        (rows, 160), true up to the length. Column k is MIDI note 21 + k.
    Args: `binarize` is None; the others as in `mnist`.
    Raises: FileNotFoundError if the file is missing; ValueError if it is damaged.
    References: Modeling temporal dependencies in high-dimensional sequences, N. Boulanger-Lewandowski, Y. Bengio,
        P. Vincent, 2012, arXiv:1206.6392.
    """
    check_options(binarize, batch_size, device, seed)
    arrays, parts = open_arrays(paths_of((CHORALES,), data_dir)[0]), ("train", "valid", "test")
    most = max(arrays[part].shape[1] for part in parts)
    keys = tuple(f"note {21 + k}" for k in range(88))
    rows = []
    for part in parts:
        filled = np.pad(arrays[part], [(0, 0), (0, most - arrays[part].shape[1]), (0, 0)])
        more = _with_mask(torch.from_numpy(arrays[f"{part}_lengths"]), most)
        x = torch.from_numpy(filled).to(torch.get_default_dtype())
        rows.append(Rows(x, name="jsb", more=more, columns=keys, kind="sequence"))
    return make_splits(rows, binarize, batch_size, device, seed)


def names(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """32,032 given names, one token a letter; x (rows, 16) of whole numbers, `vocabulary` what they stand for.

    Returns: a tenth each for validation and test, by one fixed permutation. Token 0 is the end, which `lengths` and
        `mask` count as the last.
    Args: as in `jsb`.
    References: makemore, A. Karpathy (MIT); names of the US Social Security Administration.
    """
    check_options(binarize, batch_size, device, seed)
    words = paths_of((NAMES,), data_dir)[0].read_text("utf-8").split()
    return make_splits(cut(_tokens("names", words), None, 0.1, 0.1), binarize, batch_size, device, seed)


def shakespeare(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """40,000 lines of Shakespeare's plays, one token a character, in rows of 128 that follow one another.

    Returns: the first 80 % for training, the next 10 % for validation, the last 10 % for test; no row ends before 128.
    Args: as in `jsb`.
    References: The unreasonable effectiveness of recurrent neural networks, A. Karpathy, 2015 (char-rnn).
    """
    check_options(binarize, batch_size, device, seed)
    text = paths_of((SHAKESPEARE,), data_dir)[0].read_text("utf-8")
    vocabulary = (END, *sorted(set(text)))
    place = {character: k for k, character in enumerate(vocabulary)}
    count = len(text) // WINDOW
    x = torch.tensor([place[character] for character in text[: count * WINDOW]]).view(count, WINDOW)
    more = _with_mask(torch.full((count,), WINDOW), WINDOW)
    rows = Rows(x, name="shakespeare", more=more, vocabulary=vocabulary, kind="sequence")
    return make_splits(cut(rows, in_order(count), 0.1, 0.1), binarize, batch_size, device, seed)


def zinc(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """Drug-like molecules as SMILES, one token an atom, a bond, a branch or a ring's number.

    Returns: the 24,445 molecules of ZINC-250k's validation part, of which a tenth for validation, and the 5,000 of its
        test part. Token 0 is the end, which `lengths` and `mask` count as the last.
    Args: as in `jsb`.
    References: Junction tree variational autoencoder for molecular graph generation, W. Jin, R. Barzilay, T. Jaakkola,
        2018, arXiv:1802.04364.
    """
    check_options(binarize, batch_size, device, seed)
    train, test = (path.read_text("utf-8").split() for path in paths_of((ZINC_TRAIN, ZINC_TEST), data_dir))
    rows = _tokens("zinc", [SMILES.findall(molecule) for molecule in (*train, *test)])
    part = np.repeat(["train", "test"], [len(train), len(test)])
    return make_splits(cut(rows, part, 0.1, 0.1), binarize, batch_size, device, seed)


def _tokens(name: str, sequences: Sequence[Sequence[str]]) -> Rows:
    """Whole numbers for the pieces of sequences, each ended by 0 and filled up with it to the longest."""
    tokens, counts, vocabulary = tokens_of(sequences)
    x, lengths = torch.from_numpy(tokens), torch.from_numpy(counts)
    more = _with_mask(lengths, x.shape[1])
    return Rows(x, name=name, more=more, vocabulary=vocabulary, kind="sequence")


def _with_mask(lengths: Tensor, steps: int) -> dict[str, Tensor]:
    return {"lengths": lengths, "mask": torch.arange(steps) < lengths[:, None]}
