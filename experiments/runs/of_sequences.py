"""What a trained pair says of sequences, as a table with a line for each step, or as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlvm.distributions.sequences.lengths import steps_within
from dlvm.experiments.data.ragged import LENGTHS, silent_behind
from dlvm.experiments.data.readers.writing import END
from dlvm.experiments.runs.results_file import Results
from dlvm.inference.use.by_datum import columns as numbered
from dlvm.inference.use.encode import Code

NUMBERED = re.compile(r"(.+)_(\d+)")


class OfSteps(nn.Module):
    """A model of sequences that draws so many steps where no data say how many there are.

    Args:
        model: called with ``x``, ``lengths``, ``n`` and ``steps``.
        steps: how many.
    """

    def __init__(self, model: nn.Module, steps: int):
        super().__init__()
        self.inner, self.steps = model, steps

    def forward(self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1) -> Any:
        if x is None:
            return self.inner(lengths=lengths, n=n, steps=self.steps)
        return self.inner(x, lengths)


def each_step(
    x: Tensor,
    lengths: Tensor | None,
    names: Sequence[str],
    index: Sequence[str] | None,
    reading: Mapping[str, Any],
    times: Tensor | None = None,
    **arrays: Any,
) -> Results:
    """Sequences in a long table: the sequence's name, the step or its time, and the numbers of that step.

    Args:
        x: shape (sequences, steps, numbers).
        lengths: of the sequences; all steps unless told.
        names: of the numbers.
        index: of the sequences; they are counted from 0 unless told.
        reading: how the training data were read, which knows the names of the columns.
        times: of the steps, shape (sequences, steps); they are counted from 0 unless told.
        **arrays: further ones, for an .npz.
    """
    x = x.cpu()
    lengths = torch.full((len(x),), x.shape[1]) if lengths is None else lengths.cpu()
    within = steps_within(lengths, x.shape[1])
    clock = torch.arange(x.shape[1]).expand(len(x), -1) if times is None else times[:, : x.shape[1]].cpu()
    column = "step" if times is None else reading.get("time_column") or "time"
    ids = [str(k) for k in range(len(x))] if index is None else list(index)
    rows = [name for name, length in zip(ids, lengths.tolist(), strict=True) for _ in range(length)]
    numbers = torch.cat([clock[within].to(x.dtype).unsqueeze(-1), x[within]], -1)
    kept = {"x": silent_behind(x, lengths), LENGTHS: lengths, **arrays}
    if index is not None:
        kept["ids"] = ids
    name = reading.get("sequence_column") or "sequence"
    return Results(numbers, [column, *names], rows, kept, index_name=name)


def texts_of(tokens: Tensor, vocabulary: Sequence[str], index: Sequence[str] | None) -> Results:
    """Tokens as they are written, up to their ends; a row of text each."""
    texts = []
    for row in tokens.tolist():
        row = row[: row.index(0)] if vocabulary[0] == END and 0 in row else row
        texts.append("".join(vocabulary[token] for token in row))
    return Results(tokens, ["text"], index, {"x": tokens}, texts=texts)


def drawn_lengths(known: Mapping[str, Any], n: int, steps: int | None, seed: int) -> Tensor:
    """How long each of n sequences is to be: ``steps`` each, or like those of training, drawn from them.

    Args:
        known: the description of the training data.
        n: how many sequences.
        steps: of each, if it is asked for.
        seed: of the draws.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"length (--length) must be at least 1, got {steps}; or leave it out")
    counts = known.get(LENGTHS)
    if steps is not None or not counts:
        return torch.full((n,), steps or 1)
    lengths, number = zip(*counts, strict=True)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.tensor(number, dtype=torch.double).multinomial(n, replacement=True, generator=generator)
    return torch.tensor(lengths)[chosen]


def codes_of_steps(codes: Mapping[str, Code], steps: int) -> tuple[Tensor, list[str]] | None:
    """Means and spreads of all sites at each step, shape (sequences, steps, columns), and the names of the columns.

    Sites z_1, ..., z_T are one, z. None where a site is no step's, or a class.

    Args:
        codes: of all sites.
        steps: of the data.
    """
    parts: list[Tensor] = []
    names: list[str] = []
    for site, each in by_site(codes, steps).items():
        mean = torch.stack([code.mean for code in each], 1) if len(each) > 1 else each[0].mean
        sd = torch.stack([code.sd for code in each], 1) if len(each) > 1 else each[0].sd
        if mean.dim() != 3 or mean.shape[1] != steps:
            return None
        found = numbered(site, mean.shape[2])
        parts += [mean.cpu(), sd.cpu()]
        names += [*found, *(f"{name}_sd" for name in found)]
    return (torch.cat(parts, -1), names) if parts else None


def by_site(codes: Mapping[str, Code], steps: int) -> dict[str, list[Code]]:
    """The codes of each site: one, or those of z_1, ..., z_T under the name z; empty where one is a class."""
    if any(code.mean is None for code in codes.values()):
        return {}
    numbered_as = {name: match for name in codes if (match := NUMBERED.fullmatch(name))}
    of_all = [name for name in {match[1] for match in numbered_as.values()} if f"{name}_{steps}" in codes]
    found: dict[str, list[Code]] = {}
    for name, code in codes.items():
        match = numbered_as.get(name)
        found.setdefault(match[1] if match and match[1] in of_all else name, []).append(code)
    return found


def of_as_many_steps(model: nn.Module, a: tuple, b: tuple) -> OfSteps:
    """The model of as many steps as two sequences have that a way is to lead between.

    Raises:
        ValueError: they have not as many.
    """
    first, second = (int(each[-1]) for each in (a, b))  # lengths are the last argument
    if first != second:
        raise ValueError(f"rows (--rows) must be two sequences of as many steps, got {first} and {second}; name others")
    return OfSteps(model, a[0].shape[1])
