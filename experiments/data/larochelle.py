"""The fixed binarisation of MNIST: read, checked, and where it is missing downloaded."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from dlvm.experiments.data.files import check_digest
from dlvm.experiments.data.readers.arrays import open_arrays

FILE = "binarized_mnist/binarized_mnist.npz"
URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_{}.amat"
PIXELS = 784
MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}


def read(folder: Path) -> list[np.ndarray]:
    """Train (50,000), valid and test (10,000 each) as uint8 matrices of zeros and ones, 784 columns.

    The npz keeps 8 pixels a byte, and its own checksum depends on how it was zipped; so it is the pixels that
    are checked: written out as the public text files, they must have those files' md5.

    Raises: ValueError if the file cannot be read or holds other pixels.
    """
    arrays = open_arrays(folder / FILE)
    parts = []
    for name, md5 in MD5.items():
        if f"{name}_bits" not in arrays:
            raise ValueError(f"{folder / FILE} must hold {name}_bits, got {sorted(arrays)}: remove the file")
        bits = arrays[f"{name}_bits"]
        if bits.dtype != np.uint8 or bits.ndim != 2:
            raise ValueError(
                f"{folder / FILE} must hold {name}_bits as a matrix of uint8, got {bits.dtype} of shape {bits.shape}: "
                "remove the file"
            )
        part = np.unpackbits(bits, axis=1, count=PIXELS)
        check_digest(f"{folder / FILE} ({name})", to_text(part), "md5", md5)
        parts.append(part)
    return parts


def download(folder: Path) -> None:
    """Fetch the three public text files, check them, and keep them as one npz of packed bits in `folder`.

    Raises: OSError without a network; ValueError if a file is not the public one.
    """
    bits: dict[str, Any] = {}
    for name, md5 in MD5.items():
        with urllib.request.urlopen(URL.format(name), timeout=30) as response:
            text = response.read()
        check_digest(URL.format(name), text, "md5", md5)
        bits[f"{name}_bits"] = np.packbits(from_text(text), axis=1)
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / FILE, **bits)


def to_text(x: np.ndarray) -> np.ndarray:
    """The bytes of a text file of x: pixels joined by one space, one image a line."""
    text = np.full((len(x), 2 * x.shape[1]), ord(" "), np.uint8)
    text[:, ::2] = x + ord("0")
    text[:, -1] = ord("\n")
    return text


def from_text(text: bytes, pixels: int = PIXELS) -> np.ndarray:
    """The inverse of `to_text`."""
    return np.frombuffer(text, np.uint8).reshape(-1, 2 * pixels)[:, ::2] - ord("0")
