"""Data sets as loaders: each function returns `Splits(train, valid, test)`, and no row is in two of them."""

from .by_name import load
from .images import binarized_mnist, digits, fashion_mnist, mnist
from .loader import Loader
from .own import from_file, from_tensor
from .splits import Splits

__all__ = [
    "Loader",
    "Splits",
    "binarized_mnist",
    "digits",
    "fashion_mnist",
    "from_file",
    "from_tensor",
    "load",
    "mnist",
]
