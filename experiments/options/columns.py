"""Columns of data: which likelihood each has, told from its numbers or by the user, and which are given of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlvm.distributions import Product, Shared
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.inference.console import tell
from dlvm.nets import MLP, Beside, out_features

MOST_TOLD = 20  # whole numbers below this are classes, unless told otherwise
SINGLE = ("grey_levels", "discretised_logistic", "logistic_mixture", "mixed")  # of all columns alike


def words_of(data: Loader, told: Sequence[str] = ()) -> dict[str, list[int]]:
    """The places of the columns of each likelihood, by its word.

    A column of 0 and 1 is under bernoulli, one of few whole numbers under categorical, of counts under
    negative_binomial, and any other under normal.

    Args:
        data: whose columns they are.
        told: "name=word" where another is wanted; a column without a name is called by its number, from 0.

    Raises:
        ValueError: there is no such column, or a column is told twice.

    Example:
        >>> words_of(Loader(torch.tensor([[0.0, 0.3, 2.0, 500.0], [1.0, -1.0, 1.0, 7.0]])), ["2=ordinal"])
        {'bernoulli': [0], 'normal': [1], 'ordinal': [2], 'negative_binomial': [3]}
    """
    names = list(data.columns or map(str, range(data.x_dim)))
    chosen: dict[str, str] = {}
    for text in told:
        name, equals, word = text.rpartition("=")
        if not equals or name not in names or name in chosen:
            raise ValueError(
                f"by_column (--by-column) must be name=word for columns of the data, once each, got {text!r}; columns "
                f"are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            )
        chosen[name] = word
    found: dict[str, list[int]] = {}
    for d, name in enumerate(names):
        found.setdefault(chosen.get(name) or _word(data.x[:, d]), []).append(d)
    return found


def _word(column: torch.Tensor) -> str:
    there = column[~column.isnan()]
    whole = bool((there == there.round()).all()) and bool((there >= 0).all())
    if not whole:
        return "normal"
    most = there.max().item() if there.numel() else 0
    return "bernoulli" if most <= 1 else "categorical" if most < MOST_TOLD else "negative_binomial"


def part_of(data: Loader, columns: Sequence[int]) -> Loader:
    """The data of some columns alone."""
    names = None if data.columns is None else tuple(data.columns[d] for d in columns)
    return Loader(data.x[:, list(columns)], data.batch_size, columns=names, missing=data.has_missing)


def product_of(
    single: Callable[[str, nn.Module, Loader], nn.Module], net: nn.Module, data: Loader, told: Sequence[str] = ()
) -> Product:
    """p(x | z) of columns of several kinds, each started from its own data.

    Args:
        single: (word, net, data) -> the likelihood of columns of one kind.
        net: from z to features.
        data, told: see ``words_of``.

    Raises:
        ValueError: as ``words_of``; a likelihood is of no single columns, or its columns do not fit it.
    """
    found = words_of(data, told)
    for word, columns in found.items():
        if word in SINGLE:
            raise ValueError(f"by_column (--by-column): {word} is of all columns alike; take another for a column")
        check_fits(word, part_of(data, columns))
    names = list(data.columns or map(str, range(data.x_dim)))
    tell("likelihoods: " + "; ".join(f"{word} of {', '.join(names[d] for d in at)}" for word, at in found.items()))
    width = out_features(net)
    parts = [single(word, Shared(width), part_of(data, columns)) for word, columns in found.items()]
    return Product(net, parts, list(found.values()))


def front_of(
    single: Callable[..., nn.Module],
    data: Loader,
    net: Callable[[int], nn.Module],
    told: Sequence[str] = (),
) -> nn.Module:
    """The net of an encoder that sees each column as its likelihood has it.

    Args:
        single: (word, data, net) -> the encoder of columns of one kind.
        data, told: see ``words_of``.
        net: width -> the net.
    """
    found = words_of(data, told)
    fronts = [single(word, part_of(data, columns), MLP) for word, columns in found.items()]
    return Beside(net(sum(map(out_features, fronts))), fronts, list(found.values()))


def quadrants(data: Loader, number: int) -> Tensor:
    """Which pixels lie in the quadrants that are given.

    Returns:
        bools, shape (x_dim,): of 1 quadrant the lower left, of 2 the left half, of 3 all but the upper right.

    Args:
        data: images.
        number: of quadrants.

    Raises:
        ValueError: the data are no images of two rows and two columns at least, or the number is none of these.

    Example:
        >>> from dlvm.experiments.data import digits
        >>> quadrants(digits().train, 2).reshape(8, 8)[0].int()
        tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.int32)
    """
    if number not in (1, 2, 3):
        raise ValueError(f"quadrants must be 1, 2 or 3, got {number}; change --quadrants")
    if data.image_shape is None or min(data.image_shape[-2:]) < 2:
        raise ValueError("given quadrants need images of two rows and columns at least; give columns: --given columns")
    *_, height, width = data.image_shape
    left, low = torch.arange(width) < width // 2, torch.arange(height)[:, None] >= height // 2
    seen = {1: left & low, 2: left & (low | True), 3: left | low}[number]
    return seen.expand(data.image_shape).flatten()


def named_columns(data: Loader, names: tuple[str, ...]) -> Tensor:
    """Which columns bear these names, or have these numbers, from 0, where columns have no names.

    Returns:
        bools, shape (x_dim,).

    Args:
        data: a table.
        names: of the columns that are given.

    Raises:
        ValueError: there is no such column, none is named, or all are.

    Example:
        >>> named_columns(Loader(torch.zeros(2, 3), columns=("age", "height", "weight")), ("height",))
        tensor([False,  True, False])
    """
    known = data.columns or tuple(map(str, range(data.x_dim)))
    if unknown := [name for name in names if name not in known]:
        few = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
        raise ValueError(f"given_columns must be columns of the data, {few}, got {unknown[0]}; change --given-columns")
    seen = torch.tensor([name in names for name in known])
    if not 0 < int(seen.sum()) < len(seen):
        raise ValueError(
            f"given_columns must name some columns and leave some, got {int(seen.sum())} of {len(seen)}; change "
            "--given-columns"
        )
    return seen


def part(data: Loader, which: Tensor) -> Loader:
    """Some columns of data, as data of their own, from which a net's start and a likelihood's are taken."""
    columns = None if data.columns is None else tuple(c for c, w in zip(data.columns, which.tolist(), strict=True) if w)
    kind = data.kind
    return Loader(
        data.x[:, which.to(data.device)], data.batch_size, columns=columns, kind=kind, missing=data.has_missing
    )
