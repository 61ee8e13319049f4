"""Tables whose columns are of several kinds: which likelihood each has, told from its numbers or by the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

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
