"""The image data sets by their names.

`binarize` says what becomes of the greys, which a Bernoulli cannot have produced:
    "dynamic"    each training batch is drawn anew from Bernoulli(grey); validation and test as in "static"
    "static"     one draw of Bernoulli(grey), the same for every seed
    "threshold"  grey >= 1/2
    None         the greys themselves, in [0, 1]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from dlvm.experiments.data import _torchvision, larochelle
from dlvm.experiments.data.files import SHA256, folder_with, read_idx
from dlvm.experiments.data.rows import Reading, Rows
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits, split_rows

Device = str | torch.device


def digits(
    binarize: Binarize | None = "dynamic", batch_size: int = 100, device: Device = "cpu", seed: int = 0
) -> Splits:
    """The 1,797 handwritten digits that come with scikit-learn: 8 x 8 pixels, greys 0..16 divided by 16.

    Returns: 1,297 training, 200 validation and 300 test rows of x_dim 64 from a fixed permutation; `labels`.
    Args: `binarize` as this module says; `seed` of the shuffling and the dynamic draws, nothing else.
    Raises: ValueError for an unknown `binarize` or a batch_size below 1.
    References: UCI "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998.

    Example:
        >>> train, valid, test = digits(batch_size=50)
        >>> train
        Loader(digits: 1297 x 64, 26 batches of 50, shuffled, drawn anew each time)
    """
    check_options(binarize, batch_size, device, seed)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.data).to(torch.get_default_dtype()) / 16
    y = torch.from_numpy(bunch.target)
    rows = split_rows(len(x), valid=200, test=300)
    parts = [Rows(x[r], y[r], (8, 8), "digits", kind="grey", reading=Reading(scale=16.0)) for r in rows]
    return make_splits(parts, binarize, batch_size, device, seed)


def mnist(
    binarize: Binarize | None = "dynamic",
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """MNIST: 28 x 28 handwritten digits, greys 0..255 divided by 255.

    Returns: 50,000 training and 10,000 validation rows (the first and the last of the training file) and
        10,000 test rows, of x_dim 784; `labels`.
    Args: `binarize` as this module says; `data_dir` where the files are looked for and, failing that,
        downloaded to (default: `data/`, else `../shared/data`); `seed` of the shuffling and the dynamic
        draws, nothing else.
    Raises: FileNotFoundError if the files are missing and cannot be downloaded; ValueError if one is damaged.
    References: Gradient-based learning applied to document recognition, Y. LeCun, L. Bottou, Y. Bengio,
        P. Haffner, 1998. Dynamic binarisation: Importance weighted autoencoders, Y. Burda, R. Grosse,
        R. Salakhutdinov, 2016, arXiv:1509.00519.
    """
    return _idx("MNIST", "mnist", binarize, batch_size, data_dir, device, seed)


def fashion_mnist(
    binarize: Binarize | None = "dynamic",
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """Fashion-MNIST: 28 x 28 pictures of clothing, in all else as `mnist`.

    References: Fashion-MNIST, H. Xiao, K. Rasul, R. Vollgraf, 2017, arXiv:1708.07747.
    """
    return _idx("FashionMNIST", "fashion_mnist", binarize, batch_size, data_dir, device, seed)


def binarized_mnist(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """MNIST in the fixed binarisation that most published static results use; no labels.

    Returns: 50,000, 10,000 and 10,000 rows of x_dim 784, as published. The order is not that of `mnist`.
    Args: `binarize` is None or "static", for it is done already; the others as in `mnist`.
    Raises: ValueError for another `binarize` or a damaged file; FileNotFoundError as in `mnist`.
    References: On the quantitative analysis of deep belief networks, R. Salakhutdinov, I. Murray, 2008. The
        neural autoregressive distribution estimator, H. Larochelle, I. Murray, 2011.
    """
    if binarize is not None and not (isinstance(binarize, str) and binarize == "static"):
        raise ValueError(
            f"binarize must be None or 'static' for binarized_mnist, got {binarize!r}: its pixels are 0 "
            f"and 1 already; mnist(binarize={binarize!r}) has the greys"
        )
    check_options(binarize, batch_size, device, seed)
    folder = folder_with([larochelle.FILE], data_dir, larochelle.download)
    x = [torch.from_numpy(part) for part in larochelle.read(folder)]
    parts = [Rows(part, None, (28, 28), "binarized_mnist", kind="binary") for part in x]
    return make_splits(parts, None, batch_size, device, seed)


def _idx(
    family: str,
    name: str,
    binarize: Binarize | None,
    batch_size: int,
    data_dir: str | Path | None,
    device: Device,
    seed: int,
) -> Splits:
    check_options(binarize, batch_size, device, seed)
    digests = {f"{family}/raw/{file}": sha256 for file, sha256 in SHA256[family].items()}
    folder = folder_with(list(digests), data_dir, partial(_torchvision.download, family))
    x, y, x_test, y_test = (torch.tensor(read_idx(folder / file, sha256)) for file, sha256 in digests.items())
    greys = [part.flatten(1).to(torch.get_default_dtype()) / 255 for part in (x[:50_000], x[50_000:], x_test)]
    labels = [y[:50_000], y[50_000:], y_test]
    shape, reading = tuple(x.shape[1:]), Reading(scale=255.0)
    parts = [Rows(*part, shape, name, kind="grey", reading=reading) for part in zip(greys, labels, strict=True)]
    return make_splits(parts, binarize, batch_size, device, seed)
