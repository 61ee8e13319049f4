"""Files of named data sets: where they lie, what they must hold, and where they can be had."""

from __future__ import annotations

import urllib.request
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dlvm.experiments.data.files import check_digest, folder_with


class Kept(NamedTuple):
    """A file by its place below a data folder, its checksum, and the address of the very file, if it is public."""

    place: str
    sha256: str
    url: str | None = None


OMNIGLOT = Kept("omniglot/omniglot_28.npz", "8182350707d3744d882e8f0c1821a4b42a0eecaa0ed9b0c0b32e74fc55f5452c")
CIFAR10 = Kept("cifar10_subset/cifar10_subset.npz", "7380576c52e13802ec926331a21510bf058a412bdab4736b997b2a192b8b3090")
CHORALES = Kept("jsb_chorales/jsb_chorales.npz", "66c489db64f0a6bad5d023ff5b83de9a9f2bf9ad6f50828c4dc4eb9dce3680a1")
NAMES = Kept(
    "text/names.txt",
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
)
SHAKESPEARE = Kept(
    "text/tinyshakespeare.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
)
ZINC_TRAIN = Kept(
    "molecules/zinc_valid.txt",
    "ad7d9c2bfebd93ffda6c32ed0e89d1714ae1f592f6340c0e6ae057521bbae30d",
    "https://raw.githubusercontent.com/wengong-jin/icml18-jtnn/master/data/zinc/valid.txt",
)
ZINC_TEST = Kept(
    "molecules/zinc_test.txt",
    "31f6ce92914814db33bf0dbfc45f3836193e27cb80a59c54d88bc05a1f5fab83",
    "https://raw.githubusercontent.com/wengong-jin/icml18-jtnn/master/data/zinc/test.txt",
)
SKY = Kept("sky/skyserver.csv", "5633126254d4ec5a4bfc81081f2f427596c5139ea27d36fd7ad26a6487f9fddd")
AIR_QUALITY = Kept("air_quality/AirQualityUCI.csv", "15d7b03fbf4c18d30a6ff27a7871ece4cef30b476636c3a8db843c9a1ad9cb9c")


def paths_of(files: tuple[Kept, ...], data_dir: str | Path | None) -> list[Path]:
    """Paths of files whose content is as it should be; where they are missing, they are downloaded if they are public.

    Raises: FileNotFoundError that names folder, files and remedy if they are missing; ValueError if one is damaged.
    """
    folder = folder_with([file.place for file in files], data_dir, partial(_download, files))
    for file in files:
        check_digest(folder / file.place, (folder / file.place).read_bytes(), "sha256", file.sha256)
    return [folder / file.place for file in files]


def _download(files: tuple[Kept, ...], folder: Path) -> None:
    private = [file for file in files if file.url is None]
    if private:
        known = ", ".join(f"{file.place} has sha256 {file.sha256[:12]}..." for file in private)
        raise OSError(f"this very file is at no public address: {known}")
    for file in files:
        with urllib.request.urlopen(str(file.url), timeout=30) as response:
            content = response.read()
        check_digest(str(file.url), content, "sha256", file.sha256)
        (folder / file.place).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.place).write_bytes(content)
