"""Data sets as loaders: each function returns `Splits(train, valid, test)`, and no row is in two of them."""

from dlvm.experiments.data.by_name import load
from dlvm.experiments.data.description import describe, read_alike
from dlvm.experiments.data.images import binarized_mnist, digits, fashion_mnist, mnist
from dlvm.experiments.data.loader import Loader
from dlvm.experiments.data.splits import Splits
from dlvm.experiments.data.user_data import from_file, from_tensor

__all__ = [
    "Loader",
    "Splits",
    "binarized_mnist",
    "describe",
    "digits",
    "fashion_mnist",
    "from_file",
    "from_tensor",
    "load",
    "mnist",
    "read_alike",
]
