"""Text as tokens: whole numbers for the pieces of an alphabet, which new text is read by as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlvm.experiments.data.readers.found import Found
from dlvm.inference.console import say

END = "<end>"  # token 0: the last of each sequence, and all behind it


def tokens_of(sequences: Sequence[Sequence[str]], vocabulary: Sequence[str] | None = None) -> tuple[Any, Any, Any]:
    """Whole numbers for the pieces of sequences, each ended by 0 and filled up with it to the longest.

    Returns:
        tokens, shape (sequences, steps); lengths, which count the end as well; what each token stands for.

    Args:
        sequences: the pieces of each.
        vocabulary: what tokens stand for, if it is known; all pieces that there are, in order, unless told.

    Example:
        >>> x, lengths, vocabulary = tokens_of(["ab", "b"])
        >>> x.tolist(), lengths.tolist(), vocabulary
        ([[1, 2, 0], [2, 0, 0]], [3, 2], ('<end>', 'a', 'b'))
    """
    if vocabulary is None:
        vocabulary = (END, *sorted({piece for sequence in sequences for piece in sequence}))
    place = {piece: k for k, piece in enumerate(vocabulary)}
    lengths = np.array([len(sequence) + 1 for sequence in sequences])
    x = np.zeros((len(sequences), int(lengths.max())), np.int64)
    for row, sequence in enumerate(sequences):
        x[row, : len(sequence)] = [place[piece] for piece in sequence]
    return x, lengths, tuple(vocabulary)


def written(
    texts: Sequence[str], vocabulary: Sequence[str] | None, origin: str, places: Sequence[str] | None = None
) -> Found:
    """Texts as sequences of characters, or of the pieces of an alphabet that is known.

    Args:
        texts: one a sequence.
        vocabulary: of the data that a model was trained on; at each place of a text its longest piece is taken.
        origin: what messages call the texts.
        places: what they call each of them; "text 0 (from 0)" unless told.

    Raises:
        ValueError: there is no text, or a character that the alphabet does not have.
    """
    if not any(texts):
        raise ValueError(f"{origin} must hold text, got none: give at least one line that is not empty")
    if vocabulary is None:
        pieces: list[Sequence[str]] = list(texts)
    else:
        known, longest = set(vocabulary) - {END}, max(map(len, vocabulary))
        places = places or [f"text {k} (from 0)" for k in range(len(texts))]
        pieces = [_cut(text, known, longest, f"{origin}, {place}") for text, place in zip(texts, places, strict=True)]
    x, lengths, found = tokens_of(pieces, vocabulary)
    return Found(x, more={"lengths": lengths}, vocabulary=found, origin=origin)


def _cut(text: str, known: set[str], longest: int, where: str) -> list[str]:
    """A text in pieces, each the longest that fits."""
    found, place = [], 0
    while place < len(text):
        piece = next((text[place : place + n] for n in range(longest, 0, -1) if text[place : place + n] in known), None)
        if piece is None:
            some = " ".join(sorted(known)[:40])
            raise ValueError(
                f"{where}: {text[place]!r} at place {place + 1} is not in the alphabet of the training data ({some}): "
                "take it out, or train on text that has it"
            )
        found.append(piece)
        place += len(piece)
    return found


def read_lines(path: Path, vocabulary: Sequence[str] | None) -> Found:
    """Each line of a text file as a sequence of characters; empty lines are left out, and said.

    Raises:
        ValueError: the file is no text, or has none; or as ``written``.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as text ({error}): save it in utf-8") from error
    kept = [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if len(kept) < len(lines):
        say(f"{path.name}: {len(lines) - len(kept)} empty lines are left out")
    return written([line for _, line in kept], vocabulary, str(path), [place for place, _ in kept])
