"""The files of a pair: written whole or not at all, with checksums, and read if they are whole and go together."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyro
import torch
from safetensors.torch import load, save
from torch import Tensor

from dlvm.inference.checkpoints.folder import UNREADABLE, digest_of, flush
from dlvm.inference.console import first_line
from dlvm.inference.saved.names import LIBRARY, PARTS
from dlvm.inference.saved.writing import Data

FORMAT = 1
PAIR = "pair.json"
WORDS = ("model", "guide")
DRAFT = ".part"
Numbers = dict[str, dict[str, Tensor]]


def packed(data: Data, parts: Data, numbers: Numbers, sources: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """{name of a file: its content}.

    Args:
        data: how the parts fit together.
        parts: in the types of JSON.
        numbers: {"model" or "guide": {name: tensor}}.
        sources: {module: checksum} of a user's own.
    """
    files = {f"{word}.safetensors": save(numbers.get(word, {})) for word in WORDS}
    content = {"format": FORMAT, "versions": _versions(), "pair": data, "parts": parts}
    content["sources"] = dict(sources or {})
    content["files"] = {name: digest_of(held) for name, held in files.items()}
    text = json.dumps(content)
    return files | {PAIR: json.dumps({"sha256": digest_of(text.encode()), **content}, indent=1).encode()}


def unpacked(files: Mapping[str, bytes]) -> tuple[Data, Numbers]:
    """What ``packed`` was given: content of ``pair.json``, and the numbers.

    Raises:
        ValueError: one does not match its checksum, or the format is another.
    """
    content = _unsealed(files[PAIR])
    return content, {word: load(files[f"{word}.safetensors"]) for word in WORDS}


def write(place: Path, files: Mapping[str, bytes]) -> None:
    """Writes all of them or none: an earlier pair is there until the new one is.

    Each is first written beside its place. From the moment on that ``pair.json`` is put in its place, the new pair
    counts, and ``read`` finds the others beside theirs if the process dies there.

    Raises:
        ValueError: the folder cannot be written to.
    """
    drafts = {name: place / f"{name}{DRAFT}" for name in files}
    try:
        place.mkdir(parents=True, exist_ok=True)
        _settle(place)
        for name, held in files.items():
            with drafts[name].open("wb") as file:
                file.write(held)
                file.flush()
                os.fsync(file.fileno())
        flush(place)
        os.replace(drafts.pop(PAIR), place / PAIR)
        for name in tuple(drafts):
            os.replace(drafts.pop(name), place / name)
        flush(place)
    except OSError as error:
        if PAIR in drafts:  # else they are what the new pair needs
            for draft in drafts.values():
                with suppress(OSError):
                    draft.unlink(missing_ok=True)
        raise ValueError(f"folder must be one to write to, got {place} ({error}); choose another") from error


def read(place: Path) -> dict[str, bytes]:
    """{name of a file: its content}, of a folder that ``write`` wrote to.

    Raises:
        OSError, ValueError: one is missing or damaged.
    """
    sealed = (place / PAIR).read_bytes()
    wanted = _unsealed(sealed)["files"]
    return {PAIR: sealed} | {name: _matching(place, name, wanted[name]) for name in wanted}


def sources(modules: Iterable[str]) -> dict[str, str]:
    """{module: checksum of its file} of those that have one and are neither ours nor a library's."""
    known = {*LIBRARY, *PARTS, "dlvm"} - {"__main__"}
    users = [name for name in modules if name.partition(".")[0] not in known]
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in users}
    return {name: digest_of(Path(file).read_bytes()) for name, file in files.items() if file and Path(file).is_file()}


def _unsealed(held: bytes) -> Data:
    try:
        content = json.loads(held)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{PAIR} is damaged: {first_line(error)}") from error
    if not isinstance(content, dict) or content.pop("sha256", None) != digest_of(json.dumps(content).encode()):
        raise ValueError(f"{PAIR} does not match its checksum")
    if content["format"] != FORMAT:
        raise ValueError(
            f"{PAIR} is of format {content['format']}, and {FORMAT} is expected; take the dlvm that wrote it"
        )
    return content


def _matching(place: Path, name: str, digest: str) -> bytes:
    """A file that goes with ``pair.json``; its draft, where a process died between the two."""
    for path in (place / name, place / f"{name}{DRAFT}"):
        if path.exists() and digest_of(held := path.read_bytes()) == digest:
            return held
    if not (place / name).exists():
        raise ValueError(f"{name} is missing")
    raise ValueError(f"{name} does not match its checksum in {PAIR}: it is damaged, or of another pair")


def _settle(place: Path) -> None:
    """Finishes what a process that died had begun, and removes what it had not."""
    try:
        files = _unsealed((place / PAIR).read_bytes())["files"]
    except UNREADABLE:
        files = {}
    for word in WORDS:
        name, draft = f"{word}.safetensors", place / f"{word}.safetensors{DRAFT}"
        if draft.exists() and digest_of(draft.read_bytes()) == files.get(name):
            os.replace(draft, place / name)


def _versions() -> dict[str, str]:
    try:
        ours = version("pyro-dlvm")
    except PackageNotFoundError:
        ours = "unknown"
    return {"dlvm": ours, "torch": torch.__version__, "pyro": pyro.__version__, "python": platform.python_version()}
