"""Some of the labels that data have, and the others kept from the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dlvm.distributions.priors.labels import ABSENT
from dlvm.experiments.data.arguments import check_count, check_seed
from dlvm.experiments.data.loader import Loader
from dlvm.experiments.data.splits import Splits
from dlvm.nets.arguments import whole

GIVEN = "given_y"


def with_few_labels(data: Splits, labels: int, seed: int = 0, beside: Sequence[str] = ()) -> Splits:
    """Data in which a model is shown few labels of training rows, and of others none.

    Returns:
        the loaders: training batches are (x, labels or -1), which ``train["given_y"]`` holds for all rows; those of
        validation and test are (x,), or with tensors ``beside`` them (x, -1, ...). All keep their labels as "y".

    Args:
        data: with labels.
        labels: how many training rows keep theirs: chosen at random, as many of each class as of any other as long as
            there are any; 0 for none.
        seed: of the choice.
        beside: names of other tensors of the data, which batches of all three hold behind the labels.

    Raises:
        ValueError: training rows have no labels, or fewer than ``labels``; or there is no such tensor.

    Example:
        >>> from dlvm.experiments.data import digits
        >>> train, valid, test = with_few_labels(digits(), 20)
        >>> int((train["given_y"] >= 0).sum()), train.given, test.given
        (20, ('x', 'given_y'), ('x',))
    """
    whole(labels=labels)
    check_seed(seed)
    if data.train.labels is None:
        raise ValueError(f"data {data.train.name!r} have no labels to learn classes from: --label-column says where")
    if labels:
        check_count("labels", labels, most=int((data.train.labels != ABSENT).sum()))
    kept = balanced(data.train.labels.cpu(), labels, seed).to(data.train.device)
    given = torch.full_like(data.train.labels, ABSENT)
    given[kept] = data.train.labels[kept]
    shown = _with(data.train, given).giving("x", GIVEN, *beside)
    if not beside:
        return Splits(shown, data.valid.giving("x"), data.test.giving("x"))
    valid, test = (
        _with(part, torch.full((part.num_data,), ABSENT, device=part.device)) for part in (data.valid, data.test)
    )
    return Splits(shown, valid.giving("x", GIVEN, *beside), test.giving("x", GIVEN, *beside))


def balanced(classes: Tensor, number: int, seed: int = 0) -> Tensor:
    """So many rows, at random, with as many of each class as of any other while there are any; those of -1 never.

    Example:
        >>> classes = torch.tensor([0, 0, 0, 1, 1, -1])
        >>> sorted(classes[balanced(classes, 4)].tolist())
        [0, 0, 1, 1]
    """
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    order = order[classes[order] != ABSENT]
    turn = torch.empty(len(order), dtype=torch.long)  # the how manieth of its class
    for value in classes[order].unique():
        same = (classes[order] == value).nonzero()[:, 0]
        turn[same] = torch.arange(len(same))
    return order[turn.sort(stable=True).indices[:number]]


def _with(loader: Loader, given: Tensor) -> Loader:
    rows = replace(loader.rows, more={**loader.rows.more, GIVEN: given})
    found = Loader.of(rows.of_kind(loader.kind), loader.batch_size, loader.shuffle, loader.dynamic, loader.seed)
    return found


def labels_repeated(train: Loader, share: float) -> Loader:
    """Training data whose few rows with a label come again and again, so that most batches hold some.

    What few rows say is lost where one batch in many holds one of them. The bound is that of the data with repeats.

    Args:
        train: of ``with_few_labels``.
        share: of the rows that are to show a label, to the nearest number of repeats; 0 for none.

    Raises:
        ValueError: ``share`` is not from 0 to below 1.

    Example:
        >>> from dlvm.experiments.data import digits
        >>> train = with_few_labels(digits(), 20).train
        >>> train.num_data, labels_repeated(train, 0.1).num_data
        (1297, 1417)
    """
    if not isinstance(share, float | int) or not 0 <= share < 1:
        raise ValueError(f"labelled_share must be from 0 to below 1, got {share!r}; 0.05 is one row in twenty")
    known = (train[GIVEN] >= 0).nonzero()[:, 0]
    hidden = train.num_data - len(known)
    more = round(share * hidden / ((1 - share) * len(known))) - 1 if len(known) else 0
    if more < 1:
        return train
    rows = train.rows.select(torch.cat([torch.arange(train.num_data, device=train.device), known.repeat(more)]))
    found = Loader.of(rows.of_kind(train.kind), train.batch_size, train.shuffle, train.dynamic, train.seed)
    return found.giving(*train.given)
