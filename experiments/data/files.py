"""Where data files lie, and whether they are what they should be."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dlvm.experiments.data.arguments import check_path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()  # installed from a wheel: where one works
FOLDERS = (HOME / "data", HOME.parent / "shared" / "data")

SHA256 = {
    "MNIST": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}

LARGEST = 1 << 26  # bytes: the training images are 47 million


def folder_with(files: Sequence[str], data_dir: str | Path | None, download: Callable[[Path], None]) -> Path:
    """The first folder that holds all `files`; where none does, they are downloaded.

    Returns: `data_dir` if it is given, else `data/` or `../shared/data` as seen from the repository's root, or where
        there is none from the folder that one works in; a download goes to the first.
    Raises: FileNotFoundError that names the folders, the files and the remedy if the download fails.
    """
    folders = FOLDERS if data_dir is None else (check_path("data_dir", data_dir),)
    if folders[0].exists() and not folders[0].is_dir():
        raise ValueError(f"data_dir must be a folder (--data-dir), got the file {folders[0]}: name the one it is in")
    for folder in folders:
        if all((folder / name).is_file() for name in files):
            return folder
    try:
        download(folders[0])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"no data in {' or '.join(map(str, folders))}, and no download ({error}): expected "
            f"{', '.join(files)}; put them there, name another folder by data_dir= (--data-dir), or connect "
            "to a network"
        ) from error
    return folders[0]


def check_digest(what: str | Path, content: bytes | np.ndarray, algorithm: str, expected: str) -> None:
    """Raise ValueError that names `what` if its content has another checksum than expected."""
    buffer = content if isinstance(content, bytes) else content.data
    got = hashlib.new(algorithm, buffer, usedforsecurity=False).hexdigest()
    if got != expected:
        raise ValueError(
            f"{what}: {algorithm} expected {expected}, got {got}: the file is damaged or another one; "
            "remove it, and it is downloaded again"
        )


def read_idx(path: Path, sha256: str) -> np.ndarray:
    """The uint8 array in an idx file; ValueError if the file has another checksum."""
    with path.open("rb") as file:
        content = file.read(LARGEST)
    check_digest(path, content, "sha256", sha256)
    ndim = content[3]
    shape = np.frombuffer(content, ">u4", count=ndim, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)
