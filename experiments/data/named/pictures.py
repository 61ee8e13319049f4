"""Omniglot's characters and a subset of CIFAR-10's photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlvm.experiments.data.named.kept import CIFAR10, OMNIGLOT, paths_of
from dlvm.experiments.data.prepare import cut
from dlvm.experiments.data.readers.arrays import open_arrays
from dlvm.experiments.data.rows import Reading, Rows
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits
from dlvm.inference.console import say

Device = str | torch.device
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def omniglot(
    binarize: Binarize | None = "dynamic",
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """Omniglot: 28 x 28 handwritten characters of 50 alphabets, greys 0..255 divided by 255, bright is ink.

    Returns: 17,352 training and 1,928 validation rows of the 30 alphabets of the background set, and 13,180 test rows
        of the 20 others; `labels` are the alphabets; `more` has the `character` (1..1623) and the `drawer` (1..20).
    Args: as in `mnist`.
    Raises: FileNotFoundError if the file is missing; ValueError if it is damaged.
    References: Human-level concept learning through probabilistic program induction, B. Lake, R. Salakhutdinov,
        J. Tenenbaum, 2015. These are not the 24,345 images of Importance weighted autoencoders, 2016: their
        log-likelihoods are others.
    """
    check_options(binarize, batch_size, device, seed)
    arrays = open_arrays(paths_of((OMNIGLOT,), data_dir)[0])
    x, part = torch.from_numpy(arrays["images"]), np.where(arrays["background"], "train", "test")
    more = {"character": _whole(arrays["image_id"]), "drawer": _whole(arrays["drawer"])}
    rows = Rows(
        x.flatten(1).to(torch.get_default_dtype()) / 255, _whole(arrays["alphabet"]), (28, 28), "omniglot", more,
        label_names=tuple(arrays["alphabet_names"].tolist()), kind="grey", reading=Reading(scale=255.0),
    )  # fmt: skip
    return make_splits(cut(rows, part, 0.1, 0.1), binarize, batch_size, device, seed)


def cifar10(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """The first photographs of CIFAR-10: 3 x 32 x 32, levels 0..255 divided by 255, channels first.

    Returns: 3,600 training, 400 validation and 1,000 test rows of x_dim 3,072; `labels` are the ten objects. It is a
        subset, small on purpose: results on it are not those on CIFAR-10.
    Args: as in `mnist`.
    Raises: FileNotFoundError if the file is missing; ValueError if it is damaged.
    References: Learning multiple layers of features from tiny images, A. Krizhevsky, 2009.
    """
    check_options(binarize, batch_size, device, seed)
    arrays = open_arrays(paths_of((CIFAR10,), data_dir)[0])
    say("cifar10: the first 4000 training and 1000 test images, with which results are not those on CIFAR-10")
    levels = np.concatenate([arrays["train_images"], arrays["test_images"]]).transpose(0, 3, 1, 2)
    labels = _whole(np.concatenate([arrays["train_labels"], arrays["test_labels"]]))
    part = np.repeat(["train", "test"], [len(arrays["train_labels"]), len(arrays["test_labels"])])
    x = torch.from_numpy(np.ascontiguousarray(levels)).flatten(1).to(torch.get_default_dtype()) / 255
    known = Reading(scale=255.0)
    rows = Rows(x, labels, levels.shape[1:], "cifar10", label_names=OBJECTS, kind="image", reading=known)
    return make_splits(cut(rows, part, 0.1, 0.1), binarize, batch_size, device, seed)


def _whole(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.int64))
