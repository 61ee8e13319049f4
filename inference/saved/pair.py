"""A model and its guide, written to a folder and read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
from safetensors import SafetensorError

from dlvm.distributions.pyro_lock import TURN
from dlvm.inference.checkpoints.folder import UNREADABLE
from dlvm.inference.console import first_line, tell
from dlvm.inference.programs.pair import Pair
from dlvm.inference.saved import programs
from dlvm.inference.saved.files import packed, read, sources, unpacked, write
from dlvm.inference.saved.names import MIXIN, Names
from dlvm.inference.saved.reading import Reader
from dlvm.inference.saved.tensors import same_bits
from dlvm.inference.saved.writing import Writer


def save(folder: str | Path, model: Callable, guide: Callable, *args: Any) -> None:
    """Writes a model and a guide down, so that ``load`` gives the very same in another process.

    All that the two consist of is written as data: classes and functions by the path to import them from, parameters
    and buffers to the last bit with what they share, plain attributes, and what ``pyro.param`` has declared; nothing is
    pickled. ``pair.json`` says how it fits together, with checksums; ``model.safetensors`` and ``guide.safetensors``
    hold the numbers. They are written whole or not at all, and what has been written is read again and compared before
    it counts; an earlier pair in the folder stays until then. Gradients and compiled code are not kept; of a tensor
    that was computed, its values are.

    Args:
        folder: made if it does not exist; its other files are left alone.
        model, guide: modules, functions at the top of a module, methods, or these inside Pyro's handlers.
        *args: one batch, if any, on which the densities of what is read again must be those of the pair; and where
            functions declare parameters in a store that other programs use as well, what a run on it meets is kept.

    Raises:
        TypeError: something cannot be found again or written down, as a lambda, a class inside a function, or a file;
            the message says where it lies and what to do. Nothing is written.
        ValueError: the folder cannot be written to.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn
        >>> with TemporaryDirectory() as folder:
        ...     save(folder, nn.Linear(2, 1), nn.Identity())
        ...     model, guide = load(folder)
        >>> model
        Linear(in_features=2, out_features=1, bias=True)
    """
    place, pair, writer = _place(folder), Pair(model, guide), Writer()
    programs.run(pair, args)  # after which no guide has parameters yet to be made
    seen = programs.run(pair, args)
    data = programs.written(writer, pair, model, guide, seen)
    numbers = writer.tensors.packed()
    files = packed(data, writer.parts, numbers, sources(_modules(writer.parts)))
    again, seen_again = _again(files, args)
    numbers_again = again.tensors.packed()
    if seen != seen_again or not same_bits(numbers, numbers_again) or again.parts != writer.parts:
        both = zip(writer.places, writer.parts, again.parts, strict=False)
        changed = (place for place, part, part_again in both if part != part_again)
        raise TypeError(
            f"the pair does not come back as it was: {next(changed, 'its density')} is another; nothing was written. "
            "A class that makes up its attributes, in __getattr__ or __setattr__, may be the cause"
        )
    write(place, files)


def _modules(parts: list) -> set[str]:
    """Names of the modules that parts come from."""
    paths = [part[word] for part in parts for word in ("class", "name") if word in part]
    return {path.partition(":")[0] for path in paths if ":" in path and not MIXIN.fullmatch(path)}


def _again(files: Mapping[str, bytes], batch: tuple) -> tuple[Writer, programs.Run]:
    """What is written of, and seen of, what has been written."""
    content, numbers = unpacked(files)
    found, writer = programs.read(Reader(content["parts"], numbers, Names()), content["pair"]), Writer()
    pair = Pair(found.model, found.guide)
    with TURN, pyro.get_param_store().scope(found.store):
        seen = programs.run(pair, batch)
        programs.written(writer, pair, found.model, found.guide, seen)
    return writer, seen


def load(folder: str | Path, names: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """Reads what ``save`` wrote, and runs nothing of it.

    Modules that it names are imported, as ``import`` would; classes are filled with their attributes, without their
    constructors, and functions are looked up, and none of the standard library.

    Returns:
        model and guide, on the CPU.

    Args:
        folder: that ``save`` wrote to.
        names: {path: class or function} of those that have moved since, or lay in a script or a notebook:
            ``{"__main__:VAE": VAE}``.

    Raises:
        ValueError: a file is missing, damaged or of another pair, a class or function is not where it was, or Pyro's
            store holds other parameters of the same names; the message names it.

    Example:
        model, guide = load("runs/train")
    """
    place, known = _place(folder), Names(names)
    with _told(place):
        content, numbers = unpacked(read(place))
        found = programs.read(Reader(content["parts"], numbers, known), content["pair"])
        found.put(known)
    if changed := sorted(name for name, was in content["sources"].items() if sources([name]) != {name: was}):
        tell(f"{place}: {', '.join(changed)} reads otherwise than when the pair was saved, which may compute otherwise")
    return found.model, found.guide


def _place(folder: object) -> Path:
    if not isinstance(folder, str | Path) or not str(folder):
        raise TypeError(f"folder must be a path, got {folder!r}; write save('runs/mine', model, guide)")
    return Path(folder)


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """Inside, whatever fails is said of the folder."""
    try:
        yield
    except (*UNREADABLE, IndexError, RuntimeError, SafetensorError) as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"folder must hold a pair that was saved whole, got {place}: {said}") from error
