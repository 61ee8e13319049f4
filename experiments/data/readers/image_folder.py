"""Folders of images: a sub-folder is a class, or one of the parts train, valid and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dlvm.experiments.data.readers.found import PART_WORDS, Found, Roles, needed
from dlvm.inference.console import say

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "CMYK", "YCbCr")
LARGEST = 1 << 31  # bytes of all images unfolded


def read_image_folder(folder: Path, roles: Roles) -> Found:
    """All images below a folder, in the order of their paths, which name the rows.

    Returns: levels 0..255, (N, H, W) if all are grey and (N, 3, H, W) otherwise; labels where they lie in sub-folders.
    Raises: ValueError if there is none, one cannot be read, or two differ in size.
    """
    roles.refuse_columns(folder.name)
    roles.refuse_key(folder.name)
    image = needed("PIL", folder.name, "Image")
    below = [path for path in folder.rglob("*") if path.is_file()]
    files = sorted(path for path in below if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    paths = [path for path in files if path.suffix.lower() in IMAGES]
    if not paths:
        raise ValueError(f"path: the folder {folder} (--data) holds no image ({', '.join(IMAGES)}): name one that does")
    if len(paths) < len(files):
        say(f"{folder.name}: {len(files) - len(paths)} files are no images, and are left out")
    x = _levels(image, folder, paths)
    places = [path.relative_to(folder).parts[:-1] for path in paths]
    part = None
    if all(place and place[0].lower() in PART_WORDS for place in places):
        part, places = np.array([PART_WORDS[place[0].lower()] for place in places]), [place[1:] for place in places]
    if len({bool(place) for place in places}) > 1:
        loose = next(path for path, place in zip(paths, places, strict=True) if not place)
        raise ValueError(
            f"path: in {folder} images lie beside sub-folders, which name classes, such as {loose.name}: move them"
        )
    labels = np.array(["/".join(place) for place in places]) if all(places) else None
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Found(x, labels, index=names, part=part, origin=str(folder))


def _levels(image: Any, folder: Path, paths: list[Path]) -> np.ndarray:
    headers = [_header(image, path) for path in paths]
    (size, _), colours = headers[0], any(mode in COLOUR for _, mode in headers)
    for path, (other, mode) in zip(paths, headers, strict=True):
        if mode not in GREY + COLOUR:
            raise ValueError(f"{path} must have 8 bits per pixel, got mode {mode}: convert it to L or RGB first")
        if other != size:
            raise ValueError(
                f"path: images of {folder} must be of one size, got {size[0]} x {size[1]} for {paths[0].name} and "
                f"{other[0]} x {other[1]} for {path.name}: resize or crop them first"
            )
    if len(paths) * size[0] * size[1] * (3 if colours else 1) > LARGEST:
        raise ValueError(f"path: images of {folder} hold more than {LARGEST} bytes: make them smaller, or take fewer")
    if colours and any(mode in GREY for _, mode in headers):
        say(f"{folder.name}: some images are grey and some in colours; all are read in colours")
    return np.stack([_pixels(image, path, "RGB" if colours else "L") for path in paths])


def _header(image: Any, path: Path) -> tuple[tuple[int, int], str]:
    try:
        with image.open(path) as opened:
            return opened.size, opened.mode
    except Exception as error:  # a parser of hostile bytes may fail in any way; each is told as one
        raise ValueError(f"{path} is no readable image ({error}): remove it or write it anew") from error


def _pixels(image: Any, path: Path, mode: str) -> np.ndarray:
    try:
        with image.open(path) as opened:
            levels = np.asarray(opened.convert(mode))
    except Exception as error:  # as above
        raise ValueError(f"{path} is no readable image ({error}): remove it or write it anew") from error
    return levels if levels.ndim == 2 else levels.transpose(2, 0, 1)
